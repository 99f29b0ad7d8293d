"""A table of the paper in its own columns, with rows measured here where there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import streamlit as st

from evalkit.suite import PrintedRow, Table
from evalkit_leaderboard import components
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.marks import Mark, is_ranked

#: More notes than these are folded away.
_NOTES = 12


def show(table: Table, marks: Mapping[str, Sequence[Mark]] | None = None, rows_are: str = "Model") -> None:
    """Rows measured here first, with the marks of each label; notes below.

    Rows that must not be compared with the published ones stand in a table of their own, below.

    Args:
        rows_are: the first column's heading.
    """
    notes = list(dict.fromkeys([*(row.note for row in table.rows if row.note), *table.notes]))
    header = [
        HtmlCell(rows_are, "ek-name"),
        *(HtmlCell(escape(column), "ek-head") for column in table.columns),
    ]
    rows, apart = list[tuple[str, list[HtmlCell]]](), list[tuple[str, list[HtmlCell]]]()
    for row in sorted(table.rows, key=lambda row: not row.ours):
        mine = (marks or {}).get(row.label, ()) if row.ours else ()
        number = f" [{notes.index(row.note) + 1}]" if row.note else ""
        style = "" if is_ranked(mine) else "ek-unranked"
        cells = [_name(row, number, mine)]
        cells += [
            HtmlCell(f'<span class="ek-value">{"–" if cell is None else escape(cell, 20)}</span>', style)
            for cell in row.cells
        ]
        (apart if row.apart else rows).append(("" if row.ours else "ek-published", cells))
    components.table(header, rows, table.title)
    if apart:
        whys = "; ".join(dict.fromkeys(row.apart for row in table.rows if row.apart))
        components.note(f"Not comparable with the published rows above: {whys}")
        components.table(header, apart, f"{table.title}, not comparable")
    folded = len(notes) > _NOTES
    with st.expander(f"Notes [1] to [{len(notes)}]") if folded else nullcontext():
        components.notes(f"[{number}] {text}" for number, text in enumerate(notes, 1))


def _name(row: PrintedRow, number: str, marks: Sequence[Mark]) -> HtmlCell:
    size = f"{escape(row.size)} · " if row.size else ""
    words = f'<span class="ek-sub">{size}{components.kind(not row.ours)}</span>'
    return HtmlCell(f"{escape(row.label, 80)}{number}{words}{components.chips(marks)}", "ek-name", row.label)
