"""The overview's table: a row a model, a column a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import streamlit as st

from evalkit.task import PARTS
from evalkit_leaderboard import comparing, components, headers, state
from evalkit_leaderboard.catalogue import AVERAGE, YARDSTICK
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.marks import Mark
from evalkit_leaderboard.matrix import Cell, Column, Matrix, Row
from evalkit_leaderboard.numbers import interval, magnitude, signed
from evalkit_leaderboard.verdicts import Changes

#: Rows on one page of the table.
_PAGE = 40
#: Names in the line above the published rows.
_NAMED = 4


class Sorting(NamedTuple):
    """What the rows are sorted by, as the address has it, and whether the worst stand first."""

    name: str
    worst_first: bool


def show(
    context: Context,
    rows: Sequence[Row],
    columns: Sequence[Column],
    baseline: Row | None,
    sorting: Sorting,
    everything: bool,
    with_average: bool,
) -> None:
    matrix = context.matrix
    best = {column: matrix.best(column, rows, everything) for column in columns}
    yardstick = next((row.average for row in matrix.rows if row.label == YARDSTICK), None)
    header = [_sorted(HtmlCell(_button("Model", "name"), "ek-name"), "name", sorting)]
    if with_average:
        body = f'{_button(AVERAGE, AVERAGE)}<span class="ek-sub ek-wrap">% of {escape(YARDSTICK)}</span>'
        header.append(_sorted(HtmlCell(body), AVERAGE, sorting))
    header += [_sorted(_heading(matrix, column), str(column), sorting) for column in columns]
    page = state.number("page", 1, 1, max(1, -(-len(rows) // _PAGE)))
    shown_rows = rows[(page - 1) * _PAGE : page * _PAGE]
    lines = []
    line = _line(rows, columns)
    for place, row in enumerate(shown_rows, (page - 1) * _PAGE):
        if line is not None and place == line.place:
            lines.append(("ek-apart", [HtmlCell(escape(line.text, 900), "ek-name", line.text)]))
        cells = [_name(row, row is baseline)]
        if with_average:
            cells.append(_average(row, yardstick.value if yardstick else None))
        changes = _changes(context, baseline, row)
        for column in columns:
            change = _change(changes, column, row, baseline)
            cells.append(_cell(row.cells.get(column), column, best[column], change, everything))
        lines.append(("ek-published" if row.published else "", cells))
    components.table(header, lines, "models by tasks")
    headers.listen(sorting.name)
    _pages(page, len(rows))
    _legend(shown_rows, baseline)


def _button(text: str, name: str) -> str:
    """A column's name that sorts by it when it is pressed."""
    return f'<button type="button" class="ek-sort" data-sort="{escape(name)}">{escape(text, 40)}</button>'


def _sorted(cell: HtmlCell, name: str, sorting: Sorting) -> HtmlCell:
    if name != sorting.name:
        return cell
    first = "descending" if name == "name" or not sorting.worst_first else "ascending"
    return replace(cell, attributes=f' aria-sort="{first}"', classes=f"{cell.classes} ek-sorted".strip())


def _changes(context: Context, baseline: Row | None, row: Row) -> Changes | None:
    """What the comparison with the baseline says, empty where there is none to make; None: not yet."""
    if baseline is None or baseline is row or row.published:
        return {}
    base, new = context.side(baseline), context.side(row)
    return context.verdicts.of(base, new) if comparing.shared(base, new) else {}


def _change(changes: Changes | None, column: Column, row: Row, baseline: Row | None) -> str:
    """The line of a cell that says how it changed from the baseline, with the verdict."""
    cell, other = row.cells.get(column), baseline.cells.get(column) if baseline else None
    if cell is None or other is None or baseline is row or cell.value is None:
        return ""
    if row.published:
        if other.value is None:
            return ""
        return f'<span class="ek-sub">Δ {signed(cell.value - other.value, cell.unit)}, not tested</span>'
    if changes is None:
        return '<span class="ek-sub">being compared …</span>'
    if (found := changes.get(str(column))) is not None:
        kind = {"improved": "ek-good", "regressed": "ek-bad"}.get(found.verdict, "")
        words = f"{signed(found.difference, cell.unit)} {found.verdict.replace('_', ' ')}"
        return f'<span class="ek-sub {kind}">{escape(words, 60)}</span>'
    refused = changes.get(f"{column.task}@{column.split}")
    if refused is None:
        return ""
    return f'<span class="ek-sub" title="{escape(refused.refused, 300)}">not comparable</span>'


class _Line(NamedTuple):
    """What stands before the row at `place`, the first published one."""

    place: int
    text: str


def _line(rows: Sequence[Row], columns: Sequence[Column]) -> _Line | None:
    """The line between rows measured here and published ones; None where there are not both."""
    ours = [row for row in rows if not row.published]
    if not ours or len(ours) == len(rows):
        return None
    apart = [row for row in ours if row.apart(columns)]
    marks = (
        mark for row in apart for column in columns if column in row.cells for mark in row.cells[column].marks
    )
    why = "; ".join(dict.fromkeys(f"{mark.word}: {mark.meaning}" for mark in marks if _of_part(mark)))
    names = ", ".join(row.label for row in apart[:_NAMED]) + (" and others" if len(apart) > _NAMED else "")
    who = "the rows above" if len(apart) == len(ours) else names
    words = f" Not comparable with {who} ({why or 'not ranked'})" if apart else ""
    return _Line(len(ours), f"Published rows, not measured here.{words}")


def _of_part(mark: Mark) -> bool:
    return not mark.ranked or mark.word in PARTS


def _heading(matrix: Matrix, column: Column) -> HtmlCell:
    task = matrix.infos[column.task]
    metric = task.metrics.get(column.metric)
    unit = metric.unit if metric else ""
    direction = "" if matrix.higher_is_better(column) else ", lower is better"
    words = f"{escape(column.split, 20)} · {escape(column.metric, 30)}"
    more = components.link("task", words, task=column.task, split=column.split)
    body = f'{_button(task.title, str(column))}<span class="ek-sub">{more}</span>'
    return HtmlCell(body, title=f"{column}: {unit}{direction}")


def _name(row: Row, is_baseline: bool) -> HtmlCell:
    size = magnitude(row.parameters)
    label = escape(row.label, 80)
    if not row.published:
        label = components.link("runs", label, search=row.model)
    words = f"{f'{size} · ' if size else ''}{components.kind(row.published)}"
    words += " · baseline" if is_baseline else ""
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


def _cell(cell: Cell | None, column: Column, best: float | None, change: str, everything: bool) -> HtmlCell:
    if cell is None:
        return HtmlCell("")
    dagger = "".join(mark.word for mark in cell.marks if mark.word == "†")
    value = f'<span class="ek-value">{cell.text}{dagger}</span>'
    if cell.run:
        value = components.link("samples", value, run=cell.run)
    parts = [value]
    if cell.low is not None:
        parts.append(f'<span class="ek-sub">{interval(cell.low, cell.high, cell.unit)}</span>')
    parts.append(change)
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


def _legend(rows: Sequence[Row], baseline: Row | None) -> None:
    words = [
        "Shaded: the best ranked value of the column. Below each value measured here: its 95% interval.",
        "Rows on a sand ground are printed in the Mini-InternVL paper (arXiv 2410.16261), not measured here.",
    ]
    if any(mark.word == "†" for row in rows for mark in row.marks):
        words.append("† doubtful in print; its tooltip says why.")
    if any(not mark.ranked for row in rows for mark in row.marks):
        words.append("Values in italics are marked and not ranked.")
    if baseline is not None:
        words.append(
            f"Changes and verdicts: what `evalkit compare` says of {baseline.label} and the row, over all "
            "tasks that both have."
        )
    components.note(" ".join(words))
