"""Whole numbers in answers, compared by the bins of InternVL's remote-sensing scorer (rs_vqa/score.py)."""

from __future__ import annotations


def whole_number(text: str) -> int | None:
    """What Python's `int()` reads: blanks around, a sign, underscores and other scripts' digits included.

    `5.0`, `1,000` and the empty text are not numbers; neither is one of more than 4,300 digits.
    """
    try:
        return int(text)
    except ValueError:
        return None


def same_bin(one: int, other: int) -> bool:
    """Whether both lie in the same of {0}, (0, 100], (100, 1000], (1000, inf); negatives lie in none."""
    first, second = _bin(one), _bin(other)
    return first is not None and first == second


def _bin(value: int) -> int | None:
    if value < 0:
        return None
    return sum(value > edge for edge in (0, 100, 1000))


def square_metres(text: str, *, quirk: bool) -> int | None:
    """The whole number of an area such as `9658m2`.

    With `quirk` every trailing `m` and `2` goes, as score.py does it: `122m2` is 1 and `2m2` no number.
    Without it only the unit goes.
    """
    return whole_number(text.rstrip("m2") if quirk else text.strip().removesuffix("m2"))
