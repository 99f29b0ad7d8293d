"""Overview: models by tasks, the paper's rows beside ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import streamlit as st

from evalkit import registry
from evalkit.task import MINIATURE
from evalkit_leaderboard import catalogue, charts, components, exports, settings, state
from evalkit_leaderboard.catalogue import AVERAGE, YARDSTICK
from evalkit_leaderboard.components import escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.folders import remark
from evalkit_leaderboard.matrix import (
    Column,
    Matrix,
    Row,
    default_columns,
    table_columns,
    tables,
)
from evalkit_leaderboard.views import news, overview_table, paper_tables
from evalkit_leaderboard.views.overview_table import Sorting

_ALL, _OFFICIAL, _DRAWN = "All", "Published", "Miniature"
_BOTH = "Both"
_HERE, _EVERY = "measured here", "all"
_SIZES = {"any": None, "≤ 1B": 1.5e9, "≤ 2B": 2.5e9, "≤ 4B": 4.9e9, "≤ 10B": 10e9}


def render(context: Context) -> None:
    """The page."""
    matrix = context.matrix
    st.title("Overview", anchor=False)
    _greeting(context)
    news.render(context)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        baseline = _baseline(context)
        text = state.search("search", "Search models", placeholder="part of a name", width=260)
        with state.folded("Rows", ":material/filter_list:"):
            rows, everything = _rows(matrix, text)
        with state.folded("Columns", ":material/view_column:"):
            columns, averages = _columns(matrix)
        with state.folded("Order", ":material/swap_vert:"):
            chosen = _order(rows, columns, everything)
    found = len(rows)
    averages = averages or with_average(rows)
    rows = [r for r in rows if (averages and r.average) or any(column in r.cells for column in columns)]
    rows = measured_first(ordered(matrix, rows, chosen, everything))
    if not rows:
        components.box("No row fits. Widen the search or the filters above, or choose other columns.")
        return
    blank = f"; {found - len(rows):,} more have none of these columns" if found > len(rows) else ""
    components.note(f"{len(rows):,} of {len(matrix.rows):,} rows, by {chosen.name}{blank}")
    sorting = Sorting(chosen.name, chosen.worst_first)
    overview_table.show(context, rows, columns, baseline, sorting, everything, averages)
    _downloads(exports.Shown(matrix, rows, columns, everything, averages))
    with state.said():
        _plot(matrix, rows, columns)
    _printed()


def _greeting(context: Context) -> None:
    states = [run.status for run in context.runs.values()]
    components.notes(said for root in context.index.roots if (said := remark(root)))
    if not states:
        components.box(
            f"No runs under {context.index.where} yet; below are the paper's rows alone. "
            "Make a first run, it needs no data:",
            "evalkit run -m mini-internvl-tiny -t drivelm --split miniature",
        )
        return
    models = len({run.model for run in context.runs.values() if run.model})
    words = [escape(f"{len(states):,} runs of {models:,} models under {context.index.where}", 600)]
    words += (
        components.link("runs", f"{states.count(word):,} {word}", status=word)
        for word in ("running", "broken")
        if word in states
    )
    st.html(f'<div class="ek-note">{" · ".join(words)}</div>')


def _baseline(context: Context) -> Row | None:
    """The row that all others are compared with: of the address, else the one chosen last."""
    rows = {row.key: row for row in context.matrix.rows if not row.published}
    roots = context.index.roots
    usual = settings.baseline(roots)
    chosen = rows.get(state.current("baseline", usual))
    label = f"Baseline: {state.unmarked(chosen.label if chosen else 'none')}"
    with state.folded(label, ":material/compare_arrows:", key="Baseline"):
        key = state.choose(
            "baseline",
            "Baseline",
            ["", *context.newest],
            usual,
            lambda key: rows[key].label if key else "none",
            lambda key: f"No model {key} is measured under {context.index.where}: it was moved or deleted.",
        )
    settings.set_baseline(roots, key)
    return rows.get(key)


def _columns(matrix: Matrix) -> tuple[list[Column], bool]:
    """The columns that the reader wants, and whether the paper's average is one in any case."""
    measured = any(not row.published for row in matrix.rows)
    titles = catalogue.table_titles()
    sets: dict[str, Callable[[], list[Column]]] = {
        **({_HERE: partial(_measured_here, matrix)} if measured else {}),
        _EVERY: partial(default_columns, matrix, every_task=True),
        **{titles.get(n, f"Table {n}"): partial(table_columns, matrix, n) for n in tables(matrix)},
    }
    order = ("sort", "reverse", "plot")
    name = state.choose("benchmarks", "Benchmarks", list(sets), next(iter(sets)), below=order)
    scope = state.pick("splits", "Splits", [_ALL, _OFFICIAL, _DRAWN], _ALL, below=("columns", *order))
    fitting = [c for c in matrix.columns if scope == _ALL or (c.split == MINIATURE) == (scope == _DRAWN)]
    by_name = {str(column): column for column in fitting}
    chosen_names = state.choose_several(
        "columns", "Columns", list(by_name), below=order, placeholder="those of the benchmarks; choose others"
    )
    chosen = [by_name[name] for name in chosen_names]
    if chosen:
        return chosen, False
    return [column for column in sets[name]() if str(column) in by_name], name != _HERE


def _measured_here(matrix: Matrix) -> list[Column]:
    """The usual columns, without those that only published rows have."""
    return [column for column in default_columns(matrix) if column in matrix.measured]


def _rows(matrix: Matrix, text: str) -> tuple[list[Row], bool]:
    """The rows that the reader wants, and whether marked values are ranked."""
    kind = state.pick("rows", "Rows", [_BOTH, "Measured", "Published"], _BOTH)
    size = state.choose("size", "Parameters", list(_SIZES), "any")
    everything = state.switch("rankall", "Rank incomplete, limited, untrained and non-standard values too")
    hidden = state.switch("rankedonly", "Hide rows without a ranked value")
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
    """How rows are ordered: by `column`, else by what `name` says."""

    name: str
    column: Column | None
    worst_first: bool


def _order(rows: Sequence[Row], columns: Sequence[Column], everything: bool) -> Order:
    by_name: dict[str, Column | None] = {AVERAGE: None, **{str(column): column for column in columns}}
    names = [*by_name, "parameters", "name"]
    name = state.choose("sort", "Sort by", names, _usual_order(rows, columns, everything))
    worst_first = state.switch("reverse", "Worst first")
    return Order(name, by_name.get(name), worst_first)


def _usual_order(rows: Sequence[Row], columns: Sequence[Column], everything: bool) -> str:
    """The average where a row measured here has it, otherwise the first column measured here."""
    measured = [row for row in rows if not row.published]
    if any(row.average for row in measured) or not measured:
        return AVERAGE
    usable = (
        str(column)
        for ranked in (True, False)
        for column in columns
        if any(_value_in(row, column, everything or not ranked) is not None for row in measured)
    )
    return next(usable, AVERAGE)


def _value_in(row: Row, column: Column, everything: bool) -> float | None:
    cell = row.cells.get(column)
    return cell.value if cell is not None and (everything or cell.ranked) else None


def ordered(matrix: Matrix, rows: Sequence[Row], order: Order, everything: bool) -> list[Row]:
    """Rows best first; those without a ranked value last."""
    if order.name == "name":
        return sorted(rows, key=lambda row: row.label.lower(), reverse=order.worst_first)

    def value(row: Row) -> float | None:
        if order.name == "parameters":
            return -row.parameters if row.parameters else None
        if order.column is None:
            return row.average.value if row.average and (row.average.whole or row.published) else None
        found = _value_in(row, order.column, everything)
        return found if found is None or matrix.higher_is_better(order.column) else -found

    with_value = [(cell, row) for row in rows if (cell := value(row)) is not None]
    rest = [row for row in rows if value(row) is None]
    with_value.sort(key=lambda pair: pair[0], reverse=not order.worst_first)
    unranked = sorted(rest, key=lambda row: row.published)
    return [*(row for _, row in with_value), *unranked]


def with_average(rows: Sequence[Row]) -> bool:
    """Whether the paper's average has a column: a row measured here has it, or none is measured here."""
    measured = [row for row in rows if not row.published]
    return any(row.average for row in measured or rows)


def measured_first(rows: Sequence[Row]) -> list[Row]:
    """Rows measured here, then published ones, each in their order."""
    return sorted(rows, key=lambda row: row.published)


def _downloads(shown: exports.Shown) -> None:
    """Files of the table, which are made when they are asked for."""
    files: Mapping[str, tuple[str, str, Callable[[], str]]] = {
        "CSV": ("leaderboard.csv", "text/csv", lambda: exports.to_csv(shown.rows, shown.columns)),
        "Markdown": ("leaderboard.md", "text/markdown", lambda: exports.to_markdown(shown)),
        "LaTeX": ("leaderboard.tex", "text/x-tex", lambda: exports.to_latex(shown)),
    }
    with state.folded("Download", ":material/download:") as opened:
        for label, (name, kind, make) in files.items() if opened else ():
            st.download_button(label, make, name, kind, on_click="ignore")


def _plot(matrix: Matrix, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    st.header("Score against parameters", anchor=False)
    names = [AVERAGE, *map(str, columns)]
    name = state.choose("plot", "Metric", names, AVERAGE)
    column = next((column for column in columns if str(column) == name), None)
    points = [point for row in rows if (point := charts.size_point(row, column)) is not None]
    if not points:
        components.box("No row of the table has both a ranked value of this kind and a number of parameters.")
        return
    higher = column is None or matrix.higher_is_better(column)
    st.altair_chart(charts.sizes(points, name, higher), width="stretch")
    if column is None and (words := charts.story(points, YARDSTICK)):
        components.note(words)


def _printed() -> None:
    """The paper's tables whole, also those that hold no benchmark."""
    tables = {table.title: table for table in registry.published_tables()}
    if not tables:
        return
    with state.folded("The paper's tables as printed", opened=bool(state.given("printed"))) as opened:
        title = state.choose(
            "printed", "Table", list(tables), next(iter(tables)), label_visibility="collapsed"
        )
        if opened:
            paper_tables.show(tables[title], rows_are="Name")
