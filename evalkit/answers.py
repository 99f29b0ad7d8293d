"""From an answered sample to its record: what was parsed, what the judge replied, and the record itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from evalkit.contracts import Failure, Record, Response, Sample

#: Keys of `Record.data`: the judge's reply; why there is none.
REPLY, FAILURE = "judge", "judge_failure"

#: The scores or data of a record that has none.
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """An answered sample that is parsed, and judged where a judge is asked.

    Attributes:
        parsed: what `Task.parse` read out of the response.
        reply: the judge's reply, why there is none, or None where the judge was not asked.
    """

    sample: Sample
    response: Response
    parsed: Any = None
    reply: str | Failure | None = None

    def judge_data(self) -> dict[str, str]:
        """What a record keeps of the judge in its `data`: `judge` or `judge_failure`; empty if not asked."""
        if self.reply is None:
            return {}
        return {FAILURE: self.reply.message} if isinstance(self.reply, Failure) else {REPLY: self.reply}


def record(
    sample: Sample,
    response: Response,
    *,
    prediction: object = None,
    scores: Mapping[str, float] | None = None,
    unparsed: bool = False,
    data: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Record:
    """The record of an answered sample, with the flags that follow from the response.

    `tags` come beside the sample's own.
    """
    flags: list[str] = []
    if unparsed:
        flags.append("unparsed")
    if response.finish == "length":
        flags.append("truncated")
    return Record(
        id=sample.id,
        cluster=sample.cluster,
        text=response.text,
        prediction=prediction,
        target=sample.target,
        scores=_shared(tuple(scores.items())) if scores else _NOTHING,
        tags={**sample.tags, **tags} if tags else sample.tags,
        flags=tuple(flags),  # type: ignore[arg-type]
        data=dict(data) if data else _NOTHING,
    )


@lru_cache(maxsize=4096)
def _shared(scores: tuple[tuple[str, float], ...]) -> Mapping[str, float]:
    """Equal scores are one object: most records of a large run have the same few."""
    return dict(scores)


def failed_record(sample: Sample, response: Response) -> Record:
    """The record of a sample that has no answer."""
    assert response.error is not None
    return Record(
        id=sample.id,
        cluster=sample.cluster,
        text="",
        prediction=None,
        target=sample.target,
        tags=sample.tags,
        flags=("error",),
        error=response.error,
    )
