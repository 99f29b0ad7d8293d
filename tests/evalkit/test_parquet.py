"""Rows of Parquet files and their lazy pictures."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from general_tables import png

from evalkit.data.parquet import read_parquet
from evalkit.errors import DataError, ImageError


def write(path: Path, group: int = 2, **columns: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=group)
    return path


def pictures(*colours: str) -> list[object]:
    return [{"bytes": png(colour), "path": None} for colour in colours]


def test_rows_and_pictures(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        question=["a", "b", "c"],
        image=pictures("red", "blue", "red"),
        raw=[png("green"), None, None],
        listed=[["x"], [], None],
    )
    rows = list(read_parquet([path, path], ("question", "image")))
    assert [row.cells["question"] for row in rows] == ["a", "b", "c"] * 2
    assert rows[0].cells == {"question": "a", "listed": ["x"]}
    assert sorted(rows[0].images) == ["image", "raw"] and sorted(rows[1].images) == ["image"]
    colours = [row.images["image"].open().getpixel((0, 0)) for row in rows[:3]]
    assert colours == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]
    assert rows[0].images["image"].digest() == rows[2].images["image"].digest()
    assert pickle.loads(pickle.dumps(rows[0].images["image"])).open().size == (4, 3)


def test_absent_and_broken_pictures(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet", image=[{"bytes": None, "path": "x.png"}, {"bytes": b"no", "path": None}]
    )
    first, second = read_parquet([path], ())
    assert not first.images
    with pytest.raises(ImageError, match="row group 0 row 1 column image"):
        second.images["image"].open()
    path.unlink()
    assert second.images["image"].digest() == "missing"


def test_broken_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", question=["a"])
    with pytest.raises(DataError, match="column 'answer' missing"):
        list(read_parquet([path], ("question", "answer")))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(read_parquet([path], ()))
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(read_parquet([tmp_path / "none.parquet"], ()))
