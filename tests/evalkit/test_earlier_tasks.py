"""Task classes written before tasks named a DataSource, Overlay and Submission keep working."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from evalkit.contracts import Record, Response, Sample
from evalkit.data.locate import locate
from evalkit.errors import UsageError
from evalkit.metrics.base import Accuracy, Metric
from evalkit.task import DataFile, DataSource, HubSource, Reference, Region, Task, record


class Plain(Task):
    name = "plain"

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        yield from ()

    def score(self, sample: Sample, response: Response) -> Record:
        return record(sample, response)

    def metrics(self) -> Sequence[Metric]:
        return [Accuracy("accuracy")]


class Earlier(Plain):
    name = "earlier"
    sizes: ClassVar = {"test": 3}
    export_name = "answers.txt"

    def data_files(self, split: str) -> Sequence[DataFile]:
        return [DataFile(f"{split}.jsonl", "here", "CC0")]

    def hub(self, split: str) -> HubSource | None:
        return HubSource("owner/name", split=split)

    def draw_miniature(self, folder: Path) -> None:
        (folder / "drawn").touch()

    def references(self) -> Sequence[Reference]:
        return [Reference("1", self.name, {"accuracy": 1.0})]

    def regions(self, record: Record) -> Sequence[Region]:
        return [Region("target", (1.0, 2.0), (3.0, 4.0), label=record.id)]

    def export(self, records: Sequence[Record], path: Path) -> None:
        path.write_text(" ".join(r.id for r in records))


RECORD = Record("a", "c", "", None, None)


def test_earlier_methods_answer_for_the_objects_of_today(tmp_path: Path) -> None:
    task = Earlier()
    source = task.data_source
    assert [file.path for file in source.files_of("val")] == ["val.jsonl"]
    assert source.hub_of("val") == HubSource("owner/name", split="val")
    assert source.published_size("test", tmp_path) == 3 and source.published_size("val", tmp_path) is None
    assert source.draw is not None
    source.draw(tmp_path)
    assert (tmp_path / "drawn").exists()
    assert task.published_rows[0].model == "earlier"
    assert task.overlay is not None and task.overlay.regions(RECORD)[0].label == "a"
    assert task.submission is not None and task.submission.name == "answers.txt"
    task.submission.write([RECORD], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a"


def test_one_earlier_method_leaves_the_rest_of_a_source_as_inherited(tmp_path: Path) -> None:
    class Today(Plain):
        data_source = DataSource({"test": [DataFile("t", "s", "l")]}, sizes={"test": 1})

    class Drawn(Today):
        def draw_miniature(self, folder: Path) -> None:
            (folder / "drawn").touch()

    class Sized(Today):
        def published_size(self, split: str, root: Path) -> int | None:
            return 7

    source = Drawn().data_source
    assert source.files_of("test") == Today.data_source.files_of("test") and source.hub_of("test") is None
    assert source.published_size("test", tmp_path) == 1 and source.draw is not None
    assert Sized().data_source.published_size("test", tmp_path) == 7
    assert Sized().data_source.draw is None


def test_a_task_with_the_three_methods_has_none_of_the_objects() -> None:
    task = Plain()
    assert task.data_source == DataSource() and task.overlay is None and task.submission is None
    assert task.data_source.files_of("test") == () and list(task.published_rows) == []
    with pytest.raises(UsageError, match="plain: no miniature split"):
        locate(task, "miniature")
