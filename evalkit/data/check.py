"""Whether a benchmark's files are there, readable and of the published size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.contracts import ImageHandle, Sample
from evalkit.data.locate import missing_files
from evalkit.doors import cause
from evalkit.errors import EvalkitError, ImageError
from evalkit.task import MINIATURE, DataFile, Task
from evalkit.text import names_nothing

#: So many problems are named; the rest is counted.
NAMED = 10


@dataclass(slots=True)
class SplitReport:
    """What was found of one split.

    Attributes:
        files: the official files with where they are, None for those that are not.
        samples: questions read; published: how many the benchmark has, where known.
        images: different images opened.
        problems: the first problems; more: how many others there are.
    """

    task: str
    split: str
    folder: str
    files: list[tuple[DataFile, Path | None]] = field(default_factory=list)
    samples: int = 0
    published: int | None = None
    images: int = 0
    problems: list[str] = field(default_factory=list)
    more: int = 0

    @property
    def complete(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def add(self, problem: str) -> None:
        """Name a problem, or count it."""
        if len(self.problems) < NAMED:
            self.problems.append(problem)
        else:
            self.more += 1


def check(task: Task, split: str, folder: Path, images: bool = True) -> SplitReport:
    """Read the whole split under `folder`, decode each image once, compare with the published size."""
    report = SplitReport(
        task.name, split, str(folder), published=task.data_source.published_size(split, folder)
    )
    if split != MINIATURE:
        _check_files(task, split, folder, report)
    seen, opened = set[str](), set[str]()
    for sample in _samples(task, split, folder, report):
        report.samples += 1
        if names_nothing(sample.id):
            report.add(f"sample {report.samples} has the id {sample.id!r}, which is none")
        if sample.id in seen:
            report.add(f"id {sample.id} occurs twice")
        seen.add(sample.id)
        if why := task.impossible_key(sample):
            report.add(f"sample {sample.id}: {why}: it counts as wrong whatever is answered")
        for image in sample.images if images else ():
            if image.identity() not in opened:
                opened.add(image.identity())
                _open(image, sample.id, report)
    report.images = len(opened)
    if report.published is not None and report.samples != report.published:
        report.add(f"{report.samples} questions, published are {report.published}")
    elif not report.samples and not report.problems:
        report.add("no questions")
    return report


def _check_files(task: Task, split: str, folder: Path, report: SplitReport) -> None:
    absent = missing_files(task, split, folder)
    for file in task.data_source.files_of(split):
        place = file.find(folder)
        report.files.append((file, place))
        # If an image folder has another name, opening its images will tell.
        if file in absent and not file.path.endswith("/"):
            report.add(f"{file.path} is missing (from {file.source})")
        elif place is not None and place.is_file() and file.size not in (None, place.stat().st_size):
            report.add(f"{place} has {place.stat().st_size} bytes, published are {file.size}")


def _samples(task: Task, split: str, folder: Path, report: SplitReport) -> Iterator[Sample]:
    if report.problems and not any(place for _, place in report.files):
        return
    try:
        yield from task.samples(split, folder)
    except EvalkitError as error:
        report.add(str(error))
    except Exception as error:  # the task's reader met what it does not expect
        report.add(f"{folder}: after {report.samples} questions: {cause(error)}: not the official file")


def _open(image: ImageHandle, identifier: str, report: SplitReport) -> None:
    try:
        image.open()
    except ImageError as error:
        report.add(f"sample {identifier}: {error}")
