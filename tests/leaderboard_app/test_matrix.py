"""What stands in which cell, what is marked, what is ranked."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from evalkit import registry
from evalkit.comparison.alike import measured
from evalkit_leaderboard import catalogue, context, exports, trends
from evalkit_leaderboard.charts import Point, labels_beside, pareto, size_point, story
from evalkit_leaderboard.marks import _noted, all_marks, marks_of
from evalkit_leaderboard.matrix import Column, Matrix, Row, build, default_columns, table_columns, tables
from evalkit_leaderboard.runs import MetricCell, Run
from evalkit_leaderboard.views.overview import Order, measured_first, ordered
from evalkit_leaderboard.views.overview_table import _line

CHARTQA = Column("chartqa", "test", "average")


def signature(n: int = 2500, data: str = "aaaaaa", scorer: str = "paper.1") -> str:
    return (
        f"chartqa|v1|test|n:{n}|tiles:12|prompt:cdbb29|gen:greedy,100|scorer:{scorer}|dtype:fp32|data:{data}"
    )


def run(model: str, value: float | None = 70.0, **changes: object) -> Run:
    cell = MetricCell(
        value, "percent", 2500, None if value is None else value - 2, None if value is None else value + 2
    )
    base = Run(
        path=f"/runs/{model}",
        status="complete",
        model=model,
        weights=model,
        task="chartqa",
        title="ChartQA",
        split="test",
        protocol="paper",
        created="2026-01-01T00:00:00+00:00",
        signature=signature(),
        counts={"expected": 2500, "answered": 2500, "errors": 0},
        metrics={"average": cell},
    )
    made = replace(base, **changes)  # type: ignore[arg-type]
    return replace(made, measured=measured(made.signature, made.protocol, {}))


def matrix_of(*runs: Run) -> Matrix:
    return build({f"k{place}": item for place, item in enumerate(runs)})


def words(item: Run) -> list[str]:
    return [mark.word for mark in marks_of(item, catalogue.tasks()["chartqa"])]


def test_a_plain_complete_run_is_ranked_beside_the_published_rows() -> None:
    matrix = matrix_of(run("ours", 99.0))
    row = matrix.row("ours")
    assert row is not None and row.cells[CHARTQA].ranked and not row.marks
    assert matrix.best(CHARTQA, matrix.rows) == 99.0
    published = matrix.row("Mini-InternVL-2B")
    assert published is not None and published.published and published.cells[CHARTQA].value == 76.2
    assert {cell.unit for cell in published.cells.values()} == {"percent", "score"}
    assert published.cells[CHARTQA].unit == "percent"


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("limited", {"limited": True, "status": "partial"}),
        ("partial", {"status": "partial"}),
        ("failed", {"status": "failed"}),
        ("incomplete", {"counts": {"expected": 2500, "answered": 2498, "errors": 2}}),
        ("non-standard", {"nonstandard": {"max_tiles": "6"}}),
        ("protocol official", {"protocol": "official"}),
        ("excerpt", {"counts": {"expected": 2, "answered": 2, "errors": 0}}),
        ("untrained", {"notes": ("untrained: random weights, the answers mean nothing",)}),
    ],
)
def test_what_is_not_comparable_is_marked_and_not_ranked(word: str, changes: dict[str, object]) -> None:
    item = run("ours", 99.9, **changes)
    assert words(item) == [word]
    matrix = matrix_of(item)
    row = matrix.row("ours")
    assert row is not None and not row.cells[CHARTQA].ranked
    assert matrix.best(CHARTQA, matrix.rows) == 90.8
    assert matrix.best(CHARTQA, matrix.rows, everything=True) == 99.9


PARTS: dict[str, dict[str, object]] = {
    "drawn": {"split": "miniature", "counts": {"expected": 66}},
    "sample": {"split": "sample", "counts": {"expected": 66}},
    "limited": {"limited": True, "status": "partial", "counts": {"expected": 5, "in_files": 2500}},
    "excerpt": {"status": "excerpt", "counts": {"expected": 100, "in_files": 100, "published": 2500}},
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_stands_apart_from_published_rows_with_both_counts(part: str) -> None:
    matrix = matrix_of(run("part", 99.9, **PARTS[part]), run("whole", 50.0))
    columns = [column for column in matrix.columns if column.task == "chartqa" and column.metric == "average"]
    by_score = ordered(matrix, matrix.rows, Order(str(CHARTQA), CHARTQA, False), everything=True)
    rows = measured_first(by_score)
    assert [row.label for row in rows if row.apart(columns)] == ["part"]
    assert {row.label for row in rows[:2]} == {"part", "whole"}
    assert matrix.best(CHARTQA, matrix.rows) == 90.8
    line = _line(rows, columns)
    assert line is not None and line.place == 2 and "Not comparable with part (" in line.text
    ours = str(PARTS[part]["counts"]["expected"])  # type: ignore[index]
    assert ours in line.text and "2,500" in line.text.replace("2500", "2,500")
    (apart,) = (row for row in rows if row.label == "part")
    five = [replace(apart, label=f"part {letter}") for letter in "abcde"]
    four = "part a, part b, part c, part d"
    for count, names in ((4, four), (5, f"{four} and others")):
        longer = _line([*five[:count], *(row for row in rows if row is not apart)], columns)
        assert longer is not None and f"Not comparable with {names} (" in longer.text
    kinds = {row["model"]: row["kind"] for row in csv.DictReader(io.StringIO(exports.to_csv(rows, columns)))}
    assert kinds["part"] == "measured here, not comparable with published rows"
    assert kinds["whole"] == "measured here"
    assert _line([row for row in rows if not row.published], columns) is None


def test_other_notes_are_shown_and_ranked() -> None:
    matrix = matrix_of(run("served", 99.0, notes=("template and tiling are the server's",)))
    row = matrix.row("served")
    assert row is not None and row.marks[0].word == "note" and row.cells[CHARTQA].ranked


@pytest.mark.parametrize(
    ("note", "word"),
    [("w" * 20 + ": why", "w" * 20), ("w" * 21 + ": why", "note"), ("no colon", "note"),
     ("untrained: drawn weights", "untrained"), ("untrained", "untrained")],
)  # fmt: skip
def test_a_short_word_before_a_colon_is_the_mark(note: str, word: str) -> None:
    found = _noted(note)
    assert (found.word, found.meaning, found.ranked) == (word, note, word != "untrained")


@pytest.mark.parametrize(("inputs", "word"), [("server", "served"), ("processor", "own processor")])
def test_whose_template_and_tiling_it_was_is_marked(inputs: str, word: str) -> None:
    note = "served: template and tiling are the server's own"
    item = run("m", signature=f"{signature()}|inputs:{inputs}", notes=(note,) if word == "served" else ())
    (mark,) = marks_of(item, catalogue.tasks()["chartqa"])
    assert mark.word == word and mark.ranked and "tiling" in mark.meaning


def test_runs_on_other_data_than_most_are_marked() -> None:
    runs = {name: run(name) for name in ("a", "b")} | {"c": run("c", signature=signature(data="bbbbbb"))}
    marks = all_marks(runs, catalogue.tasks())
    assert not marks["a"] and not marks["b"]
    assert [mark.word for mark in marks["c"]] == ["other data"] and "bbbbbb" in marks["c"][0].meaning


def test_a_ranked_run_is_shown_before_a_newer_one_that_is_not() -> None:
    matrix = matrix_of(
        run("ours", 60.0),
        run("ours", 90.0, status="partial", limited=True, created="2026-02-01", path="/runs/later"),
        run("ours", 61.0, created="2026-01-02", path="/runs/again"),
    )
    row = matrix.row("ours")
    assert row is not None and row.cells[CHARTQA].value == 61.0


def test_curves_stand_over_steps_where_all_runs_but_the_base_have_one() -> None:
    runs = [run("base", 50.0), run("a@step-200", 60.0), run("a@step-300", 70.0)]
    frame, by_step = trends.frame({"a": runs}, "average", {"a": "A"})
    assert by_step and frame["step"].tolist() == [0, 200, 300]
    assert frame["value"].tolist() == [50.0, 60.0, 70.0] and frame["low"].tolist() == [48.0, 58.0, 68.0]
    frame, by_step = trends.frame({"a": [*runs[:2], run("c", 65.0)]}, "average", {"a": "A"})
    assert not by_step and frame["step"].tolist() == [0, 1, 2]


def test_a_point_of_the_plot_is_the_ranked_value_that_is_asked_for() -> None:
    rows = matrix_of(run("ours", 61.0)).rows
    (ours,), published = [row for row in rows if not row.published], [row for row in rows if row.published]
    (column,) = ours.cells
    sized = replace(ours, parameters=7)
    assert size_point(sized, column) == Point("ours", False, 7, 61.0)
    assert size_point(ours, column) is None  # of no known size
    assert size_point(sized, None) is None  # of an average over all benchmarks there is nothing
    (part,) = (row for row in matrix_of(run("part", 61.0, **PARTS["limited"])).rows if not row.published)
    assert size_point(replace(part, parameters=7), column) is None  # not ranked
    row = next(row for row in published if row.average and row.parameters)
    point = size_point(row, None)
    assert row.average and point and point.value == row.average.value and point.published


def test_models_stand_by_when_their_newest_run_began() -> None:
    runs = [run("first", 50.0), run("second", 50.0), run("first", 50.0, task="docvqa")]
    days = ("2026-01-01", "2026-01-02", "2026-01-03")
    found = {
        f"k{i}": replace(each, created=day) for i, (each, day) in enumerate(zip(runs, days, strict=True))
    }
    newest = context._newest("one", 1, build(found), found)
    assert list(newest.values()) == ["2026-01-02", "2026-01-03"]


def test_other_weights_of_a_model_have_their_own_row_and_the_newest_is_current() -> None:
    matrix = matrix_of(
        run("ours", weights="1111111111"),
        run("ours", weights="2222222222", created="2026-03-01", path="/new"),
    )
    current = {row.label: row.current for row in matrix.rows if not row.published}
    assert current == {"ours · 11111111": False, "ours · 22222222": True}


def test_only_the_latest_checkpoint_of_a_training_is_current() -> None:
    matrix = matrix_of(
        *(run(f"m@step-{step}", created=f"2026-01-0{step}", path=f"/r/{step}") for step in (1, 2, 3)),
        run("m"),
    )
    current = {row.label: row.current for row in matrix.rows if not row.published}
    assert current == {"m@step-1": False, "m@step-2": False, "m@step-3": True, "m": True}


def test_a_measured_model_of_a_published_name_keeps_its_own_row() -> None:
    matrix = matrix_of(run("Mini-InternVL-2B", 50.0))
    ours, theirs = matrix.row("Mini-InternVL-2B"), matrix.row("Mini-InternVL-2B (published)")
    assert ours is not None and not ours.published and ours.cells[CHARTQA].value == 50.0
    assert theirs is not None and theirs.published and theirs.cells[CHARTQA].value == 76.2


def test_every_published_figure_stands_in_a_row_marked_as_published() -> None:
    matrix = matrix_of()
    assert matrix.rows and all(row.published for row in matrix.rows)
    for task in catalogue.tasks().values():
        for reference in task.references:
            for metric, value in reference.metrics.items():
                column = Column(task.name, reference.split, metric)
                cells = [
                    row.cells[column]
                    for row in matrix.rows
                    if row.model == reference.model and column in row.cells
                ]
                assert any((cell.value, cell.table) == (value, reference.table) for cell in cells)


def test_the_papers_average_and_only_over_what_was_measured_whole() -> None:
    matrix = matrix_of(run("ours", 80.0), run("drawn", split="miniature"))
    ours, drawn = matrix.row("ours"), matrix.row("drawn")
    assert ours is not None and ours.average is not None
    assert (ours.average.value, ours.average.measured, ours.average.benchmarks) == (80.0, 1, 9)
    assert not ours.average.whole
    assert drawn is not None and drawn.average is None
    published, _ = catalogue.averages([])
    assert published["Mini-InternVL-4B"].value == 72.8 and published[catalogue.YARDSTICK].value == 81.4


def test_lower_is_better_is_known() -> None:
    matrix = matrix_of()
    column = Column("bdd-x", "test", "speed_rmse")
    assert not matrix.higher_is_better(column)
    best = matrix.best(column, matrix.rows)
    values = [row.cells[column].value for row in matrix.rows if column in row.cells]
    assert best == min(value for value in values if value is not None)


def test_order_puts_unranked_figures_last_unless_asked() -> None:
    matrix = matrix_of(run("low", 10.0), run("high", 95.0, limited=True, status="partial"))
    rows = [row for row in matrix.rows if CHARTQA in row.cells]
    order = Order(str(CHARTQA), CHARTQA, False)
    labels = [row.label for row in ordered(matrix, rows, order, everything=False)]
    assert labels[0] == "Claude-3.5-Sonnet" and labels[-2:] == ["low", "high"]
    assert next(row.label for row in ordered(matrix, rows, order, everything=True)) == "high"
    backwards = replace(order, worst_first=True)
    assert next(row.label for row in ordered(matrix, rows, backwards, everything=False)) == "low"


def test_default_columns_are_headlines_of_what_was_measured() -> None:
    assert default_columns(matrix_of(run("ours"))) == [CHARTQA]
    headlines = default_columns(matrix_of())
    assert CHARTQA in headlines and Column("drivelm", "val", "final_score") in headlines
    assert all(catalogue.tasks()[column.task].headline == column.metric for column in headlines)


def test_columns_of_a_table_are_the_papers_and_ours_of_the_same() -> None:
    drawn = run("ours", 50.0, split="miniature")
    matrix = matrix_of(
        drawn, run("ours", 60.0, task="docvqa", split="val", metrics={"anls": MetricCell(60.0)})
    )
    assert tables(matrix) == ["2", "4", "5", "6", "7", "9", "11", "12"]
    columns = table_columns(matrix, "2")
    assert columns.index(CHARTQA) == columns.index(CHARTQA._replace(split="miniature")) + 1
    assert {"mmmu", "ocrbench", "mmbench"} <= {column.task for column in columns}
    assert {column.task for column in table_columns(matrix, "4")} == {"drivelm"}
    assert len(table_columns(matrix, "4")) == 10


def test_published_figures_have_the_decimals_of_print() -> None:
    row = matrix_of().row("GPT-4V-0409")
    assert row is not None
    texts = {str(column): cell.text for column, cell in row.cells.items()}
    assert texts["mmbench@test-en:circular"] == "81.0" and texts["ocrbench@test:score"] == "678"
    ours = matrix_of(run("ours", 81.0)).row("ours")
    assert ours is not None and ours.cells[CHARTQA].text == "81.00"


def test_without_a_headline_another_figure_stands_in() -> None:
    metrics = {
        "final_score": MetricCell(None, reason="no judge given"),
        "accuracy": MetricCell(0.5, "fraction", 20),
    }
    columns = default_columns(matrix_of(run("ours", task="drivelm", split="sample", metrics=metrics)))
    assert Column("drivelm", "sample", "accuracy") in columns
    assert Column("drivelm", "sample", "final_score") not in columns


def test_a_task_that_is_not_installed_is_shown_as_it_is_stored() -> None:
    matrix = matrix_of(run("ours", task="theirs", metrics={"f": MetricCell(3.0, "score", 5)}))
    row = matrix.row("ours")
    assert row is not None and row.cells[Column("theirs", "test", "f")].value == 3.0
    assert Column("theirs", "test", "f") in default_columns(matrix)


def hostile() -> list[Row]:
    matrix = matrix_of(run("=1+1|\\`<b>_x_</b>\n$&%"), run("plain"))
    return [row for row in matrix.rows if not row.published]


def test_csv_holds_full_figures_and_no_formula() -> None:
    lines = list(csv.DictReader(io.StringIO(exports.to_csv(hostile(), [CHARTQA]))))
    assert lines[0]["model"].startswith("'=1+1") and lines[1]["model"] == "plain"
    assert lines[1]["kind"] == "measured here" and float(lines[1]["chartqa@test:average"]) == 70.0
    assert float(lines[1]["chartqa@test:average low"]) == 68.0
    published = exports.to_csv(list(matrix_of().rows), [CHARTQA])
    assert "published, not measured here" in published


def test_markdown_and_latex_escape_names() -> None:
    matrix = matrix_of()
    markdown = exports.to_markdown(exports.Shown(matrix, hostile(), [CHARTQA])).splitlines()
    assert len(markdown) == 4 and r"\=1" not in markdown[2]
    assert r"&lt;b&gt;\_x\_&lt;/b&gt;" in markdown[2] and r"\|" in markdown[2]
    latex = exports.to_latex(exports.Shown(matrix, hostile(), [CHARTQA]))
    assert r"\textbackslash{}" in latex and r"\textless{}b\textgreater{}" in latex and r"\$\&\%" in latex
    assert "& ChartQA" in latex and "70.00" in latex


def test_pareto_front_and_story() -> None:
    points = [
        Point("small", False, 100, 60.0),
        Point("twin", True, 100, 50.0),
        Point("middle", True, 200, 55.0),
        Point("large", True, 2000, 80.0),
    ]
    assert [point.label for point in pareto(points, True)] == ["small", "large"]
    assert [point.label for point in pareto(points, False)] == ["twin"]
    told = story(points, "large")
    assert "small" in told and "5.0% of the parameters" in told and "75.0%" in told
    assert story(points[:3], "large") == ""


def test_labels_stand_where_they_meet_no_other() -> None:
    close = [Point("Qwen2-VL-2B", True, 2, 68.5), Point("Mini-InternVL-2B", True, 2, 67.6)]
    points = [*close, Point("small", False, 1, 40.0), Point("InternVL2-Llama3-76B", True, 76, 81.4)]
    right, left = labels_beside(points).values()
    assert set(right) == {"Qwen2-VL-2B", "small"}
    assert set(left) == {"Mini-InternVL-2B", "InternVL2-Llama3-76B"}


def test_the_papers_own_story() -> None:
    rows = [row for row in matrix_of().rows if row.average and row.parameters]
    points = [Point(r.label, True, r.parameters or 0, r.average.value) for r in rows if r.average]
    told = story(points, catalogue.YARDSTICK)
    assert told.startswith("Mini-InternVL-4B") and "5.3% of the parameters" in told and "89.4%" in told


def test_sizes_as_printed() -> None:
    assert catalogue.parameters("76B") == 76_000_000_000 and catalogue.parameters("938M") == 938_000_000
    assert catalogue.parameters("") is None and catalogue.parameters("unknownB") is None


def test_a_task_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("theirs")

    monkeypatch.setattr(registry, "tasks", lambda: {"broken": Broken})
    assert dict(catalogue.tasks.__wrapped__()) == {}


def test_the_mark_of_a_models_own_words() -> None:
    """The words before a colon name the mark where they are short; longer texts are notes."""
    assert _noted("untrained").word == "untrained"
    assert _noted(f"{'w' * 20}: text").word == "w" * 20
    assert _noted(f"{'w' * 21}: text").word == "note" and _noted("no colon").word == "note"
