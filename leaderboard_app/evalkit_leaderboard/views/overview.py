"""Overview: models by tasks, the paper's rows beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from evalkit.task import MINIATURE
from evalkit_leaderboard import charts, components, exports, state
from evalkit_leaderboard.catalogue import AVERAGE, YARDSTICK
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.matrix import Cell, Column, Matrix, Row, default_columns
from evalkit_leaderboard.numbers import interval, magnitude, shown, signed

#: Rows on one page of the table.
_PAGE = 40
_ALL, _OFFICIAL, _DRAWN = "All", "Published", "Miniature"
_NONE, _BOTH = "none", "Both"
_SIZES = {"any": None, "≤ 1B": 1.5e9, "≤ 2B": 2.5e9, "≤ 4B": 4.9e9, "≤ 10B": 10e9}


def render(context: Context) -> None:
    """The page."""
    matrix = context.matrix
    st.title("Overview", anchor=False)
    _greeting(context)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = state.search("search", "Search models", placeholder="part of a name", width=260)
        with st.popover("Rows", icon=":material/filter_list:"):
            rows, everything = _rows(matrix, text)
        with st.popover("Columns", icon=":material/view_column:"):
            columns = _columns(matrix)
        with st.popover("Order", icon=":material/swap_vert:"):
            chosen = _order(matrix, rows, columns, everything)
    found = len(rows)
    rows = [row for row in rows if row.average or any(column in row.cells for column in columns)]
    rows = ordered(matrix, rows, chosen, everything)
    reference = matrix.row(chosen.reference)
    if not rows:
        components.box("No row fits. Widen the search or the filters above, or choose other columns.")
        return
    blank = f"; {found - len(rows):,} more have none of these columns" if found > len(rows) else ""
    components.note(f"{len(rows):,} of {len(matrix.rows):,} rows, by {chosen.name}{blank}")
    _table(matrix, rows, columns, reference, everything)
    _downloads(rows, columns)
    _plot(matrix, rows, columns)


def _greeting(context: Context) -> None:
    states = [run.status for run in context.runs.values()]
    if not states:
        components.box(
            f"No runs under {context.index.root} yet; below are the paper's rows alone. "
            "Make a first run, it needs no data:",
            "evalkit run -m mini-internvl-tiny -t drivelm --split miniature",
        )
        return
    models = len({run.model for run in context.runs.values() if run.model})
    words = [f"{len(states):,} runs of {models:,} models under {context.index.root}"]
    for word, meaning in (("running", "running"), ("broken", "broken, see Runs")):
        if states.count(word):
            words.append(f"{states.count(word):,} {meaning}")
    components.note(" · ".join(words))


def _columns(matrix: Matrix) -> list[Column]:
    """The columns that the reader wants."""
    scope = state.pick("splits", "Splits", [_ALL, _OFFICIAL, _DRAWN], _ALL)
    fitting = [c for c in matrix.columns if scope == _ALL or (c.split == MINIATURE) == (scope == _DRAWN)]
    by_name = {str(column): column for column in fitting}
    usual = [str(column) for column in default_columns(matrix) if str(column) in by_name]
    names = state.choose_several(
        "columns", "Columns", list(by_name), placeholder="the headline of every task; choose others"
    )
    return [by_name[name] for name in (names or usual)]


def _rows(matrix: Matrix, text: str) -> tuple[list[Row], bool]:
    """The rows that the reader wants, and whether marked figures are ranked."""
    kind = state.pick("rows", "Rows", [_BOTH, "Measured", "Published"], _BOTH)
    size = state.choose("size", "Parameters", list(_SIZES), "any")
    everything = state.switch("rankall", "Rank incomplete, limited, untrained and non-standard figures too")
    hidden = state.switch("rankedonly", "Hide rows without a ranked figure")
    old = state.switch("checkpoints", "Show every checkpoint and all earlier weights")
    limit = _SIZES[size]
    kept = [
        row
        for row in matrix.rows
        if text.lower() in row.label.lower()
        and (kind == _BOTH or row.published == (kind == "Published"))
        and (limit is None or (row.parameters is not None and row.parameters <= limit))
        and (old or row.current)
        and (not hidden or any(cell.ranked for cell in row.cells.values()))
    ]
    return kept, everything


@dataclass(frozen=True, slots=True)
class Order:
    """How rows are ordered (by `column`, else by what `name` says) and the row they are compared with."""

    name: str
    column: Column | None
    worst_first: bool
    reference: str


def _order(matrix: Matrix, rows: Sequence[Row], columns: Sequence[Column], everything: bool) -> Order:
    by_name: dict[str, Column | None] = {AVERAGE: None, **{str(column): column for column in columns}}
    names = [*by_name, "parameters", "name"]
    name = state.choose("sort", "Sort by", names, _usual_order(rows, columns, everything))
    worst_first = state.switch("reverse", "Worst first")
    labels = [_NONE, *dict.fromkeys(row.label for row in matrix.rows)]
    reference = state.choose("reference", "Difference to", labels, _NONE)
    return Order(name, by_name.get(name), worst_first, reference)


def _usual_order(rows: Sequence[Row], columns: Sequence[Column], everything: bool) -> str:
    """The average where a row measured here has it, otherwise the first column measured here."""
    measured = [row for row in rows if not row.published]
    if any(row.average for row in measured) or not measured:
        return AVERAGE
    usable = (
        str(column)
        for ranked in (True, False)
        for column in columns
        if any(_figure(row, column, everything or not ranked) is not None for row in measured)
    )
    return next(usable, AVERAGE)


def _figure(row: Row, column: Column, everything: bool) -> float | None:
    cell = row.cells.get(column)
    return cell.value if cell is not None and (everything or cell.ranked) else None


def ordered(matrix: Matrix, rows: Sequence[Row], order: Order, everything: bool) -> list[Row]:
    """Rows best first; those without a ranked figure last."""
    if order.name == "name":
        return sorted(rows, key=lambda row: row.label.lower(), reverse=order.worst_first)

    def value(row: Row) -> float | None:
        if order.name == "parameters":
            return -row.parameters if row.parameters else None
        if order.column is None:
            return row.average.value if row.average and (row.average.whole or row.published) else None
        figure = _figure(row, order.column, everything)
        return figure if figure is None or matrix.higher_is_better(order.column) else -figure

    with_value = [(figure, row) for row in rows if (figure := value(row)) is not None]
    rest = [row for row in rows if value(row) is None]
    with_value.sort(key=lambda pair: pair[0], reverse=not order.worst_first)
    unranked = sorted(rest, key=lambda row: row.published)
    return [*(row for _, row in with_value), *unranked]


def _table(
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
        header.append(HtmlCell(f'Avg. Score<span class="ek-sub">% of {escape(YARDSTICK)}</span>'))
    header += [_heading(matrix, column) for column in columns]
    page = state.number("page", 1, 1, max(1, -(-len(rows) // _PAGE)))
    shown_rows = rows[(page - 1) * _PAGE : page * _PAGE]
    body = []
    for row in shown_rows:
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
    kind = exports.PUBLISHED if row.published else exports.MEASURED
    label = escape(row.label, 80)
    if not row.published:
        label = components.link("runs", label, search=row.model)
    marks = [mark for mark in row.marks if mark.word != "†"]
    words = f"{f'{size} · ' if size else ''}{kind}"
    return HtmlCell(
        f'{label}<span class="ek-sub">{words}</span>{components.chips(marks[:6])}', "ek-name", row.label
    )


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
    share = f"{100 * average.value / yardstick:.0f}%" if yardstick else ""
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
    value = f'<span class="ek-value">{shown(cell.value, cell.unit)}{dagger}</span>'
    if cell.run:
        value = components.link("samples", value, run=cell.run)
    parts = [value]
    if cell.low is not None:
        parts.append(f'<span class="ek-sub">{interval(cell.low, cell.high, cell.unit)}</span>')
    if other is not None and other.value is not None and cell.value is not None:
        parts.append(f'<span class="ek-sub">Δ {signed(cell.value - other.value, cell.unit)}</span>')
    ranked = everything or cell.ranked
    classes = "" if ranked else "ek-unranked"
    if ranked and cell.value is not None and cell.value == best:
        classes = "ek-best"
    return HtmlCell("".join(parts), classes, _explained(cell, column))


def _explained(cell: Cell, column: Column) -> str:
    where = f"Table {cell.table} of the paper, not measured here" if cell.table else f"n = {cell.n}"
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
        "Shaded: the best ranked figure of the column. Below each figure measured here: its 95% interval.",
        "Rows on a sand ground are printed in the Mini-InternVL paper (arXiv 2410.16261), not measured here.",
    ]
    if any(mark.word == "†" for row in rows for mark in row.marks):
        words.append("† doubtful in print; its tooltip says why.")
    if any(not mark.ranked for row in rows for mark in row.marks):
        words.append("Figures in italics are marked and not ranked.")
    if reference is not None:
        words.append(f"Δ: difference to {reference.label}.")
    components.note(" ".join(words))


def _downloads(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    files: Mapping[str, tuple[str, str, str]] = {
        "CSV": ("leaderboard.csv", "text/csv", exports.to_csv(rows, columns)),
        "Markdown": ("leaderboard.md", "text/markdown", exports.to_markdown(rows, columns)),
        "LaTeX": ("leaderboard.tex", "text/x-tex", exports.to_latex(rows, columns)),
    }
    with st.container(horizontal=True):
        for label, (name, kind, content) in files.items():
            st.download_button(label, content, name, kind, icon=":material/download:", on_click="ignore")


def _plot(matrix: Matrix, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    st.subheader("Score against parameters", anchor=False)
    names = [AVERAGE, *map(str, columns)]
    name = state.choose("plot", "Figure", names, AVERAGE)
    column = next((column for column in columns if str(column) == name), None)
    points = [point for row in rows if (point := charts.size_point(row, column)) is not None]
    if not points:
        components.box(
            "No row of the table has both a ranked figure of this kind and a number of parameters."
        )
        return
    higher = column is None or matrix.higher_is_better(column)
    st.altair_chart(charts.sizes(points, name, higher), width="stretch")
    if column is None and (words := charts.story(points, YARDSTICK)):
        components.note(words)
