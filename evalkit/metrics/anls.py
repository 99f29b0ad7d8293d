"""Average normalised Levenshtein similarity (ANLS) as the scorers of DocVQA and InfographicVQA compute it.

Distance on lower-cased texts with collapsed white space, divided by the longer of the raw, upper-cased texts:
padding raises a score. InternVL, VLMEvalKit and lmms-eval share this arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from evalkit.metrics.words import collapse_spaces

THRESHOLD = 0.5


@lru_cache(maxsize=65536)
def _reference(text: str) -> tuple[str, int]:
    return _measured(text)


def _measured(text: str) -> tuple[str, int]:
    """The normalised text and the length that the distance is divided by."""
    return collapse_spaces(text.strip().lower()), len(text.upper())


def anls(prediction: str, references: Sequence[str]) -> float:
    """Best similarity to a reference, 0 below `THRESHOLD` (exactly 0.5 is kept).

    Args:
        prediction: the answer as generated; its outer white space counts in the length.
        references: accepted answers, at least one.
    """
    normalised, length = _measured(prediction)
    cost = min(_cost(normalised, length, reference) for reference in references)
    score = 1.0 - cost
    return score if score >= THRESHOLD else 0.0


def _cost(prediction: str, length: int, reference: str) -> float:
    from rapidfuzz.distance import Levenshtein

    expected, reference_length = _reference(reference)
    longest = max(length, reference_length)
    if longest == 0:
        return 0.0
    # Beyond half of `longest` the score is 0 whatever the distance, so rapidfuzz may give up there.
    cutoff = longest // 2
    if abs(len(prediction) - len(expected)) > cutoff:
        return 1.0
    distance = Levenshtein.distance(prediction, expected, score_cutoff=cutoff)
    return distance / longest if distance <= cutoff else 1.0
