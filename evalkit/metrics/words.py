"""Words of a text in bounded memory: an answer of a hundred megabytes costs seconds, not the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator

_PIECE = 1 << 20
_SPACE = re.compile(r"\s")


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
