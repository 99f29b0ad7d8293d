"""Suites: several tasks run together, and the table of their results."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evalkit.contracts import Json

#: A run's summary, as in `summary.json`.
Summary = Mapping[str, Json]


class Target(NamedTuple):
    """What one run measures: a task and its split (None: the default split)."""

    task: str
    split: str | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """From `task` or `task@split`."""
        task, _, split = text.partition("@")
        return cls(task, split or None)


class Source(NamedTuple):
    """Where a cell's value was measured: the run, as its summary names it, and the metric."""

    run: str
    metric: str


@dataclass(frozen=True, slots=True)
class PrintedRow:
    """A row of a table: what was measured, and a cell for each column (None: blank).

    Attributes:
        ours: whether it was measured here and not taken from a publication.
        apart: why it must not be compared with the published rows (an excerpt, drawn questions); it is then
            set apart from them.
        note: what a reader must know of the row.
        sources: of the cells of a row measured here, None for a blank and for what is computed from others.
    """

    label: str
    size: str
    cells: tuple[str | None, ...]
    ours: bool = False
    note: str = ""
    apart: str = ""
    sources: tuple[Source | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table ready to print."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[PrintedRow, ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Aligned plain text; rows measured here are marked `>`, notes follow as `[n]`.

        Rows that must not be compared with the published ones stand last, below a line that says so.
        """
        notes = list(dict.fromkeys([*(row.note for row in self.rows if row.note), *self.notes]))
        lines = [["", "model", "size", *self.columns]]
        rows = sorted(self.rows, key=lambda row: bool(row.apart))
        for row in rows:
            mark = f" [{notes.index(row.note) + 1}]" if row.note else ""
            cells = ("-" if cell is None else cell for cell in row.cells)
            lines.append([">" if row.ours else "", row.label + mark, row.size, *cells])
        widths = [max(_width(line[i]) for line in lines) for i in range(len(lines[0]))]
        body = ["  ".join(_padded(line, widths)).rstrip() for line in lines]
        rule = "-" * max(_width(line) for line in body)
        if apart := sum(bool(row.apart) for row in rows):
            whys = "; ".join(dict.fromkeys(row.apart for row in rows if row.apart))
            body[-apart:-apart] = [rule, f"NOT COMPARABLE with the rows above: {whys}"]
        body.insert(1, rule)
        return "\n".join([self.title, *body, *(f"[{i}] {note}" for i, note in enumerate(notes, 1))])


@dataclass(frozen=True, slots=True)
class Suite:
    """Tasks run together.

    Attributes:
        members: `task` or `task@split`.
        table: makes the suite's table from the summaries of finished runs (of any models, in any order;
            those of other tasks are ignored), or None if the suite has no table.
    """

    name: str
    members: tuple[str, ...]
    table: Callable[[Sequence[Summary]], Table] | None = None

    def targets(self) -> tuple[Target, ...]:
        """What to run."""
        return tuple(Target.parse(member) for member in self.members)


def _width(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names to the left, values to the right."""
    pairs = list(zip(line, widths, strict=True))
    blanks = [" " * (width - _width(text)) for text, width in pairs]
    return [
        text + blank if i < 2 else blank + text
        for i, (text, blank) in enumerate(zip(line, blanks, strict=True))
    ]
