"""What the tests of the general benchmarks share: small images, tables, and a scoring pass."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image
from scored_answers import GivenReplies, score_texts

from evalkit.contracts import MetricValue, Record
from evalkit.pipeline.summary import metric_values
from evalkit.task import Task


def png(colour: str = "red", size: tuple[int, int] = (4, 3)) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def cell(colour: str = "red") -> str:
    """An image as a table holds it."""
    return base64.b64encode(png(colour)).decode()


def write_tsv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """A TSV table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def records_of(
    task: Task, split: str, root: Path, answers: Mapping[str, str] | str, judge: GivenReplies | None = None
) -> list[Record]:
    """Every sample of the split scored with its answer (one for all, or by id)."""
    return score_texts(task, list(task.samples(split, root)), answers, judge)


def plain_values(task: Task, records: Sequence[Record]) -> dict[str, float | None]:
    """Values of the task's metrics."""
    return {name: value.value for name, value in values(task, records).items()}


def values(task: Task, records: Sequence[Record]) -> dict[str, MetricValue]:
    """The task's metrics."""
    return metric_values(task, list(records))


def prompt(task: Task, split: str, root: Path) -> str:
    """The first sample's prompt."""
    return task.request(next(iter(task.samples(split, root)))).messages[-1].text
