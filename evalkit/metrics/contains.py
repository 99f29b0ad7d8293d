"""Whether an answer contains a reference: the rule of OCRBench (Liu et al. 2023).

Texts are compared without case and with line breaks as spaces; formulas with case and without any space.
"""

from __future__ import annotations

from collections.abc import Sequence


def _text(value: str) -> str:
    return value.lower().strip().replace("\n", " ")


def _formula(value: str) -> str:
    return value.strip().replace("\n", " ").replace(" ", "")


#: U+FF01 to U+FF5E are the full-width forms of `!` to `~`; U+3000 is the full-width space.
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}


def fold_full_width(text: str) -> str:
    """The text with full-width ASCII made plain, as lmms-eval reads OCRBench, and nothing else changed."""
    return text.translate(_FULL_WIDTH)


def contains_text(prediction: str, references: Sequence[str]) -> float:
    """1 where some reference occurs in the prediction, without case. An empty reference always occurs."""
    answer = _text(prediction)
    return float(any(_text(reference) in answer for reference in references))


def contains_formula(prediction: str, references: Sequence[str]) -> float:
    """1 where some reference occurs in the prediction, spaces and line breaks removed, case kept."""
    answer = _formula(prediction)
    return float(any(_formula(reference) in answer for reference in references))
