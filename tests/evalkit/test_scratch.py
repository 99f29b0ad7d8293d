"""Temporary files in memory's place: a table is a dict, an order is `sorted`."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit import scratch
from evalkit.contracts import Response
from evalkit.errors import EvalkitError
from evalkit.scratch import ScratchFile, Table, in_order
from evalkit.statistics.numbering import Names
from evalkit.store import ResponseLog
from evalkit.store.response_index import ResponseIndex
from evalkit.store.responses import read_responses

#: Hashes are spread; these are in each other's way, at both ends as well.
_KEYS = st.one_of(
    st.integers(0, 2**64 - 1), st.integers(1, 40), st.integers(2**64 - 40, 2**64 - 1), st.just(1 << 63)
)


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even the shortest file is one, and tables and runs begin small."""
    for name, value in {"_SHORT": 0, "_BITS": 1, "_SLOTS": 8, "_RUN": 16, "_BLOCK": 5}.items():
        monkeypatch.setattr(scratch, name, value)


@pytest.mark.parametrize("short", [True, False])
def test_a_file_is_its_bytes(short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_SHORT", 1000 if short else 10)
    file = ScratchFile()
    file.write(8, b"right")
    assert file.read(0, 100) == bytes(8) + b"right" and file.read(13, 5) == b""
    file.write(2, b"left")
    file.write(20, b"end")
    assert file.read(0, 23) == b"\0\0left\0\0right" + bytes(7) + b"end"
    file.close()


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(_KEYS, st.integers(-(2**31), 2**31 - 1)), max_size=120))
@pytest.mark.usefixtures("on_disk")
def test_a_table_is_a_dict(pairs: list[tuple[int, int]]) -> None:
    table, expected = Table("id"), dict[int, int]()
    for key, value in pairs:
        known = expected.get(key or 1)
        row = (value, 0.5)
        expected[key or 1] = value
        assert table.update(key, lambda found, row=row, known=known: _checked(found, known, row)) == row
    assert len(table) == len(expected)
    assert {key: table.get(key) for key in expected} == {key: (value, 0.5) for key, value in expected.items()}
    assert sorted(table.rows()) == sorted((value, 0.5) for value in expected.values())
    assert table.get(12345) is None or 12345 in expected
    table.close()


def _checked(found: Any, known: int | None, row: tuple[int, float]) -> tuple[int, float]:
    assert found == (None if known is None else (known, 0.5))
    return row


def test_a_large_table_finds_everything() -> None:
    table = Table("q")
    spread = 0x9E3779B97F4A7C15
    for number in range(30_000):
        key = number * spread % 2**64
        here = (number,)
        assert table.update(key, lambda known, here=here: known or here) == here
        assert table.update(key, lambda known, here=here: known or (-1,)) == here
    assert all(table.get(number * spread % 2**64) == (number,) for number in range(0, 30_000, 7))
    assert len(table) == 30_000 and sorted(table.rows()) == [(number,) for number in range(30_000)]
    table.close()


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 3), _KEYS, st.integers(0, 2**64 - 1)), max_size=100))
@pytest.mark.usefixtures("on_disk")
def test_an_order_is_sorted(rows: list[tuple[int, int, int]]) -> None:
    assert [tuple(row) for row in in_order(iter(rows), 3)] == sorted(rows)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(
        st.text(max_size=12) | st.sampled_from(["", "\ud800", "\uffff", "\U00010000", "a", "a\0", "\0"])
    )
)
def test_names_are_numbered_as_they_come_and_ranked_as_they_sort(names: list[str]) -> None:
    found, known = Names(), list(dict.fromkeys(names))
    numbers = [number for part in (names[:5], names[5:]) for number in found.of(part).tolist()]
    assert numbers == [known.index(name) for name in names] and len(found) == len(known)
    ranks = found.ranks().tolist()
    assert [name for _, name in sorted(zip(ranks, known, strict=True))] == sorted(known)


class _Full:
    """A file on a disk without room; `half` says that it takes the first byte."""

    def __init__(self, half: bool) -> None:
        self._half = half

    def seek(self, place: int) -> None:
        """Anywhere."""

    def close(self) -> None:
        """Nothing to close."""

    def write(self, data: bytes) -> int:
        """Not all."""
        if self._half:
            return 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.usefixtures("on_disk")
def test_a_full_disk_is_one_line(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: _Full(half))
    with pytest.raises(EvalkitError, match="No space left on device; make room, or set TMPDIR"):
        Table("q").update(5, lambda _: (1,))


@pytest.mark.usefixtures("on_disk")
def test_no_folder_for_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(EvalkitError, match="folder: No usable temporary directory found; make room"):
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: none())
        Table("q").update(5, lambda _: (1,))


@settings(max_examples=40, deadline=None)
@given(
    lines=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=40
    )
)
def test_the_index_follows_place_in_a_file_and_time_between_files(lines: list[tuple[int, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patched:
        folder = Path(place)
        for number, (worker, name, at) in enumerate(lines):
            patched.setattr("time.time", lambda at=at: float(at))
            log = ResponseLog(folder / f"responses-{worker}.jsonl")
            log.append(f"s{name}", f"key{number}", Response(str(number)))
            log.close()
        with ResponseIndex(folder) as index:
            assert dict(index) == read_responses(folder)
