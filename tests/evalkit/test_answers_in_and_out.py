"""What `evalkit export` writes, `predictions:` reads back to the same values, for every task with a file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from evalkit import registry
from evalkit.cli.main import invoke

TASKS = sorted(name for name, kind in registry.tasks().items() if kind.submission is not None)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def run(task: str, answers: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    command = ["run", "-m", f"predictions:{answers}", "-t", task, "--split", "miniature", "--json", *flags]
    assert invoke([*command, "-o", str(answers.parent / "runs")]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["runs"][0]
    return found


def drawn_answers(task: str, folder: Path) -> Path:
    """The golden set's answers to the task's miniature."""
    rows = [json.loads(line) for line in (GOLDEN / f"{task}.jsonl").read_text().splitlines()]
    path = folder / "answers.jsonl"
    lines = [{"id": row["id"], "text": row["answers"]["a"] or ""} for row in rows if "answers" in row]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def test_these_tasks_have_a_file() -> None:
    assert {"docvqa", "drivelm", "gmai-mmbench", "infovqa", "mmbench"} <= set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_a_submission_reads_back_to_the_same_values(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(task, drawn_answers(task, tmp_path), capsys)
    assert invoke(["export", task, first["run"]]) == 0
    written = Path(capsys.readouterr().out.strip())
    excel = zipfile.is_zipfile(written)
    assert written.suffix == (".xlsx" if excel else ".json")
    again = run(task, written, capsys)
    assert again["metrics"] == first["metrics"]
    assert again["counts"] == first["counts"]


@pytest.mark.parametrize("part", ["", "records.parquet", "responses-w0.jsonl"])
def test_a_run_reads_back(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run("rsvqa-lr", drawn_answers("rsvqa-lr", tmp_path), capsys)
    source = Path(first["run"])
    files = sorted(path.name for path in source.glob("responses-*.jsonl"))
    place = source / part if part != "responses-w0.jsonl" else source / files[0]
    command = ["run", "-m", f"predictions:{place}", "-t", "rsvqa-lr", "--split", "miniature", "--json"]
    assert invoke([*command, "-o", str(tmp_path / "again")]) == 0
    again = json.loads(capsys.readouterr().out)["runs"][0]
    assert again["metrics"] == first["metrics"] and again["counts"] == first["counts"]


def test_ids_of_another_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = _two_splits(tmp_path)
    rows = [{"id": f"v{number}", "text": "yes"} for number in range(3)]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["run", "--include", str(task), "-m", f"predictions:{answers}", "-t", "yes-no"]
    assert invoke([*command, "--data-root", str(tmp_path), "-o", str(tmp_path / "runs")]) == 4
    said = capsys.readouterr().err
    assert "all its 3 ids are of the split 'val'" in said and "id_field" not in said


def _two_splits(folder: Path) -> Path:
    from toy import make_benchmark

    task = make_benchmark(folder)
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    moved = [json.dumps(line | {"id": f"v{line['id']}"}) + "\n" for line in lines]
    (folder / "val.jsonl").write_text("".join(moved))
    return task
