"""JSON arrays read element by element, against `json.load`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.data import json_stream
from evalkit.errors import DataError
from evalkit.files import read_json_items

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(params=[1, 7, 1 << 20], ids=["chunk1", "chunk7", "chunk1M"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", request.param)


@given(
    items=st.lists(JSON, max_size=8),
    indent=st.sampled_from([None, 4]),
    size=st.sampled_from([1, 3, 16, 4096]),
)
@settings(max_examples=80, deadline=None)
def test_equals_json_load(
    tmp_path_factory: pytest.TempPathFactory, items: list[Any], indent: int | None, size: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "items.json"
    before = json_stream.CHUNK
    json_stream.CHUNK = size
    try:
        path.write_text(json.dumps(items, indent=indent, ensure_ascii=False), encoding="utf-8")
        assert list(read_json_items(path)) == items
        path.write_text(
            json.dumps({"a": [1, {"b": 2}], "rows": items, "z": 0}, indent=indent), encoding="utf-8"
        )
        assert list(read_json_items(path, "rows")) == items
    finally:
        json_stream.CHUNK = before


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, {"a": 2', "after 1 records"),
        ('[{"a": 1}', "truncated"),
        ('[{"a": 1} {"a": 2}]', "',' expected"),
        ('[{"a": }]', "after 0 records"),
        ("", "truncated"),
        ('{"a": 1}', "'[' expected"),
        ("[" * 100_000, "broken JSON"),
    ],
)
def test_broken_files_say_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "items.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"items\.json") as caught:
        list(read_json_items(path))
    assert message in str(caught.value)


def test_the_list_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    path.write_text('{"answers": []}', encoding="utf-8")
    with pytest.raises(DataError, match="holds no list 'questions'"):
        list(read_json_items(path, "questions"))
    with pytest.raises(DataError, match="missing"):
        list(read_json_items(tmp_path / "absent.json"))


def test_other_encodings_are_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    path.write_bytes(b'["\xff\xfe"]')
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_json_items(path))
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert list(read_json_items(path)) == [1]


def test_elements_come_before_a_later_break(tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    path.write_text('[{"a": 1}, {"a": 2}, oops', encoding="utf-8")
    reader = read_json_items(path)
    assert [next(reader), next(reader)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(DataError, match="after 2 records"):
        next(reader)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("[1, 2] [3]", None, "after 2 records .*after the end"),
        ("[1]\0\0", None, "after the end"),
        ('{"rows": [1]} x', "rows", "after the end"),
        ('{"rows": [1], "z": 1', "rows", "truncated"),
        ('{"rows": [1], "rows": [2]}', "rows", "key 'rows' occurs twice"),
        ('{"a": 1, "a": 2, "rows": [1]}', "rows", "key 'a' occurs twice"),
    ],
)
def test_what_follows_the_list_is_read_too(tmp_path: Path, text: str, key: str | None, message: str) -> None:
    path = tmp_path / "items.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_json_items(path, key))
