"""Rows of Parquet files and their lazy images."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from general_tables import png

from evalkit.data.tables import read_rows
from evalkit.errors import DataError, ImageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, group: int = 2, **columns: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=group)
    return path


def images(*colours: str) -> list[object]:
    return [{"bytes": png(colour), "path": None} for colour in colours]


def test_rows_and_images(tmp_path: Path, cache: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        question=["a", "b", "c"],
        image=images("red", "blue", "red"),
        raw=[png("green"), None, None],
        listed=[["x"], [], None],
    )
    rows = list(read_rows([path, path], ("question", "image")))
    assert [row.cells["question"] for row in rows] == ["a", "b", "c"] * 2
    assert rows[0].cells == {"question": "a", "listed": ["x"]}
    assert sorted(rows[0].images) == ["image", "raw"] and sorted(rows[1].images) == ["image"]
    colours = [row.images["image"].open().getpixel((0, 0)) for row in rows[:3]]
    assert colours == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]
    assert rows[0].images["image"].digest() == rows[2].images["image"].digest()
    assert pickle.loads(pickle.dumps(rows[0].images["image"])).open().size == (4, 3)
    assert len(list(cache.rglob("*.arrow"))) == 1  # read once, whoever asks again


def test_absent_and_broken_images(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet", image=[{"bytes": None, "path": "x.png"}, {"bytes": b"no", "path": None}]
    )
    first, second = read_rows([path], ())
    assert not first.images
    with pytest.raises(ImageError, match="row 1 column image"):
        second.images["image"].open()
    path.unlink()
    assert second.images["image"].digest() == "missing"


def test_broken_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", question=["a"])
    with pytest.raises(DataError, match="column 'answer' missing"):
        list(read_rows([path], ("question", "answer")))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(read_rows([path], ()))
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(read_rows([tmp_path / "none.parquet"], ()))


@pytest.mark.parametrize("folder", ["with space", "[1] *?", ".hidden/__x", "Ünïcode 中"])
def test_files_in_odd_folders(tmp_path: Path, folder: str) -> None:
    path = write(tmp_path / folder / "a.parquet", question=["a"], image=images("red"))
    (row,) = read_rows([path], ("question",))
    assert row.where == f"{path} row 0" and row.images["image"].open().size == (4, 3)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", question=["a"])
    assert [row.cells["question"] for row in read_rows([path], ())] == ["a"]
    write(path, question=["b", "c"])
    assert [row.cells["question"] for row in read_rows([path], ())] == ["b", "c"]


def test_images_with_the_hub_s_metadata_stay_encoded(tmp_path: Path) -> None:
    import datasets

    path = tmp_path / "a.parquet"
    content = {"question": ["a", "b"], "image": [{"bytes": png("red"), "path": None}, None]}
    features = datasets.Features({"question": datasets.Value("string"), "image": datasets.Image()})
    datasets.Dataset.from_dict(content, features).to_parquet(path)
    first, second = read_rows([path], ("image",))
    assert first.cells == {"question": "a"} and not second.images
    assert first.images["image"].digest() == hashlib.sha256(png("red")).hexdigest()[:32]
    assert first.images["image"].open().getpixel((0, 0)) == (255, 0, 0)


def test_reading_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.parquet", question=["a"])
    assert len(list(read_rows([path], ()))) == 1
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError):
        list(read_rows([path], ()))
    assert capfd.readouterr() == ("", "")
