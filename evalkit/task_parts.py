"""The small objects that a task names: data source, judge questions, published rows, overlay, submission."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evalkit.contracts import Record
from evalkit.macos import is_attribute

MINIATURE = "miniature"
#: Splits that hold drawn questions, or a few of the benchmark's: no published value is of them.
PARTS = (MINIATURE, "sample")


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
        return find(root, (self.path, *self.alternatives))


def find(root: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that exists under `root`, or None; `*` stands for any text."""
    for name in names:
        found = [path for path in sorted(root.glob(name)) if not is_attribute(path)] if "*" in name else []
        if found:
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


@dataclass(frozen=True)
class DataSource:
    """Where a benchmark's files come from.

    Attributes:
        files: official files by split; any task with public files names them.
        hub: the hub's copy by split, where it has one.
        sizes: published number of samples by split, where it is known.
        draw: draws the split `miniature` into a folder, in the official file format, by seeded code. None:
            the task has no such split.
    """

    files: Mapping[str, Sequence[DataFile]] = field(default_factory=dict)
    hub: Mapping[str, HubSource] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    draw: Callable[[Path], None] | None = None

    def files_of(self, split: str) -> Sequence[DataFile]:
        """Official files that the split needs."""
        return self.files.get(split, ())

    def hub_of(self, split: str) -> HubSource | None:
        """Where the hub has the split, or None."""
        return self.hub.get(split)

    def published_size(self, split: str, root: Path) -> int | None:
        """How many samples the files under `root` should hold, or None where it is not known."""
        return self.sizes.get(split)


@dataclass(frozen=True, slots=True)
class Reference:
    """A published row: values by our metric names, in our units, with the table they were printed in.

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
    """What a judge model is asked about one answer.

    `numeric`: the reply must be one finite number; anything else is asked again and then counts as failed.
    """

    system: str
    user: str
    temperature: float = 0.0
    max_tokens: int = 64
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """Something to draw on a sample's image.

    Attributes:
        role: `target` or `prediction`.
        corners: (x, y) of a point, or (x1, y1, x2, y2) of a box.
        size: width and height of the image that the corners are measured in.
        image: position among the sample's image files.
        label: a short name, or empty.
    """

    role: Literal["target", "prediction"]
    corners: tuple[float, ...]
    size: tuple[float, float]
    image: int = 0
    label: str = ""


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is drawn on a record's images: `regions` gives the boxes and points of target and prediction."""

    regions: Callable[[Record], Sequence[Region]]


@dataclass(frozen=True, slots=True)
class Submission:
    """A benchmark's official submission file.

    Attributes:
        name: the file's usual name.
        write: writes it from all records, those without an answer included. Raises UsageError where the
            benchmark's server would refuse the file.
    """

    name: str
    write: Callable[[Sequence[Record], Path], None]
