"""Run folders: torn lines, whole files, locks, hostile names, broken folders."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Failure, Record, Response
from evalkit.data.images import ImageBytes, ImageFile, TableImage, VideoFrame
from evalkit.errors import RunFolderError
from evalkit.store import (
    ResponseLog,
    Scored,
    find_runs,
    image_reference,
    load_run,
    open_run,
    shapes,
    write_records,
)
from evalkit.store.atomic import write_json
from evalkit.store.folder import folder_name
from evalkit.store.records import read_records
from evalkit.store.responses import StoredResponse, read_responses

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def append(path: Path, *responses: tuple[str, str]) -> None:
    log = ResponseLog(path)
    for identifier, text in responses:
        log.append(identifier, "key", Response(text=text))
    log.close()


@given(st.text(), st.text(), st.sampled_from(["stop", "length", None]), st.integers(0, 2**40))
@settings(deadline=None, max_examples=50)
def test_a_line_reads_back(identifier: str, text: str, finish, tokens: int) -> None:
    response = Response(text, finish, tokens, tokens + 1, tokens + 2, 0.25)
    stored = StoredResponse(identifier, "k", response, 12.5)
    line = stored.to_json()
    assert line.isascii() and "\n" not in line
    assert StoredResponse.from_json(line.encode()) == stored
    assert line == json.dumps(json.loads(line))  # the form of json.dumps, which writes it more slowly
    failed = StoredResponse("a", "k", Response(error=Failure("image", text)))
    assert StoredResponse.from_json(failed.to_json().encode()) == failed


@pytest.mark.parametrize("number", [None, True, np.int64(3), np.float32(0.5), math.inf, 7])
def test_any_number_of_a_plug_in_is_written_as_json(number: Any) -> None:
    answer = Response("a\ud800b", prompt_tokens=number, new_tokens=number, seconds=number)
    item = json.loads(StoredResponse("a", "key", answer, number).to_json())
    expected = number.item() if isinstance(number, np.generic) else number
    assert [item[name] for name in ("prompt_tokens", "new_tokens", "seconds", "at")] == [expected] * 4
    assert item["text"] == "a\ud800b"


@pytest.mark.parametrize("cut", [1, 2, 10, 60])
def test_a_torn_line_is_left_out_and_then_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "responses-0.jsonl"
    append(path, ("a", "1"), ("b", "2"), ("c", "3"))
    path.write_bytes(path.read_bytes()[:-cut])
    assert set(read_responses(tmp_path)) == {"a", "b"}
    append(path, ("d", "4"))
    assert {name: stored.response.text for name, stored in read_responses(tmp_path).items()} == {
        "a": "1",
        "b": "2",
        "d": "4",
    }


def test_a_file_of_one_torn_line_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "responses-0.jsonl"
    path.write_bytes(b'{"id": "a", "request' + b"x" * 200_000)
    assert read_responses(tmp_path) == {}
    append(path, ("a", "1"))
    assert set(read_responses(tmp_path)) == {"a"}


def test_the_last_response_of_an_id_wins(tmp_path: Path) -> None:
    append(tmp_path / "responses-0.jsonl", ("a", "1"), ("b", "1"), ("a", "2"))
    append(tmp_path / "responses-1.jsonl", ("b", "2"))
    append(tmp_path / "responses-0.jsonl", ("c", "3"))
    texts = {name: stored.response.text for name, stored in read_responses(tmp_path).items()}
    assert texts == {"a": "2", "b": "2", "c": "3"}


@settings(max_examples=40, deadline=None)
@given(lines=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 9)), max_size=40))
def test_place_decides_in_a_file_and_time_between_files(lines: list[tuple[int, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        last: dict[tuple[str, int], tuple[int, int]] = {}
        for number, (worker, name, at) in enumerate(lines):
            stored = StoredResponse(f"s{name}", "key", Response(str(number)), float(at))
            with (Path(place) / f"responses-{worker}.jsonl").open("a") as file:
                file.write(stored.to_json() + "\n")
            last[f"s{name}", worker] = (at, number)
        expected: dict[str, str] = {}
        for name in {name for name, _ in last}:
            *_, number = max((last[key][0], key[1], last[key][1]) for key in last if key[0] == name)
            expected[name] = str(number)
        found = read_responses(Path(place))
        assert {name: stored.response.text for name, stored in found.items()} == expected


def test_broken_lines_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "responses-0.jsonl"
    append(path, ("a", "1"))
    with path.open("ab") as file:
        file.write(
            b"\0\0\0\n[]\n" + b"[" * 5000 + b'\n{"id": 3}\n{"id": "x", "request_key": "k", "text": 5}\n'
        )
    append(path, ("b", "2"))
    assert set(read_responses(tmp_path)) == {"a", "b"}
    assert "5 broken lines" in caplog.text


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "responses-0.jsonl"
    log = ResponseLog(path)
    log.append("a", "k", Response(text="1"))

    def torn(data: bytes) -> None:
        os.write(log._file.fileno(), data[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(log, "_write", torn)
    with pytest.raises(RunFolderError, match="disk is full") as caught:
        log.append("b", "k", Response(text="2"))
    assert str(path) in str(caught.value)
    log.close()
    assert path.read_bytes().endswith(b"\n") and set(read_responses(tmp_path)) == {"a"}


def test_whole_files_are_replaced_or_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunFolderError, match="disk is full"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})


@given(JSON, JSON, st.text(), st.dictionaries(st.text(), st.floats(), max_size=3))
@settings(deadline=None, max_examples=30)
def test_records_read_back(tmp_path_factory, prediction, target, text: str, scores) -> None:
    folder = tmp_path_factory.mktemp("records")
    tags, data = {"t": text}, {"d": prediction}
    record = Record("i", "c", text, prediction, target, scores, tags, ("unparsed", "truncated"), data)
    failed = Record("j", "c", "", None, target, flags=("error",), error=Failure("image", text))
    rows = [Scored(item, Response(), "k", text, ("a.png",)) for item in (record, failed)]
    write_records(folder, rows)
    first, second = read_records(folder)
    assert repr(first) == repr(record) and second == failed  # repr, since NaN is not NaN


def test_a_table_is_written_and_read_without_pandas(tmp_path: Path) -> None:
    """Importing it takes longer than all else of a small run."""
    code = (
        "import sys; from pathlib import Path; from evalkit.contracts import Record, Response;"
        "from evalkit.store import Scored, write_records; from evalkit.store.records import read_records;"
        "folder = Path(sys.argv[1]); record = Record('i', 'c', 't', 1, None, {'s': 1.0}, {'tag': 'v'});"
        "write_records(folder, [Scored(record, Response(), 'k', 'q', ('a',))]);"
        "assert read_records(folder) == [record]; sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_lone_surrogates_do_not_break_the_table(tmp_path: Path) -> None:
    record = Record("i", "c", "a\ud800b", "a\ud800b", None)
    write_records(tmp_path, [Scored(record, Response(), "k", "q", ())])
    (back,) = read_records(tmp_path)
    assert back.text == "a\ufffdb" and back.prediction == "a\ud800b"


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 100])
def test_a_broken_table_is_one_line(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(RunFolderError, match="evalkit score"):
        read_records(tmp_path)
    (tmp_path / "records.parquet").write_bytes(damage)
    with pytest.raises(RunFolderError, match="broken"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("id", None),
        ("scores", 7),
        ("images", "x"),
        ("target", "{"),
        ("question", b"\xff"),
        ("text", "left out"),
    ],
)
def test_a_records_table_of_another_form_is_broken(tmp_path: Path, column: str, content: object) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    write_records(tmp_path, [Scored(Record("s", "c", "t", 1, 1), Response(), "k", "q", ())])
    path = tmp_path / "records.parquet"
    table = parquet.read_table(path)
    place = table.column_names.index(column)
    values = pa.array([content]).view(pa.string()) if isinstance(content, bytes) else pa.array([content])
    spoilt = table.remove_column(place) if content == "left out" else table.set_column(place, column, values)
    parquet.write_table(spoilt, path)
    with pytest.raises(RunFolderError, match="broken"):
        read_records(tmp_path)


def test_a_response_line_with_an_endless_number_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "responses-0.jsonl"
    append(path, ("a", "1"))
    path.write_text(path.read_text() + '{"id": "b", "request_key": "k", "new_tokens": Infinity}\n')
    assert set(read_responses(tmp_path)) == {"a"}


@pytest.mark.parametrize(
    "name",
    [
        "..", ".", "", "a/../../b", "/etc/passwd", "~root", "C:\\x", "con", "NUL.txt", "a" * 5000, "x\0y",
        "-rf", ".hidden", "模型", "<script>", "a b", "trailing.", "\ud800", "new\nline",
    ],
)  # fmt: skip
def test_hostile_names_become_one_harmless_folder(tmp_path: Path, name: str) -> None:
    safe = folder_name(name)
    assert safe.isascii() and 0 < len(safe) <= 120 and safe.split(".")[0].lower() not in ("con", "nul", "")
    assert (tmp_path / safe).resolve().parent == tmp_path.resolve()
    with open_run(tmp_path, name, name, name, "i", {}, resume=True) as folder:
        assert folder.path.resolve().is_relative_to(tmp_path.resolve())


def test_names_read_like_the_model() -> None:
    assert folder_name("OpenGVLab/InternVL2-2B") == "OpenGVLab--InternVL2-2B"
    assert folder_name("mini-internvl-tiny") == "mini-internvl-tiny"
    assert folder_name("a b") != folder_name("a_b") != folder_name("a?b") != folder_name("a b")


def test_names_of_runs_follow_their_order_whatever_the_clock_says(monkeypatch, tmp_path: Path) -> None:
    """In one second, and after the clock was set back, as at the end of summer time."""
    made = []
    for clock, runs in (("20261025-025959", 40), ("20261025-020000", 3), ("20261025-030000", 3)):
        monkeypatch.setattr(time, "strftime", lambda *_, clock=clock: clock)
        for _ in range(runs):
            with open_run(tmp_path, "m", "t", "s", "same", {}, resume=False) as folder:
                made.append(folder.path)
            with open_run(tmp_path, "m", "t", "s", "same", {}, resume=True) as again:
                assert again.path == folder.path and again.resumed
    assert made == sorted(made) and len(set(made)) == 46
    assert made[-4].name.startswith("20261025-025959-") and made[-1].name.startswith("20261025-030000-")


def test_a_run_of_the_same_identity_is_gone_on_with(tmp_path: Path) -> None:
    with open_run(tmp_path, "m", "t", "s", "one", {"x": 1}, resume=True) as first:
        pass
    with open_run(tmp_path, "m", "t", "s", "two", {"x": 2}, resume=True) as second:
        assert not second.resumed
    with open_run(tmp_path, "m", "t", "s", "one", {"x": 3}, resume=True) as again:
        assert again.resumed and again.path == first.path and again.manifest["x"] == 1
    assert set(find_runs(tmp_path)) == {first.path, second.path}


def test_a_second_writer_is_refused_and_readers_see_it_running(tmp_path: Path) -> None:
    with open_run(tmp_path, "m", "t", "s", "one", {}, resume=True) as folder:
        assert load_run(folder.path).status == "running"
        with pytest.raises(RunFolderError, match="another process is writing this run"):
            open_run(tmp_path, "m", "t", "s", "one", {}, resume=True)
        assert load_run(folder.path).status == "running"
    assert load_run(folder.path).status == "partial"


def test_scraps_of_a_killed_process_are_no_runs(tmp_path: Path) -> None:
    parent = tmp_path / "m" / "t@s"
    (parent / ".new-x").mkdir(parents=True)
    (parent / ".new-x" / "manifest.json").write_text("{}")
    (parent / "20200101-000000-abcdef").mkdir()
    (parent / "20300101-000000-abcdef").mkdir()
    (parent / "20300101-000000-abcdef" / "manifest.json").write_text('{"identity": "one"')
    with open_run(tmp_path, "m", "t", "s", "one", {}, resume=True) as folder:
        assert not folder.resumed
    assert [path.name[:4] for path in find_runs(tmp_path)] == [folder.path.name[:4], "2030"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[" * 100_000, '{"a": 1}x', "\0", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1e999}'],
)
def test_a_broken_manifest_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"manifest\.json") as caught:
        load_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_no_run_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such run folder"):
        load_run(tmp_path / "none")
    with open_run(tmp_path, "m", "t", "s", "one", {}, resume=True) as folder:
        pass
    with pytest.raises(RunFolderError, match=f"a run below it is {folder.path}"):
        load_run(tmp_path)


def test_pictures_are_referred_to_by_place(tmp_path: Path) -> None:
    assert image_reference(ImageFile("a.png")) == ("a.png",)
    assert image_reference(TableImage("t.tsv", 5, 7, 2)) == ("t.tsv#bytes=5+7&column=2",)
    assert image_reference(VideoFrame("v.mp4", 1, 8)) == ("v.mp4#1/8",)
    assert image_reference(ImageBytes(b"", "cell 3")) == ("cell 3",)


def refused(document: dict[str, Any], shape: Mapping[str, shapes.Check]) -> str:
    """Members, and members of members, that may not be of another kind."""
    found = []
    assert shapes.checked(document, shape, Path("file")) is document
    for name, value in document.items():
        inner = value[0] if isinstance(value, list) and value else value
        for member in ["", *(inner if isinstance(inner, dict) else ())]:
            wrong = {**inner, member: [[]]} if member else [[]]
            wrong = [wrong] if member and isinstance(value, list) else wrong
            try:
                shapes.checked({**document, name: wrong}, shape, Path("file"))
            except RunFolderError as error:
                assert str(error).startswith(f"file: {name}: ")
                found.append(f"{name}.{member}".rstrip("."))
    return " ".join(sorted(found))


def test_members_that_a_reader_relies_on_are_of_their_kind(bench: Any) -> None:
    assert bench.run() == 0
    path = Path(bench.result["run"])
    manifest, summary = (json.loads((path / f"{name}.json").read_text()) for name in ("manifest", "summary"))
    manifest["judge"] = {"url": "http://judge", "model": "judge"}
    summary["groups"] = {"kind": {"yes": {"accuracy": summary["metrics"]["accuracy"]}}}
    assert refused(manifest, shapes.MANIFEST) == (
        "created data data.hash data.root data.samples identity includes includes.hash includes.path judge "
        "judge.model judge.url model model.dtype model.engine model.fingerprint model.name model.notes "
        "model.parameters model.revision model.settings model.spec model.weights outcome prompt selection "
        "selection.expected selection.limit selection.sample_ids sessions settings task task.name "
        "task.protocol task.split task.title task.version versions"
    )
    assert refused(summary, shapes.SUMMARY) == (
        "counts counts.answered counts.errors counts.expected counts.near_miss counts.truncated "
        "counts.unparsed groups groups.kind metrics metrics.accuracy model protocol reference run signature "
        "split status task"
    )
    for member in ("value", "n", "unit", "ci95", "reason", "note"):
        for place in ({"metrics": {"m": {member: [[]]}}}, {"groups": {"g": {"k": {"m": {member: [[]]}}}}}):
            with pytest.raises(RunFolderError, match=f"^file: {next(iter(place))}: "):
                shapes.checked(place, shapes.SUMMARY, Path("file"))
