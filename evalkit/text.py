"""Text for people: numbers, tables, and answers made safe to show (they may hold terminal commands)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# C0 and C1 controls but tab and newline, bidirectional overrides, zero-width marks, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def command(*words: object) -> str:
    """A command of evalkit, quoted so that it can be pasted into a shell."""
    return shlex.join(("evalkit", *map(str, words)))


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `11th`."""
    last = 0 if number % 100 in (11, 12, 13) else number % 10
    return f"{number}" + {1: "st", 2: "nd", 3: "rd"}.get(last, "th")


def names_nothing(name: str) -> bool:
    """Whether a name is how a missing value is written."""
    return name.strip().lower() in ("", "nan", "none", "null", "<na>")


def visible(text: str) -> str:
    """The text with every character that could steer a terminal written as its escape; lines are kept."""
    return _UNSAFE.sub(lambda match: _escape(match.group()), text)


def one_line(text: str, width: int = 0) -> str:
    """`visible` on one line, cut to `width` characters (0: not cut)."""
    line = visible(text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", " "))
    return f"{line[: width - 1]}…" if 0 < width < len(line) else line


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def value_text(value: float | None, unit: str = "") -> str:
    """A metric's value: four decimals for fractions, two otherwise, three digits where those would say 0."""
    if value is None:
        return "-"
    decimals = 4 if unit == "fraction" else 2
    if value and abs(value) < 10**-decimals:
        return f"{value:.3g}"
    return f"{value:.{decimals}f}"


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Aligned columns, the first row being the header; columns in `right` are set to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
