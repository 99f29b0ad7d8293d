"""Foreign text made safe to show or to split: a model's answer may hold anything, of any length."""

from __future__ import annotations

import re
from collections.abc import Iterator

# C0 and C1 controls but tab and newline, bidirectional overrides, zero-width marks, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
#: Characters split at a time: an answer of a hundred megabytes costs seconds, not the machine's memory.
_PIECE = 1 << 20
_SPACE = re.compile(r"\s")


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


def word_lists(text: str, piece: int = _PIECE) -> Iterator[list[str]]:
    """`text.split()` in consecutive lists: their concatenation is exactly that list.

    Pieces are cut at white space, about `piece` characters each, so that no list of all words is ever held.
    """
    start = 0
    while start < len(text):
        cut = _SPACE.search(text, start + piece) if start + piece < len(text) else None
        end = cut.start() if cut else len(text)
        if words := text[start:end].split():
            yield words
        start = end


def collapse_spaces(text: str) -> str:
    """`" ".join(text.split())`."""
    return " ".join(" ".join(words) for words in word_lists(text))
