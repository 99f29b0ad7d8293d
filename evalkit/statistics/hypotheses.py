"""Exact McNemar test and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.metrics.base import FloatArray


@dataclass(frozen=True, slots=True)
class McNemar:
    """Discordant pairs of two runs on the same samples, with the exact two-sided p value."""

    right_to_wrong: int
    wrong_to_right: int
    p: float


def mcnemar(base: FloatArray, new: FloatArray) -> McNemar:
    """Exact McNemar test of 0/1 outcomes [n] of the same samples (McNemar 1947; binomial form).

    Assumes independent samples; within clusters it is only a companion to the clustered test.
    """
    from scipy.stats import binomtest

    lost = int(((base == 1) & (new == 0)).sum())
    won = int(((base == 0) & (new == 1)).sum())
    p = float(binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0
    return McNemar(lost, won, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the given order: the chance of any false rejection stays at alpha (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
