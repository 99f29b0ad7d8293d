"""The parser of MMMU's own evaluation (Yue et al. 2023): options and open answers in free text.

Where the published code draws a random option, ours finds none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from evalkit.metrics.multiple_choice import Options

_OUTER = (",", ".", "!", "?", ";", ":", "'")
_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = {":", ",", ".", "!", "?", ";", "'"}
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
#: Numbers are looked for in so many characters of a phrase; the patterns' time grows with the square.
_NUMBER_LIMIT = 4096


def mmmu_choice(text: str, options: Options) -> str | None:
    """The option that the answer names last: "(B)", else " B ", else, beyond five words, its text."""
    for mark in _OUTER:
        text = text.strip(mark)
    text = f" {text} "
    for form in ("({})", " {} "):
        places = {letter: text.rfind(form.format(letter)) for letter in options}
        if max(places.values()) >= 0:
            return max(places, key=places.__getitem__)
    if len(text.split(None, 5)) <= 5:
        return None
    text = text.lower()
    places = {letter: text.rfind(option.lower()) for letter, option in options.items()}
    return max(places, key=places.__getitem__) if max(places.values()) >= 0 else None


def mmmu_open_match(text: str, references: Sequence[str]) -> float:
    """1 where a key phrase of the answer contains a reference, or a number in it equals one (2 decimals)."""
    expected = [value for reference in references for value in _normalised(reference)]
    phrases = _key_phrases(text)
    numbers = [
        n for phrase in phrases for pattern in _NUMBERS for n in pattern.findall(phrase[:_NUMBER_LIMIT])
    ]
    return float(
        any(_matches(value, expected) for item in (*phrases, *numbers) for value in _normalised(item))
    )


def _matches(value: str | float, expected: Sequence[str | float]) -> bool:
    if isinstance(value, str):
        return any(isinstance(item, str) and item in value for item in expected)
    return value in expected


def _key_phrases(text: str) -> list[str]:
    """The shortest tail behind a key word of each line, in lower case; the whole answer where there is none.

    The published code splits sentences at a capital, after lowering the text: only line breaks split.
    """
    text = text.strip().strip(".").lower()
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        keys = (*_KEYS, "=") if number == len(lines) else _KEYS
        tails = [line.rpartition(key)[2].strip() for key in keys if key in line]
        # An empty tail counts as none yet in the published loop, so it is replaced by the next.
        shortest = ""
        for tail in tails:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in _TRIVIAL:
            found.append(shortest)
    return found or [text]


def _normalised(text: str) -> list[str | float]:
    """A number rounded to two decimals, else the text in lower case; a single letter with a space beside."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]
