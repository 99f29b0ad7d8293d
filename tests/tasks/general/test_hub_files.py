"""The general benchmarks from the hub's Parquet files, in the columns of their data sets there."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from general_tables import plain_values, png, records_of

from evalkit import registry
from evalkit.data.locate import locate
from evalkit.errors import DataError

IMAGE = {"bytes": png(), "path": None}
ROWS = {
    "ai2d": ("test", "data/test-0000", {"question": "q", "options": ["x", "y"], "answer": "1"}, "B"),
    "chartqa": ("test", "data/test-0", {"type": "human_test", "question": "q", "answer": "14"}, "14"),
    "docvqa": (
        *("val", "DocVQA/validation-0"),
        {"questionId": "7", "question": "q", "answers": ["a", "b"], "docId": 1},
        "b",
    ),
    "infovqa": (
        *("test", "InfographicVQA/test-0"),
        {"questionId": "7", "question": "q", "answers": None},
        "b",
    ),
    "textvqa": ("val", "data/validation-0", {"question_id": 3, "question": "q", "answers": ["a"] * 10}, "a"),
    "ocrbench": (
        *("test", "data/test-0"),
        {"dataset": "d", "question": "q", "question_type": "Doc-oriented VQA", "answer": ["yes"]},
        "yes!",
    ),
    "mathvista": (
        *("testmini", "data/testmini-0"),
        {"pid": "9", "question": "q", "image": "images/1.jpg", "choices": None, "answer": "4",
         "question_type": "free_form", "answer_type": "integer", "query": "Hint: q",
         "metadata": {"task": "geometry"}},
        "4",
    ),
    "mmmu": (
        *("val", "data/validation-0"),
        {"id": "validation_Art_1", "question": "q <image 1>", "options": "['x', 'y']", "answer": "B"},
        "B",
    ),
    "mmbench": (
        *("dev-en", "en/dev-0"),
        {"index": 4, "question": "q", "hint": "nan", "A": "x", "B": "y", "C": "nan", "D": "nan",
         "answer": "B", "category": "leaf", "L2-category": "branch", "source": "", "split": "dev"},
        "B",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_hub_rows(tmp_path: Path, name: str) -> None:
    split, file, cells, answer = ROWS[name]
    column = {"mathvista": "decoded_image", "mmmu": "image_1"}.get(name, "image")
    path = tmp_path / f"{file}.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**cells, column: IMAGE}]), path)
    task = registry.task(name)
    assert locate(task, split, tmp_path) == tmp_path
    (sample,) = task.samples(split, tmp_path)
    assert sample.images[0].open().size == (4, 3)
    records = records_of(task, split, tmp_path, answer)
    found = [value for value in plain_values(task, records).values() if value is not None]
    assert found == ([] if sample.target is None else [{"ocrbench": 1000.0}.get(name, 100.0)] * len(found))


def test_missing_options_of_the_hub(tmp_path: Path) -> None:
    split, _, cells, _ = ROWS["mmbench"]
    assert isinstance(cells, dict)
    for folder in ("en", "cn"):
        path = tmp_path / folder / "dev-0.parquet"
        path.parent.mkdir(parents=True)
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist([{**cells, "question": folder, "image": IMAGE}]), path
        )
    (sample,) = registry.task("mmbench").samples(split, tmp_path)
    assert sample.data["options"] == {"A": "x", "B": "y"}
    assert sample.turns[0].startswith("en\nA. x")
    assert sample.tags == {"l2-category": "branch", "category": "leaf"}


def test_wrong_types(tmp_path: Path) -> None:
    path = tmp_path / "data" / "test-0.parquet"
    path.parent.mkdir()
    row = {"type": "other", "question": "q", "answer": "a", "image": IMAGE}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    with pytest.raises(DataError, match="'other' is neither human nor augmented"):
        list(registry.task("chartqa").samples("test", tmp_path))
