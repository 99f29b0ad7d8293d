"""The paper's rows: all of them, consistent with each other where the paper is, noted where it is not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from evalkit import registry
from evalkit.pipeline.summary import published_rows
from evalkit.reports.run import matching_row
from evalkit_tasks import published
from evalkit_tasks.published import COLUMNS, average_score, paper_table, references, rows, table
from evalkit_tasks.published.printed import TABLES
from evalkit_tasks.published.rows import NOTES
from evalkit_tasks.published.successors import successor_rows
from evalkit_tasks.published.tables import printed_rows


def test_every_published_value_is_in_the_package(shared_dir: Path) -> None:
    path = shared_dir / "paper_tables.csv"
    if not path.is_file():
        pytest.skip("no list of published values")
    with path.open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    ours = {(r.table, r.model, r.size): r.printed for r in rows()}
    assert len(cells) == 551
    for cell in cells:
        assert ours[cell["table"], cell["model"], cell["size"]][cell["task"], cell["metric"]] == cell["value"]
    assert sum(len(r.printed) for r in rows()) == 551


def test_tables_and_their_sizes() -> None:
    assert sum(len(row.printed) for row in rows()) == 551
    assert {row.table for row in rows()} == {*"23456789", "10", "11", "12", "13"}
    assert {number: len(table(number)) for number in COLUMNS} == {
        "2": 12,
        "4": 9,
        "5": 11,
        "6": 5,
        "7": 5,
        "9": 12,
        "11": 11,
        "12": 2,
    }
    assert table("14") == ()


def test_every_benchmark_value_has_a_column() -> None:
    for row in rows():
        if row.table in COLUMNS:
            keys = {column.key for column in COLUMNS[row.table]}
            assert {key for key in row.printed if key[0] != "relative_to_76B"} <= keys


def test_columns_name_tasks_splits_and_metrics_that_exist() -> None:
    for columns in COLUMNS.values():
        for column in (c for c in columns if c.task):
            task = registry.task(column.task)
            assert column.metric in [metric.name for metric in task.metrics()]
            assert set(column.splits) <= {*task.splits, "miniature"}


def test_every_note_belongs_to_a_row() -> None:
    assert set(NOTES) <= {(row.table, row.model) for row in rows()}
    doubtful = {
        *(("5", "GPT-4o"), ("5", "Claude-3.5-Sonnet"), ("11", "EasyToHard"), ("4", "MTMM")),
        *(("11", "GeoChat"), ("11", "SkySenseGPT"), ("11", "Bi-Modal"), ("11", "RSVQA")),
    }
    assert all(row.note for row in rows() if (row.table, row.model) in doubtful)


# The paper's own arithmetic -----------------------------------------------------------------------------


@pytest.mark.parametrize("row", table("2"), ids=lambda row: row.model)
def test_table_2_averages_recompute(row: published.PublishedRow) -> None:
    cells = {
        column.heading: float(row.printed[column.key]) if column.key in row.printed else None
        for column in COLUMNS["2"]
        if column.task
    }
    assert average_score(cells) == pytest.approx(float(row.printed["Avg", "mean"]), abs=0.051)


@pytest.mark.parametrize("row", [row for row in table("5") if "Intern" in row.model], ids=lambda r: r.model)
def test_table_5_averages_weigh_alike(row: published.PublishedRow) -> None:
    perception, reasoning, average = (float(row.printed[column.key]) for column in COLUMNS["5"])
    assert (average - reasoning) / (perception - reasoning) == pytest.approx(0.7314, abs=0.002)


@pytest.mark.parametrize("row", [row for row in table("4") if len(row.printed) == 10], ids=lambda r: r.model)
def test_table_4_final_scores_recompute(row: published.PublishedRow) -> None:
    found = references("drivelm")
    values = next(r.metrics for r in found if (r.table, r.model) == ("4", row.model))
    bleu = sum(values[f"bleu_{n}"] for n in range(1, 5))
    language = bleu / 12 + values["rouge_l"] / 3 + values["cider"] / 30
    final = 0.4 * values["chatgpt"] / 100 + 0.2 * (language + values["match"] / 100 + values["accuracy"])
    tolerance = 3e-3 if row.model == "MTMM" else 3e-4  # MTMM prints two digits
    assert values["final_score"] == pytest.approx(final, abs=tolerance)


@pytest.mark.parametrize("task", ["rsvqa-lr", "rsvqa-hr"])
def test_macro_averages_are_means_and_pooled_ones_are_not_named_so(task: str) -> None:
    for row in references(task):
        assert not {"average", "average_macro"} <= set(row.metrics)
        if "average_macro" in row.metrics:
            parts = [v for name, v in row.metrics.items() if name != "average_macro"]
            assert row.metrics["average_macro"] == pytest.approx(sum(parts) / len(parts), abs=0.011)
        if "average" in row.metrics and task == "rsvqa-lr":
            weights = {"rural_urban": 100, "presence": 2955, "compare": 4002}
            pooled = sum(w * row.metrics[name] for name, w in weights.items()) / 7057
            assert row.metrics["average"] == pytest.approx(pooled, abs=0.02)


# References ---------------------------------------------------------------------------------------------


def one(task: str, table_number: str, model: str, split: str) -> dict[str, float]:
    (row,) = (r for r in references(task) if (r.table, r.model, r.split) == (table_number, model, split))
    return dict(row.metrics)


def test_references_are_named_and_scaled_as_our_metrics() -> None:
    assert one("rsvqa-lr", "11", "Mini-InternVL-DA-2B", "test") == {
        "rural_urban": 93.0,
        "presence": 87.07,
        "compare": 91.85,
        "average": 89.87,
    }
    assert one("rsvqa-hr", "11", "GeoChat", "test2") == {"presence": 58.45, "compare": 83.19, "average": 72.3}
    assert one("rsvqa-hr", "11", "EasyToHard", "test1") == {"presence": 91.39, "compare": 89.75}
    assert one("dior-rsvg", "11", "Mini-InternVL-4B", "test") == {"acc_0.5": 16.89}
    assert one("gmai-mmbench", "9", "GPT-4V", "val")["det_2d"] == 30.32
    assert one("bdd-x", "6", "DriveGPT4", "test")["description_cider"] == 254.62
    assert one("bdd-x", "7", "ADAPT", "test")["angle_a_5.0"] == 89.45
    assert one("drivelm", "4", "MTMM", "val")["match"] == 45.0
    assert one("ocrbench", "2", "Mini-InternVL-2B", "test") == {"score": 784.0}
    assert one("mmbench", "2", "Mini-InternVL-2B", "test-cn") == {"circular": 70.9}
    assert one("docvqa", "12", "Mini-InternVL-2B", "val") == {"anls": 85.9}


def test_references_use_our_metric_names_only() -> None:
    for name, task in registry.tasks().items():
        known = {metric.name for metric in task().metrics()}
        for row in references(name):
            assert set(row.metrics) <= known
            assert row.split in task.splits
        assert list(task().published_rows) == list(references(name))
    assert references("unheard-of") == ()


# The successors' reports ---------------------------------------------------------------------------------


def test_successors_stand_in_table_2_and_are_no_rows_of_the_paper() -> None:
    labels = [row.label for row in paper_table("2").rows]
    assert {"InternVL2.5-4B", "InternVL3-2B", "InternVL3.5-1B"} <= set(labels)
    assert len(labels) == len(set(labels)) and not {row.model for row in successor_rows()} & {
        row.model for row in rows()
    }
    assert all(row.note for row in successor_rows())
    assert [row.label for row in TABLES[0].rows] == [row.model for row in table("2")]
    assert not any(
        row.model.startswith("InternVL3") for number in ("4", "12") for row in printed_rows(number)
    )


def test_values_by_chain_of_thought_or_thinking_have_rows_of_their_own() -> None:
    """MMMU and MathVista of InternVL3 and 3.5 never stand in a row of direct answers."""
    reasoned = {("MMMU_val", "acc"), ("MathVista_testmini", "acc")}
    for row in successor_rows():
        if row.model.startswith("InternVL2.5"):
            assert (("MMMU_val", "acc") in row.printed) == row.model.endswith("(direct or chain of thought)")
        else:
            assert set(row.printed) <= reasoned if "(" in row.model else not reasoned & set(row.printed)
    assert one("mmmu", "InternVL3.5 report", "InternVL3.5-1B (thinking)", "val") == {"accuracy": 44.2}
    assert one("mathvista", "InternVL3 report", "InternVL3-2B (chain of thought)", "testmini") == {
        "accuracy": 57.0
    }
    assert one("ai2d", "InternVL2.5 report", "InternVL2.5-4B", "test") == {"accuracy": 81.4}
    assert one("mmbench", "InternVL3 report", "InternVL3-1B", "test-cn") == {"circular": 67.9}
    assert not [
        r for r in references("mmmu") if r.model in ("InternVL3-1B", "InternVL3.5-4B", "InternVL2.5-1B")
    ]


def test_a_direct_run_is_not_checked_against_a_thinking_row() -> None:
    rows = [{"model": r.model, "metrics": dict(r.metrics), "table": r.table} for r in references("mmmu")]
    assert matching_row("internvl3.5-1b", rows) is None
    rows = [{"model": r.model, "metrics": dict(r.metrics), "table": r.table} for r in references("chartqa")]
    found = matching_row("internvl3.5-1b", rows)
    assert found is not None and found["metrics"] == {"average": 77.7}


# Tables with our rows -----------------------------------------------------------------------------------


def summary(task: str, split: str, model: str = "ours", **metrics: float | None) -> dict[str, Any]:
    values = {name: {"value": value} for name, value in metrics.items()}
    return {
        "model": model,
        "task": task,
        "split": split,
        "protocol": "paper",
        "status": "complete",
        "metrics": values,
    }


def cells(number: str, *summaries: dict[str, Any]) -> dict[str, str | None]:
    found = paper_table(number, summaries)
    (row,) = (row for row in found.rows if row.ours)
    return dict(zip(found.columns, row.cells, strict=True))


def note(number: str, *summaries: dict[str, Any]) -> str:
    return next(row.note for row in paper_table(number, summaries).rows if row.ours)


def test_table_11_takes_each_split_into_its_column() -> None:
    found = cells(
        "11",
        summary("rsvqa-lr", "test", presence=80.0, average=85.126),
        summary("rsvqa-hr", "test1", presence=90.0),
        summary("rsvqa-hr", "test2", presence=70.0),
        summary("dior-rsvg", "test", **{"acc_0.5": 50.0}),
        summary("chartqa", "test", average=1.0),
    )
    assert {name: value for name, value in found.items() if value is not None} == {
        "LR P": "80.00",
        "LR Avg": "85.13",
        "HR-test1 P": "90.00",
        "HR-test2 P": "70.00",
        "DIOR-RSVG": "50.00",
    }
    printed = paper_table("11").rows[-1]
    assert printed.label == "Mini-InternVL-DA-4B"
    assert printed.cells[:4] == ("92.00", "85.69", "92.18", "89.46")


def test_table_2_average_is_over_what_was_run() -> None:
    runs = [
        summary("mmmu", "val", accuracy=40.0),
        summary("ocrbench", "test", score=700.0),
        summary("docvqa", "val", anls=82.0),
        summary("docvqa", "test", anls=None),
        summary("mmbench", "dev-cn", circular=60.0),
        summary("mathvista", "testmini", accuracy=None),
    ]
    found = cells("2", *runs)
    assert (found["OCRBench"], found["MMB-EN"], found["MMB-CN"], found["DocVQA"]) == (
        "700",
        None,
        "60.0",
        "82.0",
    )
    assert found["Avg. Score"] == "63.0"
    text = note("2", *runs)
    assert "Avg. Score over 4 of 9" in text
    assert "docvqa on val, the paper's is test" in text
    assert "missing: MathVista, AI2D, ChartQA, InfoVQA, MMB-EN" in text


def test_nothing_run_has_no_average() -> None:
    assert average_score({"MMMU": None, "OCRBench": None}) is None
    assert cells("2", summary("mmmu", "val", accuracy=None))["Avg. Score"] is None
    assert all(not row.ours for row in paper_table("2").rows)


def test_the_papers_split_wins_and_other_protocols_are_said() -> None:
    runs = [summary("docvqa", "val", anls=1.0), summary("docvqa", "test", anls=2.0)]
    assert cells("2", *runs)["DocVQA"] == "2.0"
    other = {**summary("chartqa", "test", average=3.0), "protocol": "lmms-eval", "status": "partial"}
    assert "chartqa by protocol lmms-eval" in note("2", other)
    assert "chartqa partial" in note("2", other)
    assert "rsvqa-hr on miniature" in note("11", summary("rsvqa-hr", "miniature", presence=1.0))


def test_each_model_has_a_row() -> None:
    found = paper_table(
        "4", [summary("drivelm", "val", "a", cider=1.0), summary("drivelm", "val", "b", cider=2.0)]
    )
    assert [row.label for row in found.rows if row.ours] == ["a", "b"]


@pytest.mark.parametrize("number", ["2", "4", "5", "6", "7", "9", "11"])
def test_every_suite_prints_its_table(number: str) -> None:
    suite = registry.suites()[f"paper-table-{number}"]
    assert suite.table is not None
    text = suite.table([]).text()
    assert text.startswith(f"Table {number}")
    assert "Mini-InternVL-DA-2B" in text or number == "2"
    assert {c.task for c in COLUMNS[number] if c.task} == {target.task for target in suite.targets()}


# Beside a run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "split", "model", "expected"),
    [
        (
            "rsvqa-hr",
            "test2",
            "Mini-InternVL-DA-2B",
            {"11": {"presence": 89.6, "compare": 90.86, "average": 90.3}},
        ),
        ("rsvqa-hr", "miniature", "GeoChat", {}),
        ("mmbench", "dev-cn", "Mini-InternVL-2B", {"2": {"circular": 70.9}, "12": {"circular": 70.9}}),
        ("docvqa", "val", "Mini-InternVL-2B", {"12": {"anls": 85.9}, "2": {"anls": 86.9}}),
    ],
)
def test_published_rows_fit_the_split(task: str, split: str, model: str, expected: dict[str, Any]) -> None:
    found = [row for row in published_rows(registry.task(task), split) if row["model"] == model]
    assert {row["table"]: row["metrics"] for row in found} == expected
    assert [row["table"] for row in found] == list(expected)
    assert len(found) == len(expected)


def test_a_split_that_no_row_fits_has_them_all() -> None:
    found = published_rows(registry.task("rsvqa-hr"), "val")
    assert {row["split"] for row in found} == {"test1", "test2"}


def test_a_models_values_of_two_tables_are_checked_together() -> None:
    row = matching_row("mini-internvl-2b-da-bdd", published_rows(registry.task("bdd-x"), "test"))
    assert row is not None
    assert row["table"] == "6, 7"
    assert {"full_cider", "angle_rmse"} <= set(row["metrics"])
    assert len(row["metrics"]) == 19


def test_every_printed_value_stands_in_a_table_as_printed() -> None:
    tables = {
        table.title.split(":")[0].removeprefix("Table "): table for table in registry.published_tables()
    }
    cells = {(number, row.label): row.cells for number, table in tables.items() for row in table.rows}
    by_dataset = {"3", "8", "10"}
    for row in rows():
        for (task, _), value in row.printed.items():
            label = task if row.table in by_dataset else row.model
            assert value in cells[row.table, label], (row.table, label, value)
    assert all(not row.ours for table in tables.values() for row in table.rows)


def test_every_column_of_a_table_has_published_values() -> None:
    for number, columns in COLUMNS.items():
        printed = [row.printed for row in rows() if row.table == number]
        for column in columns:
            assert any(column.key in cells for cells in printed), (number, column.heading)


def test_our_values_are_rounded_as_the_column_is_printed() -> None:
    for number, columns in COLUMNS.items():
        printed = [row.printed for row in table(number)]
        for column in columns:
            values = [cells[column.key] for cells in printed if column.key in cells]
            assert max(len(value.partition(".")[2]) for value in values) == column.decimals, column
