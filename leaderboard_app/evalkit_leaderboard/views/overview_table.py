"""The overview's table: a row a model, a column a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

from evalkit.task import PARTS
from evalkit_leaderboard import components, state
from evalkit_leaderboard.catalogue import YARDSTICK
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.marks import Mark
from evalkit_leaderboard.matrix import Cell, Column, Matrix, Row
from evalkit_leaderboard.numbers import interval, magnitude, signed

#: Rows on one page of the table.
_PAGE = 40


def show(
    matrix: Matrix,
    rows: Sequence[Row],
    columns: Sequence[Column],
    reference: Row | None,
    everything: bool,
) -> None:
    best = {column: matrix.best(column, rows, everything) for column in columns}
    yardstick = next((row.average for row in matrix.rows if row.label == YARDSTICK), None)
    with_average = any(row.average for row in rows)
    header = [HtmlCell("Model", "ek-name")]
    if with_average:
        header.append(HtmlCell(f'Avg. Score<span class="ek-sub ek-wrap">% of {escape(YARDSTICK)}</span>'))
    header += [_heading(matrix, column) for column in columns]
    page = state.number("page", 1, 1, max(1, -(-len(rows) // _PAGE)))
    shown_rows = rows[(page - 1) * _PAGE : page * _PAGE]
    body = []
    line = _line(rows, columns)
    for place, row in enumerate(shown_rows, (page - 1) * _PAGE):
        if line is not None and place == line.place:
            body.append(("ek-apart", [HtmlCell(escape(line.text, 600), "ek-name", line.text)]))
        cells = [_name(row)]
        if with_average:
            cells.append(_average(row, yardstick.value if yardstick else None))
        for column in columns:
            other = reference.cells.get(column) if reference and reference is not row else None
            cells.append(_cell(row.cells.get(column), column, best[column], other, everything))
        body.append(("ek-published" if row.published else "", cells))
    components.table(header, body, "models by tasks")
    _pages(page, len(rows))
    _legend(rows, reference)


class _Line(NamedTuple):
    """What stands before the row at `place`: why the rows above it are no match for those below."""

    place: int
    text: str


def _line(rows: Sequence[Row], columns: Sequence[Column]) -> _Line | None:
    """The line between rows that stand apart and published ones; None where there are not both."""
    apart = [row for row in rows if row.apart(columns)]
    if not apart or not any(row.published for row in rows):
        return None
    marks = (
        mark for row in apart for column in columns if column in row.cells for mark in row.cells[column].marks
    )
    why = "; ".join(dict.fromkeys(f"{mark.word}: {mark.meaning}" for mark in marks if _of_part(mark)))
    return _Line(len(apart), f"Published rows. Not comparable with the rows above ({why or 'not ranked'})")


def _of_part(mark: Mark) -> bool:
    return not mark.ranked or mark.word in PARTS


def _heading(matrix: Matrix, column: Column) -> HtmlCell:
    task = matrix.infos[column.task]
    metric = task.metrics.get(column.metric)
    unit = metric.unit if metric else ""
    direction = "" if matrix.higher_is_better(column) else ", lower is better"
    name = components.link("task", escape(task.title, 40), task=column.task, split=column.split)
    body = f'{name}<span class="ek-sub">{escape(column.split, 20)} · {escape(column.metric, 30)}</span>'
    return HtmlCell(body, title=f"{column}: {unit}{direction}")


def _name(row: Row) -> HtmlCell:
    size = magnitude(row.parameters)
    label = escape(row.label, 80)
    if not row.published:
        label = components.link("runs", label, search=row.model)
    words = f"{f'{size} · ' if size else ''}{components.kind(row.published)}"
    return HtmlCell(f'{label}<span class="ek-sub">{words}</span>', "ek-name", row.label)


def _average(row: Row, yardstick: float | None) -> HtmlCell:
    if row.average is None:
        return HtmlCell("")
    average = row.average
    if not average.whole and not row.published:
        words = f"{average.measured} of {average.benchmarks} benchmarks"
        return HtmlCell(
            f'<span class="ek-value">{average.value:.1f}</span><span class="ek-sub">{words}</span>',
            "ek-unranked",
            "the average of what was measured; not to be set beside whole ones",
        )
    share = f"{100 * average.value / yardstick:.1f}%" if yardstick else ""
    return HtmlCell(
        f'<span class="ek-value">{average.value:.1f}</span><span class="ek-sub">{share}</span>',
        title=f"over {average.measured} of {average.benchmarks} benchmarks",
    )


def _cell(
    cell: Cell | None, column: Column, best: float | None, other: Cell | None, everything: bool
) -> HtmlCell:
    if cell is None:
        return HtmlCell("")
    dagger = "".join(mark.word for mark in cell.marks if mark.word == "†")
    value = f'<span class="ek-value">{cell.text}{dagger}</span>'
    if cell.run:
        value = components.link("samples", value, run=cell.run)
    parts = [value]
    if cell.low is not None:
        parts.append(f'<span class="ek-sub">{interval(cell.low, cell.high, cell.unit)}</span>')
    if other is not None and other.value is not None and cell.value is not None:
        parts.append(f'<span class="ek-sub">Δ {signed(cell.value - other.value, cell.unit)}</span>')
    parts += components.words(cell.marks)
    ranked = everything or cell.ranked
    classes = "" if ranked else "ek-unranked"
    if ranked and cell.value is not None and cell.value == best:
        classes = "ek-best"
    return HtmlCell("".join(parts), classes, _explained(cell, column))


def _explained(cell: Cell, column: Column) -> str:
    source = f"Table {cell.table} of the paper" if cell.table.isdigit() else cell.table
    where = f"{source}, not measured here" if cell.table else f"n = {cell.n}"
    return "; ".join(
        filter(None, [str(column), where, cell.reason, *(f"{m.word}: {m.meaning}" for m in cell.marks)])
    )


def _pages(page: int, count: int) -> None:
    pages = -(-count // _PAGE)
    if pages < 2:
        return
    before, text, after = st.columns([1, 2, 1], vertical_alignment="center")
    if before.button("Previous rows", disabled=page == 1, width="stretch"):
        state.set_number("page", page - 1, 1)
        st.rerun()
    with text:
        components.note(f"rows {(page - 1) * _PAGE + 1} to {min(page * _PAGE, count)} of {count:,}")
    if after.button("Next rows", disabled=page == pages, width="stretch"):
        state.set_number("page", page + 1, 1)
        st.rerun()


def _legend(rows: Sequence[Row], reference: Row | None) -> None:
    words = [
        "Shaded: the best ranked value of the column. Below each value measured here: its 95% interval.",
        "Rows on a sand ground are printed in the Mini-InternVL paper (arXiv 2410.16261), not measured here.",
    ]
    if any(mark.word == "†" for row in rows for mark in row.marks):
        words.append("† doubtful in print; its tooltip says why.")
    if any(not mark.ranked for row in rows for mark in row.marks):
        words.append("Values in italics are marked and not ranked.")
    if reference is not None:
        words.append(f"Δ: difference to {reference.label}.")
    components.note(" ".join(words))
