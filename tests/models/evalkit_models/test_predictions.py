"""Stored predictions as a model: every accepted form, every refusal."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import ModelOptions, Request
from evalkit.errors import DataError, EvalkitError, UsageError
from evalkit_models.prediction_rows import is_field
from evalkit_models.predictions import FAMILY, Predictions


def texts(path: Path, *ids: str, **extra: str) -> dict[str, str | None]:
    """Answers by id as the model gives them; None for an error."""
    model = FAMILY.load(f"predictions:{path}", ModelOptions(extra=extra))
    requests = [Request(name, (), ()) for name in ids]
    return {name: None if r.error else r.text for name, r in model.generate(requests)}


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


IDS = ("id", "question_id", "index", "sample_id", "pid", "qid", "data_id", "uid")
TEXTS = (
    *("text", "answer", "prediction", "response", "output"),
    *("pred", "model_answer", "model_output", "generated_text", "raw_output"),
)


@pytest.mark.parametrize(
    ("key", "field"), [*(("id", field) for field in TEXTS), *((key, "text") for key in IDS[1:])]
)
def test_field_names(tmp_path: Path, key: str, field: str) -> None:
    rows = [{key: 7, field: "a"}, {key: "8", field: ""}]
    lines = write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    listed = write(tmp_path, "a.json", json.dumps(rows, indent=2))
    commas = write(tmp_path, "a.csv", f"{key},{field}\n7,a\n8,\n")
    tabs = write(tmp_path, "a.tsv", f"{key}\t{field}\r\n7\ta\r\n8\t\r\n")
    for path in (lines, listed, commas, tabs):
        assert texts(path, "7", "8", "9") == {"7": "a", "8": "", "9": None}


def test_of_several_ids_the_first_in_the_order_of_the_names_counts(tmp_path: Path) -> None:
    for place, key in enumerate(IDS):
        row = {name: name for name in reversed(IDS[place:])} | {"answer": "a"}
        path = write(tmp_path, f"{key}.jsonl", json.dumps(row))
        assert texts(path, *IDS) == {name: "a" if name == key else None for name in IDS}


@pytest.mark.parametrize(
    ("key", "field"),
    [("index", "prediction"), ("pid", "response"), ("question_id", "text")],
)
def test_a_form_of_a_harness_says_which_field_is_the_answer(tmp_path: Path, key: str, field: str) -> None:
    row = {"id": "other", key: "own", field: "a", "answer": "the target", "output": "log", "question": "?"}
    assert texts(write(tmp_path, "a.jsonl", json.dumps(row)), "own", "other") == {"own": "a", "other": None}


def test_content_decides_between_list_and_lines(tmp_path: Path) -> None:
    assert texts(write(tmp_path, "a.jsonl", '[{"id": 1, "text": "x"}]'), "1") == {"1": "x"}
    assert texts(write(tmp_path, "b.json", '{"id": 1, "text": "x"}\n\n'), "1") == {"1": "x"}
    assert texts(write(tmp_path, "c", '\ufeff{"id": 1, "text": "x\u2028y"}\r\n'), "1") == {"1": "x\u2028y"}


def test_other_fields_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"qid": 1, "id": 5, "said": "x", "text": "y"}\n')
    assert texts(path, "1", "5", id_field="qid", text_field="said") == {"1": "x", "5": None}
    with pytest.raises(DataError, match=r"line 1: no field 'nope'.*found qid"):
        texts(path, id_field="nope")
    with pytest.raises(DataError, match="no field 'nope'"):
        texts(path, text_field="nope")


def test_quoted_cells_hold_anything(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'id,text\n1,"a, ""b""\nc"\n')
    assert texts(path, "1") == {"1": 'a, "b"\nc'}


def test_numbers_and_null(tmp_path: Path) -> None:
    path = write(
        tmp_path, "a.jsonl", '{"id": 1, "text": 42}\n{"id": 2, "text": null}\n{"id": 3, "text": 0.5}\n'
    )
    assert texts(path, "1", "2", "3") == {"1": "42", "2": None, "3": "0.5"}


def test_a_missing_prediction_is_an_error_that_names_file_and_id(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"id": 1, "text": "x"}\n')
    ((_, response),) = Predictions(path).generate([Request("2", (), ())])
    assert response.error is not None and response.error.kind == "missing"
    assert str(path) in response.error.message and "'2'" in response.error.message


def test_a_repeated_id(tmp_path: Path) -> None:
    same = '{"id": 1, "text": "x"}\n{"id": "1", "answer": "x"}\n'
    assert texts(write(tmp_path, "a.jsonl", same), "1") == {"1": "x"}
    with pytest.raises(DataError, match=r"b\.jsonl: line 2: id '1'.*another text"):
        texts(write(tmp_path, "b.jsonl", '{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}\n'))


def test_two_possible_answers_are_not_guessed_between(tmp_path: Path) -> None:
    row = '{"id": 1, "answer": "gold", "prediction": "said"}\n'
    with pytest.raises(UsageError, match="text_field"):
        texts(write(tmp_path, "a.jsonl", row))
    assert texts(tmp_path / "a.jsonl", "1", text_field="prediction") == {"1": "said"}
    assert texts(write(tmp_path, "b.jsonl", '{"id": 1, "answer": "gold", "text": "said"}'), "1") == {
        "1": "said"
    }


def test_unknown_ids_are_counted_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    model = Predictions(write(tmp_path, "a.jsonl", '{"id": 1, "text": "x"}\n{"id": 2, "text": "x"}\n'))
    assert model.bind_samples({"1", "2"}) == {"unknown": 0} and not caplog.text
    assert model.bind_samples({"1"}) == {"unknown": 1} and "1 predictions belong to no sample" in caplog.text
    assert model.bind_samples({"q"}) == {"unknown": 2} and "id_field" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("a.jsonl", '{"id": 1, "text": "x"}\n{"id": 2, "te', "line 2: not JSON"),
        ("a.jsonl", '{"id": 1, "text": "x"}\n"y"\n', "line 2: expected an object"),
        ("a.jsonl", '{"text": "x"}\n', "line 1: no field id"),
        ("a.jsonl", '{"id": true, "text": "x"}\n', "line 1: id must be"),
        ("a.jsonl", '{"id": 1, "text": ["x"]}\n', "line 1: text must be text"),
        ("a.jsonl", '{"id": 1}\n', "line 1: no field 'text'"),
        ("a.jsonl", "", "holds no predictions"),
        ("a.jsonl", "\n\n", "holds no predictions"),
        ("a.jsonl", "[" * 100_000, "nested too deeply"),
        ("a.jsonl", b'{"id": 1, "text": "\xff"}\n', "not UTF-8 at byte 19"),
        ("a.json", '[{"id": 1, "text": "x"},\n {"id": 2', "line 2 column 10: broken JSON"),
        ("a.json", '[{"id": 1, "text": "x"}, 3]', "item 2: expected an object"),
        ("a.csv", "id,text\n1,x,y\n", "line 2: 3 cells, the header has 2"),
        ("a.csv", 'id,text\n1,"x\n', "broken table"),
        ("a.csv", "key,said\n1,x\n", "line 2: no field id"),
        ("a.tsv", 'id\ttext\n1\t"x" y\n', "line 2: broken table"),
        ("a.csv", "id,text\n", "holds no predictions"),
    ],
)
def test_a_broken_file_is_one_line_with_the_place(
    tmp_path: Path, name: str, text: str | bytes, place: str
) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(DataError) as caught:
        texts(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and place in message and "\n" not in message


@given(st.binary(max_size=200), st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv"]))
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_read_or_refused(tmp_path_factory, data: bytes, name: str) -> None:
    path = write(tmp_path_factory.mktemp("p"), name, data)
    try:
        texts(path, "1")
    except EvalkitError as error:
        assert str(path) in str(error)


@given(st.dictionaries(st.text(), st.text(), min_size=1, max_size=5))
@settings(deadline=None, max_examples=50)
def test_every_text_survives_json(tmp_path_factory, answers: dict[str, str]) -> None:
    rows = [{"id": name, "text": text} for name, text in answers.items()]
    path = write(tmp_path_factory.mktemp("p"), "a.json", json.dumps(rows))
    assert texts(path, *answers) == answers


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such predictions file"):
        texts(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        texts(tmp_path)


def test_flags_without_meaning_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"id": 1, "text": "x"}\n')
    with pytest.raises(UsageError, match="--base-url"):
        FAMILY.load(f"predictions:{path}", ModelOptions(base_url="http://x"))
    with pytest.raises(UsageError, match="--compile"):
        FAMILY.load(f"predictions:{path}", ModelOptions(compile=True))
    with pytest.raises(UsageError, match="--gen colour"):
        FAMILY.load(f"predictions:{path}", ModelOptions(extra={"colour": "red"}))
    with pytest.raises(UsageError, match="name a file"):
        FAMILY.load("predictions:", ModelOptions())


def test_the_fingerprint_is_the_content(tmp_path: Path) -> None:
    first = Predictions(write(tmp_path, "a.jsonl", '{"id": 1, "text": "x"}\n')).info
    same = Predictions(write(tmp_path, "b.jsonl", '{"id": 1, "text": "x"}\n')).info
    other = Predictions(write(tmp_path, "a.jsonl", '{"id": 1, "text": "y"}\n')).info
    assert first.fingerprint == same.fingerprint != other.fingerprint
    assert first.name == other.name == "predictions:a.jsonl"


def test_a_large_file_is_read_whole(tmp_path: Path) -> None:
    rows = "".join(
        f'{{"id": "{number}", "text": "an answer of some length {number}"}}\n' for number in range(200_000)
    )
    path = write(tmp_path, "a.jsonl", rows)
    model = Predictions(path)
    assert model.bind_samples({"0"}) == {"unknown": 199_999}


# Forms of the peers ---------------------------------------------------------------------------------------


def excel(path: Path, *rows: tuple[object, ...]) -> Path:
    from openpyxl import Workbook

    book = Workbook()
    for row in rows:
        book.active.append(row)  # type: ignore[union-attr]
    book.save(path)
    return path


def test_excel_tables(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    head = ("index", "question", "answer", "prediction")
    path = excel(
        tmp_path / "M_MMBench.xlsx", head, (1, "q", "A", "B"), (2.0, "q", "A", 5), (3, "q", "A", None)
    )
    assert texts(path, "1", "2", "3") == {"1": "B", "2": "5", "3": ""}
    assert (
        "VLMEvalKit's table, an Excel table: 3 answers, ids from 'index', texts from 'prediction'"
        in caplog.text
    )
    with pytest.raises(DataError, match=r"line 1: column 'text' occurs twice"):
        texts(excel(tmp_path / "a.xlsx", ("id", "text", "text"), (1, "a", "b")))
    with pytest.raises(DataError, match=r"row 2: no field id"):
        texts(excel(tmp_path / "b.xlsx", ("key", "said"), (1, "a")))
    with pytest.raises(DataError, match=r"c\.xlsx: an archive, but no Excel table"):
        texts(write(tmp_path, "c.xlsx", b"PK\x03\x04 and nothing"))
    with pytest.raises(DataError, match=r"save it as \.xlsx or CSV"):
        texts(write(tmp_path, "d.xls", b"\xd0\xcf\x11\xe0\xa1"))


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "document",
    [
        {"method": "", "results": [{"id": "a", "question": "q", "answer": "x"}]},
        {"predictions": [{"questionId": "a", "answer": "x"}]},
        {"a": {"pid": "a", "response": "x", "answer": "gold"}},
    ],
)
def test_documents(document: dict, indent: int | None, tmp_path: Path) -> None:
    if indent is None and "a" in document:
        return  # one line of that form could be a line of JSON Lines
    assert texts(write(tmp_path, "a.json", json.dumps(document, indent=indent)), "a") == {"a": "x"}


def test_a_mapping_from_id_to_answer(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", json.dumps({"a": "x", "b": "y"}, indent=1))
    assert texts(path, "a", "b") == {"a": "x", "b": "y"}


def lmms(number: int, text: str, **more: object) -> str:
    row = {"doc_id": number, "input": "q", "target": "t", "filtered_resps": text.strip(), **more}
    return json.dumps(row | ({"resps": [text]} if text != text.strip() else {})) + "\n"


def test_samples_of_lmms_eval(tmp_path: Path) -> None:
    named = "".join(lmms(n, f" {n} ", anls={"questionId": 100 + n, "answer": "x"}) for n in range(3))
    assert texts(write(tmp_path, "a.jsonl", named), "101", "1") == {"101": " 1 ", "1": None}
    with pytest.raises(DataError, match="holds 2 answers"):
        texts(write(tmp_path, "c.jsonl", json.dumps({"doc_id": 0, "resps": ["a", "b"]})))


def test_the_last_response_of_a_run_counts(tmp_path: Path) -> None:
    row = {"id": "a", "request_key": "k", "text": "", "error": {"kind": "server", "message": "m"}}
    lines = [row, row | {"text": "x", "error": None, "finish": "length"}, row | {"id": "b"}]
    path = write(tmp_path, "responses-w0.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert texts(path, "a", "b") == {"a": "x", "b": None}


def test_other_separators_and_spellings(tmp_path: Path) -> None:
    assert texts(write(tmp_path, "a.csv", "Question_ID;Model Output\n1;x, y\n"), "1") == {"1": "x, y"}


ROWS = [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)),
        ("a.csv", "id,text\n1,a\n2,b\n"),
        ("a.json", json.dumps({"1": "a", "2": "b"})),
        ("a.txt", "question_id\tanswer\r\n1\ta\r\n2\tb\r\n"),
        ("answers", 'id,text\n"1","a"\n2,b\n'),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_one_line_mappings_tables_of_any_name_and_gzip(
    name: str, text: str, packed: bool, tmp_path: Path
) -> None:
    path = tmp_path / (f"{name}.gz" if packed else name)
    data = text.encode("utf-8-sig")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert texts(path, "1", "2") == {"1": "a", "2": "b"}


def test_broken_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 1000)[:-9])
    with pytest.raises(DataError, match="broken gzip"):
        Predictions(path)


def test_numbers_of_ids_that_a_table_made_floats(tmp_path: Path) -> None:
    assert texts(write(tmp_path, "a.jsonl", '{"id": 12.0, "text": "x"}\n'), "12") == {"12": "x"}


def test_an_answer_that_begins_with_an_equals_sign(tmp_path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    for row in (["index", "prediction"], [1, "=5"], [2, "x"], [3, None]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert texts(tmp_path / "a.xlsx", "1", "2", "3") == {"1": "=5", "2": "x", "3": ""}


def test_a_hyphen_joins_words_of_a_column_and_one_at_its_end_is_damage() -> None:
    names = ("id", "question_id", "question-id", "Question ID", "-id", "id-")
    assert [is_field(name) for name in names] == [True, True, True, True, False, False]
