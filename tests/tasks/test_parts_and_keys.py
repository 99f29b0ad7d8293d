"""A part of a benchmark is no whole, and a key that nothing can match is said: in every task."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.errors import DataError
from evalkit.reports.run import run_text
from evalkit_tasks.published.tables import paper_table

csv.field_size_limit(1 << 30)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))


def drawn(task: str, folder: Path) -> Path:
    """The miniature in a folder of its own: it has the official files' form, so any split can be read."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = registry.task(task).data_source.draw
    assert draw is not None
    draw(folder)
    return folder


def run(
    task: str, root: Path, output: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[Any, str]:
    answers = output / "p.jsonl"
    output.mkdir(exist_ok=True)
    chosen = registry.task(task)
    ids = [sample.id for sample in chosen.samples(chosen.splits[0], root)]
    lines = [json.dumps({"id": name, "text": "A"}) for name in ids]
    answers.write_text("\n".join(lines), encoding="utf-8")
    given = ["-m", f"predictions:{answers}", "-t", task, "--data-root", str(root), "-o", str(output)]
    capsys.readouterr()
    assert invoke(["run", *given, "--json", *more]) == 0
    out, err = capsys.readouterr()
    return json.loads(out)["runs"][0], err


@pytest.mark.parametrize(
    ("task", "published"),
    [("chartqa", 2500), ("rsvqa-lr", 10004), ("gmai-mmbench", 4550), ("mmbench", 4329), ("dior-rsvg", 7500)],
)
def test_an_excerpt_is_not_complete(
    task: str, published: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = drawn(task, tmp_path / "data")
    summary, _ = run(task, root, tmp_path / "runs", capsys)
    held = summary["counts"]["expected"]
    assert summary["status"] == "excerpt" and 0 < held < published
    assert summary["counts"]["in_files"] == held and summary["counts"]["published"] == published
    text = run_text(summary)
    assert f"the files hold {held:,} of the {published:,} samples" in text
    assert "NOT COMPARABLE" in text.split("published values")[0]
    limited, _ = run(task, root, tmp_path / "runs", capsys, "--limit", "3")
    assert limited["status"] == "partial" and f"limited to 3 of {published} samples" in run_text(limited)
    capsys.readouterr()
    assert invoke(["data", "check", task, "--data-root", str(root), "--json"]) == 3
    assert f"{held} questions, published are {published}" in capsys.readouterr().out


def test_a_whole_benchmark_is_complete_and_a_larger_one_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalkit_tasks.general.chartqa import ChartQA

    root = drawn("chartqa", tmp_path / "data")
    held = len(list(registry.task("chartqa").samples("test", root)))
    for size, status in ((held, "complete"), (held - 1, "complete"), (held + 1, "excerpt")):
        monkeypatch.setattr(type(ChartQA.data_source), "published_size", lambda *_, n=size: n)
        summary, _ = run("chartqa", root, tmp_path / f"runs{size}", capsys)
        assert summary["status"] == status
        assert ("published" in summary["counts"]) == (size != held)
        assert (f"the benchmark publishes {held - 1}" in run_text(summary)) == (size == held - 1)


def test_a_miniature_is_set_apart_from_published_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = drawn("mmbench", tmp_path / "data")
    summary, _ = run("mmbench", root, tmp_path / "runs", capsys, "--split", "miniature")
    assert summary["status"] == "complete"
    before, _, after = run_text(summary).partition("for orientation, the published values:")
    assert "NOT COMPARABLE" in before and "measured here" in before and "published  " in after
    assert "published  " not in before and "measured here" not in after


@pytest.mark.parametrize(
    "part",
    [
        {"status": "excerpt", "counts": {"in_files": 100, "published": 900}},
        {"status": "partial", "limited": True, "counts": {"expected": 5}},
        {"split": "miniature", "status": "complete"},
        {"nonstandard": {"max_tiles": 2}},
    ],
    ids=["excerpt", "limited", "miniature", "non-standard"],
)
def test_a_part_has_no_average_and_stands_apart(part: dict[str, Any]) -> None:
    metrics = {"accuracy": {"value": 99.0, "unit": "percent", "n": 5}}
    whole = {"model": "m", "task": "mmmu", "split": "val", "status": "complete", "metrics": metrics}
    text = paper_table("2", [whole]).text()
    assert "NOT COMPARABLE" not in text and paper_table("2", [whole]).rows[-1].cells[-1] == "99.0"
    table = paper_table("2", [{**whole, **part}, {**whole, "model": "other"}])
    mine = next(row for row in table.rows if row.label == "m")
    assert mine.apart and mine.cells[0] == "99.0" and mine.cells[-1] is None
    lines = table.text().splitlines()
    line = next(place for place, text in enumerate(lines) if text.startswith("NOT COMPARABLE"))
    assert "other" in lines[line - 2] and lines[line + 1].startswith(">  m")


def change(path: Path, edit: Callable[[list[dict[str, str]]], Any]) -> None:
    """Edit the rows of a TSV table."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    rows = edit(rows) or rows
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


TABLES = ["mmbench", "gmai-mmbench", "mme-realworld-driving"]


def with_key(task: str, root: Path, key: str) -> None:
    """Give the first question an answer key."""
    tables = list(root.glob("*.tsv"))
    if tables:
        change(tables[0], lambda rows: rows[0].update(answer=key))
        return
    path = next(root.rglob("*.json"))
    items = json.loads(path.read_text(encoding="utf-8"))
    items[0]["Ground truth"] = key
    path.write_text(json.dumps(items), encoding="utf-8")


@pytest.mark.parametrize("task", TABLES)
def test_a_key_that_nothing_matches_is_named(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = drawn(task, tmp_path / "data")
    with_key(task, root, "CC")
    summary, err = run(task, root, tmp_path / "runs", capsys)
    assert summary["counts"]["impossible_keys"] == 1 and "their key is not an option" in run_text(summary)
    assert "answer 'CC' is none of the options" in err
    assert invoke(["data", "check", task, "--data-root", str(root)]) == 3
    assert "answer 'CC' is none of the options" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["ai2d", "mmmu", "mathvista"])
def test_tables_that_never_had_such_a_key_are_refused(task: str, tmp_path: Path) -> None:
    root = drawn(task, tmp_path / "data")
    tables = list(root.glob("*.tsv"))
    if tables:
        change(tables[0], lambda rows: next(r for r in rows if r.get("A")).update(answer="CC"))
    else:
        path = next(root.rglob("*.json"))
        items = json.loads(path.read_text(encoding="utf-8"))
        next(i for i in items.values() if i["question_type"] == "multi_choice")["answer"] = "CC"
        path.write_text(json.dumps(items), encoding="utf-8")
    with pytest.raises(DataError, match="'CC' is none of the"):
        list(registry.task(task).samples("miniature", root))


@pytest.mark.parametrize("task", ["mmbench", "gmai-mmbench", "ai2d", "mmmu"])
def test_no_drawn_question_has_such_a_key_and_a_lost_option_column_is_refused(
    task: str, tmp_path: Path
) -> None:
    root = drawn(task, tmp_path / "data")
    chosen = registry.task(task)
    samples = list(chosen.samples("miniature", root))
    assert samples and not [why for sample in samples if (why := chosen.impossible_key(sample))]
    (table,) = root.glob("*.tsv")
    change(table, lambda rows: [{k: v for k, v in row.items() if k != "C"} for row in rows])
    with pytest.raises(DataError, match="column 'C' missing"):
        list(chosen.samples("miniature", root))


@pytest.mark.parametrize("other", ["train", "val"])
def test_overlapping_index_files_are_refused(other: str, tmp_path: Path) -> None:
    root = drawn("dior-rsvg", tmp_path / "data")
    numbers = (root / "test.txt").read_text().split()
    listed = root / f"{other}.txt"
    before = listed.read_text() if listed.is_file() else ""
    listed.write_text(f"{before.rstrip()}\n{numbers[-1]}\n".lstrip())
    with pytest.raises(
        DataError, match=rf"1 of the {len(numbers)} numbers of test\.txt are in {other}\.txt too"
    ):
        list(registry.task("dior-rsvg").samples("test", root))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("answer_type", {"value": "integer"}, "field 'answer_type' is"),
        ("question_type", False, "field 'question_type' is"),
        ("answer", "4Z", None),
    ],
)
def test_a_number_that_is_none(
    field: str, value: Any, message: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = drawn("mathvista", tmp_path / "data")
    path = root / "data" / "testmini.json"
    items = json.loads(path.read_text())
    item = next(each for each in items.values() if each["answer_type"] == "integer" and not each["choices"])
    item[field] = value
    path.write_text(json.dumps(items))
    if message is not None:
        with pytest.raises(DataError, match=message):
            list(registry.task("mathvista").samples("testmini", root))
        return
    summary, told = run("mathvista", root, tmp_path / "runs", capsys)
    assert summary["counts"]["impossible_keys"] == 1 and "answer '4Z' is no integer" in told


@pytest.mark.parametrize(
    ("task", "file", "column"),
    [
        ("mmmu", "MMMU_DEV_VAL.tsv", "index"),
        ("gmai-mmbench", "GMAI-MMBench_VAL.tsv", "index"),
        ("ai2d", "AI2D_TEST.tsv", "index"),
    ],
)
@pytest.mark.parametrize("name", ["nan", ""])
def test_a_question_without_an_id_is_named(
    task: str, file: str, column: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = drawn(task, tmp_path) / file
    rows = list(csv.reader(path.open(newline="", encoding="utf-8"), delimiter="\t"))
    rows[-1][rows[0].index(column)] = name
    with path.open("w", newline="", encoding="utf-8") as written:
        csv.writer(written, delimiter="\t", lineterminator="\n").writerows(rows)
    split = registry.task(task).splits[0]
    assert invoke(["data", "check", task, "--split", split, "--data-root", str(tmp_path)]) == 3
    assert f"has the id '{name}', which is none" in capsys.readouterr().out
    answers = tmp_path / "p.jsonl"
    answers.write_text('{"id": 1, "text": "A"}\n')
    given = [
        "-m",
        f"predictions:{answers}",
        "-t",
        task,
        "--data-root",
        str(tmp_path),
        "-o",
        str(tmp_path / "r"),
    ]
    assert invoke(["run", *given]) == 3
    assert f"has the id '{name}', which is none" in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["1e999", "two", "-1", ""])
def test_a_count_that_is_none_is_named(
    answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = drawn("rsvqa-lr", tmp_path) / "LR_split_test_answers.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    counted = next(row for row in content["answers"] if row["answer"].isdigit())
    counted["answer"] = answer
    path.write_text(json.dumps(content), encoding="utf-8")
    assert invoke(["data", "check", "rsvqa-lr", "--split", "test", "--data-root", str(tmp_path)]) == 3
    assert f"answer '{answer}' is no count: it counts as wrong" in capsys.readouterr().out


def test_an_area_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = drawn("rsvqa-hr", tmp_path) / "USGS_split_test_answers.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    next(row for row in content["answers"] if row["answer"].endswith("m2"))["answer"] = "/"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert invoke(["data", "check", "rsvqa-hr", "--split", "test1", "--data-root", str(tmp_path)]) == 3
    assert "answer '/' is no area: it counts as wrong" in capsys.readouterr().out
