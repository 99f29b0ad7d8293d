"""Relaxed accuracy of ChartQA: numbers may be off by 5 %, other answers must be equal but for case.

Source: pix2struct's metrics (Masry et al. 2022, section 5.1). No thousands separators, currency signs or
units are understood, years are numbers like others, and a divisor of 0 falls back to comparing texts.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

TOLERANCE = 0.05


def to_number(text: str) -> float | None:
    """The number that `text` spells, a final `%` dividing by 100; None where it spells none.

    Python's `float` decides: outer spaces, exponents, underscores, `nan` and `inf` are accepted.
    """
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_match(divisor: str, other: str) -> bool:
    """Whether the two agree: |other - divisor| / |divisor| <= 5 % for numbers, else equal without case.

    Not symmetric: the error is relative to `divisor`, and only its being 0 rules numbers out.
    """
    number, base = to_number(other), to_number(divisor)
    if number is not None and base:
        return abs(number - base) / abs(base) <= TOLERANCE
    return other.lower() == divisor.lower()


def internvl_relaxed(prediction: str, references: Sequence[str]) -> float:
    """As InternVL (and Qwen-VL) score: arguments swapped, so the error is relative to the prediction.

    The prediction is stripped, the reference is not.
    """
    stripped = prediction.strip()
    return float(any(relaxed_match(divisor=stripped, other=reference) for reference in references))


def vlmevalkit_relaxed(prediction: str, references: Sequence[str]) -> float:
    """As VLMEvalKit scores: relative to the reference, and a reference that is a list gives alternatives."""
    stripped = prediction.strip()
    alternatives = [item for reference in references for item in _alternatives(reference)]
    return float(any(relaxed_match(divisor=item, other=stripped) for item in alternatives))


def lmms_relaxed(prediction: str, references: Sequence[str]) -> float:
    """As lmms-eval scores: relative to the reference, and nothing is stripped."""
    return float(any(relaxed_match(divisor=reference, other=prediction) for reference in references))


def _alternatives(reference: str) -> list[str]:
    """Members of a reference that reads as a list of Python literals, else the reference itself.

    VLMEvalKit evaluates the text as Python; here only literals are read and nothing is executed.
    """
    try:
        value = ast.literal_eval(reference)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return [reference]
    return [str(item) for item in value] if isinstance(value, list) else [reference]
