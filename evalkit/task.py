"""The task contract: a benchmark as samples, a prompt, a parser and metrics.

A task writes no loop, no file handling of runs and no statistics; it composes metrics from evalkit.metrics.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from evalkit.contracts import Generation, ImagePolicy, Message, Record, Request, Response, Sample
from evalkit.errors import UsageError
from evalkit.metrics.base import Metric

MINIATURE = "miniature"

#: The scores or data of a record that has none.
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class DataFile:
    """One official file or folder that a split needs.

    Attributes:
        path: relative to the data root; a folder ends in `/`.
        source: where it comes from, as a person finds it (hub id, DOI, page).
        licence: the terms in a word or two.
        size: bytes as published, or None where not known or many files.
        alternatives: other accepted spellings of `path`; one of them is enough. `*` stands for any text.
    """

    path: str
    source: str
    licence: str
    size: int | None = None
    alternatives: tuple[str, ...] = ()

    def find(self, root: Path) -> Path | None:
        """The file under `root` by any of its spellings, or None."""
        for name in (self.path, *self.alternatives):
            if "*" in name and (found := sorted(root.glob(name))):
                return found[0]
            if (root / name).exists():
                return root / name
        return None


@dataclass(frozen=True, slots=True)
class HubSource:
    """A data set on the Hugging Face hub that holds a split: repository, configuration, split name.

    `files` are the split's files where they are not Parquet (tables as published).
    """

    repository: str
    configuration: str | None = None
    split: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """A published row: figures by our metric names, in our units, with the table they were printed in.

    `split` is the one they were measured on; runs on a split of `stand_ins` may be set beside them too.
    `note` says what is doubtful about the row.
    """

    table: str
    model: str
    metrics: Mapping[str, float]
    size: str = ""
    note: str = ""
    split: str = ""
    stand_ins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JudgeQuestion:
    """What a judge model is asked about one record; the reply is stored in `Record.data["judge"]`.

    `numeric`: the reply must be one finite number; anything else is asked again and then counts as failed.
    """

    system: str
    user: str
    temperature: float = 0.0
    max_tokens: int = 64
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """Something to draw on a sample's picture.

    Attributes:
        role: `target` or `prediction`.
        corners: (x, y) of a point, or (x1, y1, x2, y2) of a box.
        size: width and height of the picture that the corners are measured in.
        picture: position among the sample's picture files.
        label: a short name, or empty.
    """

    role: Literal["target", "prediction"]
    corners: tuple[float, ...]
    size: tuple[float, float]
    picture: int = 0
    label: str = ""


class Task(ABC):
    """A benchmark.

    Class attributes:
        name: as on the command line. title: as printed. version: raised when any number changes.
        splits: default first; `miniature` is always there besides.
        protocols: default first (`paper`).
        template: the last turn's text around `{question}`.
        generation, image_policy: the protocol's settings. These three may also be set in `__init__`, where
            protocols differ.
        group_by: tag names by which every report is split.
        headline: name of the metric shown where there is room for one; by default the first.
        export_name: file name of the submission that `export` writes.
        sizes: published number of samples by split, where it is known.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    splits: ClassVar[tuple[str, ...]] = ("test",)
    protocols: ClassVar[tuple[str, ...]] = ("paper",)
    template: str = "{question}"
    generation: Generation = Generation()
    image_policy: ImagePolicy = ImagePolicy()
    group_by: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[str] = ""
    export_name: ClassVar[str] = "submission.json"
    sizes: ClassVar[Mapping[str, int]] = {}

    def __init__(self, protocol: str | None = None) -> None:
        """Raises UsageError for a protocol the task does not have."""
        if protocol is not None and protocol not in self.protocols:
            raise UsageError(f"{self.name}: no protocol {protocol!r}; it has {', '.join(self.protocols)}")
        self.protocol = protocol or self.protocols[0]

    @abstractmethod
    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """Yield the split's samples from the official files under `root`, in file order, lazily.

        `split` may be `miniature`, for which `root` is the folder that `draw_miniature` filled.

        Raises:
            DataError: a file is missing or malformed, naming file, place and mend.
        """

    @abstractmethod
    def score(self, sample: Sample, response: Response) -> Record:
        """Parse and score one answer (never an error response). Use `record` to build the result."""

    @abstractmethod
    def metrics(self) -> Sequence[Metric]:
        """Metrics of the report, in the columns' order of the paper's table."""

    def request(self, sample: Sample) -> Request:
        """The protocol's prompt and settings for a sample; turns before the last are history.

        The default treats every turn but the last as user and assistant alternating.
        """
        roles = ("user", "assistant")
        texts = (*sample.turns[:-1], self.template.format(question=sample.turns[-1]))
        messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(texts))  # type: ignore[arg-type]
        return Request(sample.id, messages, sample.images, self.generation, self.image_policy)

    def relate(self, records: list[Record]) -> list[Record]:
        """Mend records that depend on others (circular groups, DriveLM's graph rule); default: none do."""
        return records

    def judge_question(self, record: Record) -> JudgeQuestion | None:
        """What to ask a judge about a record, or None where the protocol asks nothing."""
        return None

    def group_metrics(self) -> Sequence[Metric]:
        """Metrics reported for each value of the `group_by` tags; default: all."""
        return self.metrics()

    def data_files(self, split: str) -> Sequence[DataFile]:
        """Official files that the split needs; any task with public files names them."""
        return ()

    def hub(self, split: str) -> HubSource | None:
        """Where the hub has the split, or None."""
        return None

    def published_size(self, split: str, root: Path) -> int | None:
        """How many samples the benchmark's files under `root` should hold, where it is known."""
        return self.sizes.get(split)

    def references(self) -> Sequence[Reference]:
        """Published rows to print beside ours."""
        return ()

    def regions(self, record: Record) -> Sequence[Region]:
        """Boxes and points of target and prediction, to draw on the pictures; default: none."""
        return ()

    def draw_miniature(self, folder: Path) -> None:
        """Draw the split `miniature` in the benchmark's official file format, by seeded code.

        Raises:
            UsageError: the task has none.
        """
        raise UsageError(f"{self.name}: no miniature split")

    def export(self, records: Sequence[Record], path: Path) -> None:
        """Write the benchmark's official submission file.

        Raises:
            UsageError: the benchmark takes no submissions.
        """
        raise UsageError(f"{self.name}: the benchmark has no submission file; its labels are public")

    def prompt_fingerprint(self) -> str:
        """Six hexadecimal digits that change whenever the prompt's wording does."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:6]

    def scorer_version(self) -> str:
        """Names protocol and version in the signature, e.g. `paper.1`."""
        return f"{self.protocol}.{self.version}"


def record(
    sample: Sample,
    response: Response,
    *,
    prediction: object = None,
    scores: Mapping[str, float] | None = None,
    unparsed: bool = False,
    data: Mapping[str, object] | None = None,
) -> Record:
    """The record of an answered sample, with the flags that follow from the response."""
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
        tags=sample.tags,
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
