"""The pages of an export as HTML: they can be read without their script, which sorts, compares and draws."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from evalkit_leaderboard import charts
from evalkit_leaderboard.catalogue import YARDSTICK
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.exports import MEASURED, PUBLISHED
from evalkit_leaderboard.matrix import Cell, Column, Matrix, Row, default_columns
from evalkit_leaderboard.naming import when
from evalkit_leaderboard.numbers import interval, magnitude
from evalkit_leaderboard.runs import Run

GENERATOR = "evalkit leaderboard --export"
#: Rows drawn in a plot of intervals.
_MOST = 40
#: What each page is called, in the order of the navigation.
PAGES = ("Overview", "Tasks", "Compare", "Samples", "Training", "Runs")


def document(title: str, sections: Sequence[tuple[str, str]], foot: str) -> str:
    """The whole file; sections are (page, HTML)."""
    links = "".join(f'<a href="#{page.lower()}">{page}</a>' for page in PAGES)
    body = "".join(
        f'<section id="{page.lower()}"><h1>{page}</h1>{content}</section>' for page, content in sections
    )
    policy = "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="generator" content="{GENERATOR}">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="board.css">'
        '<script defer src="board.js"></script><script defer src="data/board.js"></script></head>'
        f'<body><header><strong>{escape(title, 80)}</strong><nav aria-label="Pages">{links}</nav></header>'
        f"<main>{body}</main><footer>{foot}</footer></body></html>\n"
    )


def note(text: str) -> str:
    """A small sentence."""
    return f'<p class="note">{escape(text, 1500)}</p>'


def chart(content: Mapping[str, Any]) -> str:
    """Where the script draws a chart of the table beside it."""
    return f'<div class="chart" data-chart="{html.escape(json.dumps(content), quote=True)}"></div>'


def table(caption: str, header: Iterable[HtmlCell], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A table whose headers sort; rows are (classes, cells as HTML)."""
    head = "".join(cell.render("th", ' scope="col"') for cell in header)
    body = "".join(f'<tr class="{kind}">{"".join(cells)}</tr>' for kind, cells in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def named(content: str, title: str = "") -> str:
    """The cell that names a row; `content` is HTML."""
    return HtmlCell(content, "name", title).render("th", ' scope="row"')


def overview(matrix: Matrix, rows: Sequence[Row], runs: Mapping[str, Run]) -> str:
    """Models by tasks, and score against parameters."""
    columns = default_columns(matrix)
    files = ", ".join(f'<a href="table.{end}" download>{name}</a>' for name, end in DOWNLOADS.items())
    parts = [
        switches(rows),
        models(matrix, rows, columns, runs, "models by tasks", with_average=True),
        f'<p class="note">The table as {files}.</p>',
        *(note(text) for text in legend(rows)),
    ]
    points = [point for row in rows if (point := charts.size_point(row, None)) is not None]
    if points:
        parts += ["<h2>Score against parameters</h2>", _sizes(points)]
        if words := charts.story(points, YARDSTICK):
            parts.append(note(words))
    return "".join(parts)


#: Files of the overview's table by what they are.
DOWNLOADS = {"CSV": "csv", "Markdown": "md", "LaTeX": "tex"}


def switches(rows: Sequence[Row]) -> str:
    """What shows rows that are not shown at first."""
    found = ""
    if any(row.published for row in rows) and any(not row.published for row in rows):
        found += '<label><input type="checkbox" data-shows="published"> published rows</label>'
    if any(not row.current for row in rows):
        found += '<label><input type="checkbox" data-shows="earlier"> earlier checkpoints and weights</label>'
    return f'<p class="switches">{found}</p>' if found else ""


def legend(rows: Sequence[Row]) -> list[str]:
    """What the looks of values mean."""
    words = ["Shaded: the best ranked value of the column. Below each value measured here: its 95% interval."]
    if any(row.published for row in rows):
        words.append("Published rows are printed in papers, not measured here.")
    if any(mark.word == "†" for row in rows for mark in row.marks):
        words.append("† doubtful in print; its tooltip says why.")
    if any(not mark.ranked for row in rows for mark in row.marks):
        words.append("Values in italics are marked and not ranked.")
    return [" ".join(words)]


def models(
    matrix: Matrix,
    rows: Sequence[Row],
    columns: Sequence[Column],
    runs: Mapping[str, Run],
    caption: str,
    with_average: bool = False,
) -> str:
    """A row a model, a column a value; values lead to their samples."""
    best = {column: matrix.best(column, rows) for column in columns}
    with_average = with_average and any(row.average for row in rows)
    header = [HtmlCell("Model", "name")]
    if with_average:
        header.append(HtmlCell("Avg. Score"))
    header += [_heading(matrix, column) for column in columns]
    body = []
    measured = any(not row.published for row in rows)
    for row in rows:
        kinds = ["published" if row.published else "", "" if row.current else "earlier"]
        if measured and (row.published or not row.current):
            kinds.append("away")
        cells = [_name(row)]
        if with_average:
            cells.append(_average(row))
        cells += [_cell(row.cells.get(column), column, best[column], runs) for column in columns]
        body.append((" ".join(filter(None, kinds)), cells))
    return f'<div class="models">{table(caption, header, body)}</div>'


def _heading(matrix: Matrix, column: Column) -> HtmlCell:
    task = matrix.infos[column.task]
    metric = task.metrics.get(column.metric)
    higher = matrix.higher_is_better(column)
    direction = "" if higher else ", lower is better"
    body = f"{escape(task.title, 40)}<small>{escape(column.split, 20)} · {escape(column.metric, 30)}</small>"
    return HtmlCell(body, "" if higher else "low", f"{column}: {metric.unit if metric else ''}{direction}")


def _name(row: Row) -> str:
    size = magnitude(row.parameters)
    words = f"{f'{size} · ' if size else ''}{PUBLISHED if row.published else MEASURED}"
    return named(f"{escape(row.label, 80)}<small>{words}</small>", row.label)


def _average(row: Row) -> str:
    average = row.average
    if average is None:
        return "<td></td>"
    whole = average.whole or row.published
    words = f"<small>{average.measured} of {average.benchmarks} benchmarks</small>"
    return HtmlCell(f"{average.value:.1f}{words}", "" if whole else "unranked").render(
        attributes=f' data-v="{average.value!r}"'
    )


def _cell(cell: Cell | None, column: Column, best: float | None, runs: Mapping[str, Run]) -> str:
    if cell is None:
        return "<td></td>"
    value = cell.text + ("†" if any(mark.word == "†" for mark in cell.marks) else "")
    if cell.run in runs and runs[cell.run].scored:
        value = f'<a href="#samples/{quote(cell.run)}">{value}</a>'
    if cell.low is not None:
        value += f"<small>{interval(cell.low, cell.high, cell.unit)}</small>"
    if words := dict.fromkeys(mark.word for mark in cell.marks if mark.word != "†"):
        value += f'<small class="mark">{escape(", ".join(words), 60)}</small>'
    shaded = cell.ranked and cell.value is not None and cell.value == best
    classes = "best" if shaded else "" if cell.ranked else "unranked"
    where = f"Table {cell.table}" if cell.table.isdigit() else cell.table
    said = [str(column), where and f"{where}, not measured here", "" if cell.table else f"n = {cell.n}"]
    said += [cell.reason, *(f"{mark.word}: {mark.meaning}" for mark in cell.marks)]
    number = "" if cell.value is None else f' data-v="{cell.value!r}"'
    return HtmlCell(value, classes, "; ".join(filter(None, said))).render(attributes=number)


def _sizes(points: Sequence[charts.Point]) -> str:
    front = [[point.parameters, point.value] for point in charts.pareto(points, True)]
    content = {
        "kind": "sizes",
        "y": "Avg. Score",
        "front": front,
        "points": [
            {
                "label": point.label,
                "published": point.published,
                "x": point.parameters,
                "y": point.value,
                "text": f"{point.label}: {point.value:.1f}, {magnitude(point.parameters)} parameters",
            }
            for point in points
        ],
    }
    return chart(content)


def task(matrix: Matrix, name: str, split: str, rows: Sequence[Row], runs: Mapping[str, Run]) -> str:
    """All values of a task on a split, the intervals of its headline, and scores over checkpoints."""
    columns = [column for column in matrix.columns if (column.task, column.split) == (name, split)]
    columns = [c for c in columns if any(c in row.cells for row in rows)]
    fitting = [row for row in rows if any(column in row.cells for column in columns)]
    info = matrix.infos[name]
    usual = next((column for column in columns if column.metric == info.headline), columns[0])
    content = [
        f"<h2>{escape(info.title, 80)} · {escape(split, 40)}</h2>",
        models(matrix, fitting, columns, runs, f"{name}@{split}"),
        f"<h3>{escape(usual.metric, 60)} with 95% intervals</h3>",
        _intervals(matrix, fitting, usual),
    ]
    return f'<article data-name="{escape(f"{name}@{split}")}">{"".join(content)}</article>'


def _intervals(matrix: Matrix, rows: Sequence[Row], column: Column) -> str:
    sign = -1.0 if matrix.higher_is_better(column) else 1.0
    cells = [(row, cell) for row in rows if (cell := row.cells.get(column)) is not None and row.current]
    drawn = sorted(
        ((not cell.ranked, sign * cell.value, row, cell) for row, cell in cells if cell.value is not None),
        key=lambda item: item[:2],
    )
    unit = next((cell.unit for _, cell in cells if cell.unit), "")
    content = [
        {
            "label": row.label[:60],
            "kind": "published" if row.published else "measured",
            "value": cell.value,
            "low": cell.value if cell.low is None else cell.low,
            "high": cell.value if cell.high is None else cell.high,
            "text": f"{row.label[:60]}: {cell.text} {interval(cell.low, cell.high, cell.unit)}",
        }
        for _, _, row, cell in drawn[:_MOST]
    ]
    more = note(f"The best {_MOST} of {len(drawn):,} rows.") if len(drawn) > _MOST else ""
    return chart({"kind": "intervals", "unit": unit, "rows": content}) + more


def run_list(runs: Mapping[str, Run]) -> str:
    """Every run of the export."""
    titles = ("Model", "Task", "Status", "Made", "Samples", "Samples/s", "Signature")
    numbers = ("Samples", "Samples/s")
    header = [HtmlCell(title, "" if title in numbers else "left") for title in titles]
    header[0] = HtmlCell(titles[0], "name")
    rows = []
    for key in sorted(runs, key=lambda key: runs[key].created, reverse=True):
        run = runs[key]
        link = escape(run.model or "unknown", 80)
        if run.scored and run.metrics:
            link = f'<a href="#samples/{quote(key)}">{link}</a>'
        why = "" if run.status == "complete" else run.reason
        cells = [
            HtmlCell(escape(f"{run.task}@{run.split}", 80), "left"),
            HtmlCell(escape(run.status, 30), "left", why if run.status != "broken" else ""),
            HtmlCell(escape(when(run)), "left"),
            HtmlCell(f"{run.counts.get('expected', 0):,}"),
            HtmlCell("" if run.speed is None else f"{run.speed:.3g}"),
            HtmlCell(escape(run.signature, 400), "left sign"),
        ]
        rows.append(("", [named(link, run.model), *(cell.render() for cell in cells)]))
    return table("runs", header, rows)


COMPARE = """<p class="pick"><label>Base <select id="base"></select></label>
<label>New <select id="new"></select></label></p>
<p class="note">Two runs of one task and split, or two models over all tasks that both have. The earlier one
is the base.</p>
<div id="comparison" aria-live="polite"></div><noscript>Comparing takes JavaScript.</noscript>"""
SAMPLES = """<p class="pick"><label>Run <select id="run"></select></label>
<label>Beside <select id="other"></select></label>
<label>Outcome <select id="outcome"></select></label>
<label>Search <input id="words" type="search"></label></p>
<div id="sample" aria-live="polite"></div><div id="list"></div>
<noscript>Samples take JavaScript.</noscript>"""
