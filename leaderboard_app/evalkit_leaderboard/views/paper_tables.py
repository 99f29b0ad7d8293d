"""A table of the paper in its own columns, with rows measured here where there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import streamlit as st

from evalkit.suite import PrintedRow, Source, Table
from evalkit.task import PARTS
from evalkit_leaderboard import components
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.marks import Mark, is_ranked
from evalkit_leaderboard.numbers import interval
from evalkit_leaderboard.runs import Run

#: More notes than these are folded away.
_NOTES = 12


@dataclass(frozen=True, slots=True)
class Measurement:
    """A run whose values stand in the table: its key, and the marks of its values."""

    key: str
    run: Run
    marks: Sequence[Mark]


def show(table: Table, measured: Mapping[str, Measurement] | None = None, rows_are: str = "Model") -> None:
    """Rows measured here first; notes below.

    Args:
        measured: by the run that a cell names. rows_are: the first column's heading.
    """
    notes = list(dict.fromkeys([*(row.note for row in table.rows if row.note), *table.notes]))
    header = [
        HtmlCell(rows_are, "ek-name"),
        *(HtmlCell(escape(column), "ek-head") for column in table.columns),
    ]
    rows = []
    for row in sorted(table.rows, key=lambda row: not row.ours):
        number = f" [{notes.index(row.note) + 1}]" if row.note else ""
        sources = row.sources or (None,) * len(row.cells)
        cells = [_name(row, number)]
        cells += [_cell(*pair, measured or {}) for pair in zip(row.cells, sources, strict=True)]
        rows.append(("" if row.ours else "ek-published", cells))
    components.table(header, rows, table.title)
    folded = len(notes) > _NOTES
    with st.expander(f"Notes [1] to [{len(notes)}]") if folded else nullcontext():
        components.notes(f"[{number}] {text}" for number, text in enumerate(notes, 1))


def show_apart(table: Table | None, measured: Mapping[str, Measurement]) -> None:
    """The rows measured here of a table whose values must not be compared with published ones."""
    ours = [row for row in table.rows if row.ours] if table is not None else []
    if table is None or not ours:
        return
    paths = dict.fromkeys(source.run for row in ours for source in row.sources if source is not None)
    marks = [mark for path in paths if path in measured for mark in measured[path].marks]
    whys = dict.fromkeys(f"{mark.word}: {mark.meaning}" for mark in marks)
    components.note(f"Not comparable with the published rows above: {'; '.join(whys)}")
    show(replace(table, title=f"{table.title}, not comparable", rows=tuple(ours), notes=()), measured)


def _name(row: PrintedRow, number: str) -> HtmlCell:
    size = f"{escape(row.size)} · " if row.size else ""
    words = f'<span class="ek-sub">{size}{components.kind(not row.ours)}</span>'
    return HtmlCell(f"{escape(row.label, 80)}{number}{words}", "ek-name", row.label)


def _cell(text: str | None, source: Source | None, measured: Mapping[str, Measurement]) -> HtmlCell:
    """The value as printed; where it was measured here, with its interval and the words it needs."""
    value = f'<span class="ek-value">{"–" if text is None else escape(text, 20)}</span>'
    found = measured.get(source.run) if source is not None else None
    if source is None or found is None:
        return HtmlCell(value)
    parts = [components.link("samples", value, run=found.key)]
    cell = found.run.metrics.get(source.metric)
    if cell is not None and cell.low is not None:
        parts.append(f'<span class="ek-sub">{interval(cell.low, cell.high, cell.unit)}</span>')
    parts += components.words(found.marks)
    style = "" if is_ranked(found.marks) and found.run.split not in PARTS else "ek-unranked"
    why = "; ".join(f"{mark.word}: {mark.meaning}" for mark in found.marks)
    return HtmlCell("".join(parts), style, why)
