"""The overview's table as files: the paper's column names, intervals, the best bold; the LaTeX compiles."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_runs import TEXTS

from evalkit_leaderboard import exports
from evalkit_leaderboard.catalogue import AVERAGE, Average
from evalkit_leaderboard.headings import headings
from evalkit_leaderboard.marks import Mark
from evalkit_leaderboard.matrix import Cell, Column, Matrix, Row, build, default_columns, table_columns

NINE = ["MMMU", "MathVista", "AI2D", "ChartQA", "DocVQA", "InfoVQA", "OCRBench", "MMB-EN", "MMB-CN"]
CHARTQA = Column("chartqa", "test", "average")


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    """The published rows and one of ours, on two of the nine benchmarks."""
    found = build({})
    cells = {
        CHARTQA: Cell(95.5, "percent", 2500, 93.25, 96.75, (Mark("served", "by a server", True),), run="a"),
        Column("ocrbench", "test", "score"): Cell(10.0, "score", 1000, 9.0, 11.0, run="b"),
    }
    ours = Row("ours_1", False, cells, 2_000_000_000, Average(48.25, 2, 9))
    return replace(found, rows=(ours, *found.rows))


def test_columns_of_a_table_have_the_papers_names(matrix: Matrix) -> None:
    names = headings(table_columns(matrix, "2"), matrix.infos)
    assert names == NINE
    assert {"Accuracy", "BLEU-4", "CIDEr"} <= set(headings(table_columns(matrix, "4"), matrix.infos))


def test_names_say_which_benchmark_and_split_where_that_is_needed(matrix: Matrix) -> None:
    columns = [Column("drivelm", "miniature", "accuracy"), CHARTQA, Column("docvqa", "val", "anls")]
    columns += [Column("docvqa", "test", "anls"), Column("none", "x", "y")]
    names = headings(columns, matrix.infos)
    assert names[:2] == ["DriveLM-nuScenes Accuracy (miniature)", "ChartQA"]
    assert names[2:] == ["DocVQA (val)", "DocVQA (test)", "none@x:y"]


def test_every_column_has_a_name_of_its_own(matrix: Matrix) -> None:
    for columns in (default_columns(matrix, every_task=True), matrix.columns):
        assert len(set(headings(columns, matrix.infos))) == len(columns)


def test_what_is_shown_is_in_the_files(matrix: Matrix) -> None:
    columns, rows = table_columns(matrix, "2"), matrix.rows
    header, _, ours, *_ = exports.to_markdown(exports.Shown(matrix, rows, columns)).splitlines()
    assert AVERAGE in header and "ChartQA" in header
    assert r"**95.50** \[93.25, 96.75\] \(served\)" in ours and r"48.2 \(2 of 9\)" in ours
    latex = exports.to_latex(exports.Shown(matrix, rows, columns))
    assert r"\textbf{95.50} {\scriptsize {[}93.25, 96.75] (served)}" in latex
    assert latex.count(r"\midrule") == 2 and r"\usepackage{booktabs}" in latex
    assert "**10**" not in ours  # others have a better value
    line = next(csv.DictReader(io.StringIO(exports.to_csv(rows, columns))))
    assert line["average"] == "48.25" and line["average over"] == "2 of 9"


@pytest.mark.parametrize("kind", ["published", "hostile"])
def test_the_latex_compiles(kind: str, matrix: Matrix, tmp_path: Path) -> None:
    rows = list(matrix.rows)
    if kind == "hostile":
        marks = [Mark(text[:40], text[:40]) for text in TEXTS]
        cells = [Cell(50.0, "percent", 3, 40.0, 60.0, (mark,)) for mark in marks]
        labels = [*(text[:300] for text in TEXTS), "[x] & é 中文 ‘q’ ^_~#$%{}\\", 'ß–−·≤…†|"']
        rows = [Row(label, False, {CHARTQA: cells[n % len(cells)]}, 10**9) for n, label in enumerate(labels)]
    table = exports.to_latex(exports.Shown(matrix, rows, table_columns(matrix, "2")))
    document = (
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\tiny\n"
        f"{table}\\end{{document}}\n"
    )
    (tmp_path / "table.tex").write_text(document, "utf-8")
    if engine := shutil.which("pdflatex") or shutil.which("tectonic"):
        options = ["-interaction=nonstopmode", "-halt-on-error"] if "pdflatex" in engine else []
        done = subprocess.run(
            [engine, *options, "table.tex"], cwd=tmp_path, capture_output=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
        assert (tmp_path / "table.pdf").stat().st_size > 1000
    walker = pytest.importorskip("pylatexenc.latexwalker", reason="pip install pylatexenc (extra dev)")
    nodes, _, _ = walker.LatexWalker(document, tolerant_parsing=False).get_latex_nodes()
    inside = next(node for node in nodes if node.isNodeType(walker.LatexEnvironmentNode))
    tabular = next(node for node in inside.nodelist if node.isNodeType(walker.LatexEnvironmentNode))
    assert tabular.environmentname == "tabular"
    ends = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len(ends) == len(rows) + 1
    assert len({line.replace(r"\&", "").count("&") for line in ends}) == 1
