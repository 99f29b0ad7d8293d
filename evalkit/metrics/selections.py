"""Questions with several right letters: precision and recall of the letters chosen."""

from __future__ import annotations

from collections.abc import Set

from evalkit.metrics.words import word_lists

_PUNCTUATION = str.maketrans(dict.fromkeys(".,;:!?()[]{}*#/&+|'\"-", " "))


def chosen_letters(text: str, letters: Set[str]) -> frozenset[str]:
    """Letters that an answer names: words made of distinct option letters (`A, C`, `AC`, `A and C`)."""
    chosen: set[str] = set()
    for words in word_lists(text.translate(_PUNCTUATION)):
        for word in words:
            if len(word) <= len(letters) and set(word) <= letters and len(set(word)) == len(word):
                chosen.update(word)
    return frozenset(chosen)


def precision_recall(chosen: Set[str], right: Set[str]) -> tuple[float, float]:
    """|chosen & right| / |chosen| and / |right|; both 0 where nothing was chosen."""
    if not chosen:
        return 0.0, 0.0
    hits = len(chosen & right)
    return hits / len(chosen), hits / len(right)
