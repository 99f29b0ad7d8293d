"""Circular scoring of multiple choice: a question counts only if it is answered in every rotation.

Copy k of question q has index q + k * 10^6 and rotated options; q itself is the base row. The values rest on
base rows, each scored over the rows of its group that were answered; a copy without its base row is in none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from evalkit.metrics.base import Accuracy, Metric

ROTATION = 10**6


class Rotation(NamedTuple):
    """An answered row: its index, the letter chosen (None where no rule reads one) and the right letter."""

    row: int
    choice: str | None
    target: str


class CircularScore(NamedTuple):
    """What a row gets.

    Attributes:
        scores: `right`; on base rows also `circular` (its group) and `vanilla` (itself).
        decisive: whether the row's letter can still change a value, should it be unread so far.
    """

    scores: dict[str, float]
    decisive: bool


class Circular(Accuracy):
    """Percentage of base rows of whose rotations, the rows of their cluster, all are right."""

    rests_on = "right"


def circular_metrics() -> tuple[Metric, ...]:
    """`circular` (all rotations right) and `vanilla` (the base row right), in percent of base questions."""
    return Circular("circular"), Accuracy("vanilla")


def score_rotations(rows: Sequence[Rotation]) -> list[CircularScore]:
    """The score of each row, in order; rows of one question may stand anywhere."""
    groups = defaultdict[int, list[Rotation]](list)
    for row in rows:
        groups[row.row % ROTATION].append(row)
    all_right = {base: all(r.choice == r.target for r in group) for base, group in groups.items()}
    lost = {base: _lost(base, group) for base, group in groups.items()}
    scores = []
    for row in rows:
        base, right = row.row % ROTATION, float(row.choice == row.target)
        if row.row == base:
            found = {"right": right, "circular": float(all_right[base]), "vanilla": right}
            scores.append(CircularScore(found, True))
        else:
            scores.append(CircularScore({"right": right}, not lost[base]))
    return scores


def _lost(base: int, group: Sequence[Rotation]) -> bool:
    """Whether no further letter can make the group right: one is wrong, or the base row is not there."""
    wrong = any(row.choice is not None and row.choice != row.target for row in group)
    return wrong or all(row.row != base for row in group)
