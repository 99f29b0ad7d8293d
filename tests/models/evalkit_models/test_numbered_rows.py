"""lmms-eval's samples, which name their sample by its place: right files are read, others refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.contracts import Sample
from evalkit.data.locate import miniature
from evalkit.errors import DataError
from evalkit_models.numbered_rows import Evidence, place

SLOW = ("docvqa", "infovqa", "textvqa", "ocrbench", "mmbench", "mme-realworld-driving")
TASKS = ("chartqa", "ai2d", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW))
#: Tasks without that protocol, whose files of lmms-eval are read all the same.
OTHERS = ("mmmu", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mathvista", "rsvqa-lr")))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def logged(task: str) -> list[dict[str, Any]]:
    """What `--log_samples` of lmms-eval writes for right answers to the miniature, in the split's order."""
    known = registry.tasks()[task].protocols
    asked = registry.task(task, "lmms-eval" if "lmms-eval" in known else None)
    samples = list(asked.samples("miniature", miniature(asked)))
    rows = []
    for number, sample in enumerate(samples):
        several = isinstance(sample.target, list)
        text = str(sample.target[0] if several else sample.target)
        prompt = asked.request(sample).messages[-1].text.replace("<image>", "")
        target = str(sample.target[0] if several and task != "docvqa" else sample.target)
        rows.append(
            {"doc_id": number, "target": target, "filtered_resps": text, "doc_hash": "h", "input": prompt}
        )
    return rows


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    def call(task: str, rows: list[dict[str, Any]], *flags: str) -> tuple[int, Any, str]:
        path = tmp_path / "samples.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = ["run", "-m", f"predictions:{path}", "-t", task, "--split", "miniature", "--json", *flags]
        status = invoke([*command, "--no-resume", "-o", str(tmp_path / "runs")])
        out, err = capsys.readouterr()
        return status, json.loads(out)["runs"][0] if out else None, err

    return call


@pytest.mark.parametrize("task", [*TASKS, *OTHERS])
def test_a_right_file_is_read(task: str, run: Callable[..., tuple[int, Any, str]]) -> None:
    status, found, told = run(task, logged(task))
    assert status == 0, told
    assert found["counts"]["answered"] == found["counts"]["expected"]
    assert "lmms-eval's samples" in told and "rows are matched by doc_id, and their questions are" in told


@pytest.mark.parametrize("task", TASKS)
def test_a_file_of_other_places_is_never_scored_by_them(
    task: str, run: Callable[..., tuple[int, Any, str]]
) -> None:
    rows = logged(task)
    texts = {row["doc_id"]: row for row in rows}
    moved = [{**texts[(n + 1) % len(rows)], "doc_id": n} for n in range(len(rows))]
    status, found, told = run(task, moved)
    if status == 0:  # every question is asked once
        right = run(task, rows)[1]
        assert found["metrics"] == right["metrics"] and "are at another place" in told
    else:
        assert status == 3 and "is not the sample at its place" in told


def test_a_row_that_tells_nothing_is_refused(run: Callable[..., tuple[int, Any, str]]) -> None:
    rows = [{"doc_id": row["doc_id"], "filtered_resps": row["filtered_resps"]} for row in logged("chartqa")]
    status, _, told = run("chartqa", rows)
    assert status == 3 and "doc_id 0 is not the sample at its place" in told


def test_a_row_twice(run: Callable[..., tuple[int, Any, str]]) -> None:
    rows = logged("chartqa")
    assert run("chartqa", [*rows, rows[3]])[0] == 0
    status, _, told = run("chartqa", [*rows, {**rows[3], "filtered_resps": "other"}])
    assert status == 3 and "id 3 occurs before with another text" in told


def test_earlier_versions_keep_the_document(run: Callable[..., tuple[int, Any, str]]) -> None:
    rows = [
        {**row, "doc": {"question": row["input"].split("\n")[0]}, "resps": [[row["filtered_resps"]]]}
        for row in logged("chartqa")
    ]
    assert run("chartqa", [{k: v for k, v in row.items() if k != "input"} for row in rows])[0] == 0


# The rule ------------------------------------------------------------------------------------------------


def asked(*questions: str, target: Any = "yes") -> list[Sample]:
    return [Sample(f"s{n}", (text,), (), target, "c") for n, text in enumerate(questions)]


def test_rows_of_another_order_are_matched_by_their_questions(tmp_path: Path) -> None:
    samples = asked("Is it red?", "Is it a car?", "Is it red or blue?")
    rows = {0: Evidence("Is it a car?\nAnswer.", None), 2: Evidence("Is it red?\nAnswer.", None)}
    assert place(rows, samples, tmp_path) == {0: "s1", 2: "s0"}
    assert place({1: Evidence("Is it a car?", "yes")}, samples, tmp_path) == {1: "s1"}


def test_any_of_several_reference_answers_speaks_for_a_row(tmp_path: Path) -> None:
    targets = (["cat", "kitten"], ["dog"], "c")
    samples = [Sample(f"s{n}", ("What is it?",), (), target, "c") for n, target in enumerate(targets)]
    for answer in ("cat", "kitten"):
        rows = {0: Evidence("What is it?", "dog"), 1: Evidence("What is it?", answer)}
        rows[2] = Evidence("What is it?", "c")
        assert place(rows, samples, tmp_path) == {0: "s1", 1: "s0", 2: "s2"}


OTHERS_RIGHT = {1: Evidence("Is it a car?", "yes"), 2: Evidence("Is it blue?", "yes")}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({0: Evidence("Is it a car?", None), 1: Evidence("Is it a car?", None)}, "doc_id 0 is not"),
        ({1: Evidence("Something else entirely", None)}, "doc_id 1 is not"),
        ({0: Evidence("Is it red?", "no"), **OTHERS_RIGHT},
         "doc_id 0 is not the sample at its place: it was asked 'Is it red[?]'"),
        ({3: Evidence("Is it red?", None)}, "doc_id 3, but the split has 3"),
    ],
)  # fmt: skip
def test_what_fits_neither_way_is_refused(rows: dict[int, Evidence], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        place(rows, asked("Is it red?", "Is it a car?", "Is it blue?"), tmp_path)


def test_a_letter_out_of_place_in_one_text_of_many_is_no_reason(tmp_path: Path) -> None:
    texts = [f"What is the value of row {n}?" for n in range(40)]
    rows = {n: Evidence(text.replace("row 7?", "rov 7?"), None) for n, text in enumerate(texts)}
    assert len(place(rows, asked(*texts), tmp_path)) == 40
