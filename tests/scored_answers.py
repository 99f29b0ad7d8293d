"""Scoring of given texts through the pipeline, with a judge whose replies are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evalkit.contracts import Failure, Record, Response, Sample
from evalkit.pipeline.score import score
from evalkit.store import StoredResponse
from evalkit.task import JudgeQuestion, Task


class GivenReplies:
    """A judge that gives each sample its reply, or all the same one; remembers what it was asked."""

    def __init__(self, replies: str | Mapping[str, str | Failure]) -> None:
        self._replies = replies
        self.asked: dict[str, JudgeQuestion] = {}

    def replies(self, questions: Mapping[str, JudgeQuestion]) -> Iterator[tuple[str, str | Failure]]:
        self.asked = dict(questions)
        for name in questions:
            yield name, self._replies if isinstance(self._replies, str) else self._replies[name]


def score_texts(
    task: Task,
    samples: Sequence[Sample],
    texts: Mapping[str, str | Failure] | str,
    judge: GivenReplies | None = None,
) -> list[Record]:
    """The records of samples answered by these texts (one for all, or by id; a Failure is not an answer)."""
    responses = {}
    for sample in samples:
        text = texts if isinstance(texts, str) else texts[sample.id]
        response = Response(error=text) if isinstance(text, Failure) else Response(text=text)
        responses[sample.id] = StoredResponse(sample.id, "key", response)
    return [scored.record for scored in score(task, samples, responses, judge)]
