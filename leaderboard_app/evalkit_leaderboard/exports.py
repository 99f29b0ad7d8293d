"""The matrix as files: CSV with everything, Markdown and LaTeX as it is shown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from evalkit.text import one_line
from evalkit_leaderboard.matrix import Cell, Column, Row
from evalkit_leaderboard.numbers import magnitude

PUBLISHED, MEASURED = "published, not measured here", "measured here"

_MARKDOWN = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_{}[]()#+!|~"}
    | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
)
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "^": r"\^{}",
        "~": r"\~{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "†": r"\dag{}",
    }
)


def to_csv(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A line a row; for every column the value at full precision, its interval, n and marks."""
    out = io.StringIO()
    writer = csv.writer(out)
    parts = ("", " low", " high", " n", " marks")
    names = [f"{column}{part}" for column in columns for part in parts]
    writer.writerow(["model", "kind", "parameters", "average", *names])
    for row in rows:
        cells = [row.cells.get(column) for column in columns]
        line: list[object] = [_harmless(row.label), _kind(row, columns), row.parameters or ""]
        line.append(row.average.value if row.average else "")
        for cell in cells:
            line += _values(cell)
        writer.writerow(line)
    return out.getvalue()


def _values(cell: Cell | None) -> list[object]:
    if cell is None:
        return [""] * 5
    words = "; ".join(f"{mark.word}: {mark.meaning}" for mark in cell.marks)
    numbers = [cell.value, cell.low, cell.high, cell.n or None]
    return [*("" if number is None else number for number in numbers), _harmless(words)]


def _harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    line = one_line(text)
    return f"'{line}" if line.startswith(("=", "+", "-", "@", "\t")) else line


def to_markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A table; marked values carry their words."""
    lines = [["model", "", "parameters", *map(str, columns)]]
    lines.append(["---", "---", "---:", *("---:" for _ in columns)])
    lines += [
        [
            row.label,
            _kind(row, columns),
            magnitude(row.parameters),
            *(_cell(row.cells.get(column)) for column in columns),
        ]
        for row in rows
    ]
    escaped = (
        line if place == 1 else [one_line(text).translate(_MARKDOWN) for text in line]
        for place, line in enumerate(lines)
    )
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def to_latex(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A tabular for the package booktabs."""
    lines = [rf"\begin{{tabular}}{{ll{'r' * (len(columns) + 1)}}}", r"\toprule"]
    lines += [_latex_row(["model", "", "parameters", *map(str, columns)]), r"\midrule"]
    lines += [
        _latex_row(
            [
                row.label,
                _kind(row, columns),
                magnitude(row.parameters),
                *(_cell(row.cells.get(c)) for c in columns),
            ]
        )
        for row in rows
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(one_line(text).translate(_LATEX) for text in texts) + r" \\"


def _kind(row: Row, columns: Sequence[Column]) -> str:
    if row.published:
        return PUBLISHED
    return f"{MEASURED}, not comparable with published rows" if row.apart(columns) else MEASURED


def _cell(cell: Cell | None) -> str:
    if cell is None or cell.value is None:
        return "–"
    words = ", ".join(mark.word for mark in cell.marks)
    return f"{cell.text}{f' ({words})' if words else ''}"
