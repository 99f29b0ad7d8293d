"""The matrix as files: CSV with everything, Markdown and LaTeX as it is shown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from evalkit.text import one_line
from evalkit_leaderboard.catalogue import AVERAGE, Average
from evalkit_leaderboard.headings import headings
from evalkit_leaderboard.matrix import Cell, Column, Matrix, Row
from evalkit_leaderboard.numbers import interval, magnitude

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
        "[": "{[}",  # after \\ it would begin an argument
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "^": r"\^{}",
        "~": r"\~{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "†": r"\dag{}",
        "–": "--",
        "−": "$-$",
        "·": r"\textperiodcentered{}",
        "≤": r"$\leq$",
        "…": r"\ldots{}",
    }
)
#: Letters beyond ASCII that every TeX font has.
_LATIN = frozenset(map(chr, range(0xC0, 0x100))) - frozenset("ÐðÞþ×÷")


def to_csv(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A line a row; for every column the value at full precision, its interval, n and marks."""
    out = io.StringIO()
    writer = csv.writer(out)
    parts = ("", " low", " high", " n", " marks")
    names = [f"{column}{part}" for column in columns for part in parts]
    writer.writerow(["model", "kind", "parameters", "average", "average over", *names])
    for row in rows:
        cells = [row.cells.get(column) for column in columns]
        line: list[object] = [_harmless(row.label), _kind(row, columns), row.parameters or ""]
        line += [row.average.value, _over(row.average)] if row.average else ["", ""]
        for cell in cells:
            line += _values(cell)
        writer.writerow(line)
    return out.getvalue()


def _over(average: Average) -> str:
    return f"{average.measured} of {average.benchmarks}"


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


class Shown(NamedTuple):
    """A table as it is shown: `everything` ranks marked values too, `averages` adds the paper's average."""

    matrix: Matrix
    rows: Sequence[Row]
    columns: Sequence[Column]
    everything: bool = False
    averages: bool = True


class _Text(NamedTuple):
    """A cell as it is shown: its value, what stands smaller beside it, and whether it is the best."""

    value: str
    beside: str = ""
    best: bool = False


def _lines(table: Shown) -> Iterator[list[_Text]]:
    """The header, then the rows."""
    matrix, rows, columns, everything, _ = table
    average = table.averages and any(row.average for row in rows)
    names = ["model", "", "parameters", *([AVERAGE] if average else []), *headings(columns, matrix.infos)]
    yield [_Text(name) for name in names]
    best = {column: matrix.best(column, rows, everything) for column in columns}
    for row in rows:
        line = [_Text(row.label), _Text(_kind(row, columns)), _Text(magnitude(row.parameters))]
        if average:
            line.append(_average(row))
        yield line + [_cell(row.cells.get(column), best[column], everything) for column in columns]


def _average(row: Row) -> _Text:
    if row.average is None:
        return _Text("–")
    whole = row.published or row.average.whole
    return _Text(f"{row.average.value:.1f}", "" if whole else f"({_over(row.average)})")


def _cell(cell: Cell | None, best: float | None, everything: bool) -> _Text:
    if cell is None or cell.value is None:
        return _Text("–")
    words = ", ".join(mark.word for mark in cell.marks)
    beside = (interval(cell.low, cell.high, cell.unit), f"({words})" if words else "")
    ranked = everything or cell.ranked
    return _Text(cell.text, " ".join(filter(None, beside)), ranked and cell.value == best)


def _kind(row: Row, columns: Sequence[Column]) -> str:
    if row.published:
        return PUBLISHED
    return f"{MEASURED}, not comparable with published rows" if row.apart(columns) else MEASURED


def to_markdown(table: Shown) -> str:
    """The table with intervals; the best of a column in bold, marked values with their words."""

    def escaped(text: str) -> str:
        return one_line(text).translate(_MARKDOWN)

    def shown(cell: _Text) -> str:
        value = f"**{escaped(cell.value)}**" if cell.best else escaped(cell.value)
        return f"{value} {escaped(cell.beside)}" if cell.beside else value

    header, *body = ([shown(cell) for cell in line] for line in _lines(table))
    rule = ["---", "---", *("---:" for _ in header[2:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *body))


def to_latex(table: Shown) -> str:
    """The same as a tabular for the package booktabs, with a rule between measured and published rows."""
    header, *body = _lines(table)
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}"]
    lines += [r"\toprule", _latex_row(header), r"\midrule"]
    for place, (row, line) in enumerate(zip(table.rows, body, strict=True)):
        if place and row.published != table.rows[place - 1].published:
            lines.append(r"\midrule")
        lines.append(_latex_row(line))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_row(cells: Sequence[_Text]) -> str:
    found = []
    for cell in cells:
        value = rf"\textbf{{{_latex(cell.value)}}}" if cell.best else _latex(cell.value)
        found.append(rf"{value} {{\scriptsize {_latex(cell.beside)}}}" if cell.beside else value)
    return " & ".join(found) + r" \\"


def _latex(text: str) -> str:
    """The text on a line for any TeX engine with its usual fonts: what those lack is written as `U+4E2D`."""
    return "".join(
        _LATEX.get(ord(letter))
        or (letter if letter.isascii() or letter in _LATIN else f"U+{ord(letter):04X}")
        for letter in one_line(text)
    )
