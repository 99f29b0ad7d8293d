"""Files whose value is not certain are refused with file and place, by every reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit.data import strict_json
from evalkit.data.tables import read_rows
from evalkit.errors import DataError
from evalkit.files import read_csv, read_json, read_json_items, read_jsonl, read_tsv
from evalkit_models.predictions import Predictions

DIGITS = "1" * 5000
OBJECTS = [
    ('{"id": "q7", "answer": "A", "answer": "B"}', "'answer' occurs twice"),
    ('{"id": 1, "box": {"x": 1, "x": 2}}', "'x' occurs twice"),
    ('{"id": 1, "": 1, "": 2}', "'' occurs twice"),
    ('{"id": 1, "answer": NaN}', "NaN"),
    ('{"id": 1, "answer": -Infinity}', "-Infinity"),
    ('{"id": 1, "answer": [1e999]}', "1e999"),
    (f'{{"id": 1, "answer": {DIGITS}}}', "5000 digits"),
]


def _predictions(path: Path) -> Any:
    return Predictions(path)


READERS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("file.json", read_json, "[{}]"),
    ("items.json", lambda path: list(read_json_items(path)), '[{{"id": 0}}, {}]'),
    ("member.json", lambda path: list(read_json_items(path, "data")), '{{"data": [{}]}}'),
    ("lines.jsonl", lambda path: list(read_jsonl(path)), '{{"id": 0}}\n{}\n'),
    ("predictions.json", _predictions, "[{}]"),
    ("predictions.jsonl", _predictions, '{{"id": 0, "text": "a"}}\n{}\n'),
]


@pytest.mark.parametrize(("text", "said"), OBJECTS, ids=[said for _, said in OBJECTS])
@pytest.mark.parametrize(("name", "read", "form"), READERS, ids=[name for name, _, _ in READERS])
def test_ambiguous_json_is_refused_by_every_reader(
    tmp_path: Path, name: str, read: Callable[[Path], Any], form: str, text: str, said: str
) -> None:
    path = tmp_path / name
    path.write_text(form.format(text), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message and said in message and "\n" not in message and len(message) < 400
    if name.endswith(".jsonl"):
        assert "line 2" in message


def test_a_column_twice(tmp_path: Path) -> None:
    table = tmp_path / "official.tsv"
    table.write_text("index\tanswer\tanswer \n1\tA\tB\n", encoding="utf-8")
    with pytest.raises(DataError, match="column 'answer' occurs twice"):
        list(read_tsv(table, ("index", "answer")))
    table.write_text("\t\tindex\tanswer\n0\t0\t1\tA\n", encoding="utf-8")
    assert [row.cells["answer"] for row in read_tsv(table, ("index", "answer"))] == ["A"]
    hub = tmp_path / "rows.parquet"
    columns = [pyarrow.array(["1"]), pyarrow.array(["A"]), pyarrow.array(["B"])]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=["index", "answer", "answer"]), hub)
    with pytest.raises(DataError, match=r"rows\.parquet: .*answer"):
        list(read_rows([hub], ("index",)))


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_column_of_predictions_twice(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p.{suffix}"
    path.write_text("id,text,text\n1,a,b\n".replace(",", "\t" if suffix == "tsv" else ","), encoding="utf-8")
    with pytest.raises(DataError, match="line 1: column 'text' occurs twice"):
        Predictions(path)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20,
))  # fmt: skip
def test_certain_json_is_read_as_python_does(value: Any) -> None:
    text = json.dumps(value)
    assert strict_json.loads(text) == json.loads(text) == strict_json.loads(text.encode())


def test_a_byte_order_mark_before_lines_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1}\n')
    assert [row["id"] for row in read_jsonl(path)] == [1]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_two_tables_joined_into_one_are_refused(tmp_path: Path, name: str, mark: str) -> None:
    path = tmp_path / name
    path.write_text(mark.join("ab") + "\n" + mark.join("12") + "\n" + mark.join("ab") + "\n")
    read = read_csv if mark == "," else read_tsv
    with pytest.raises(DataError, match=rf"{name}: (line|record) 3: the header stands here again"):
        list(read(path, ("a",)))
