"""Several runs against one base: the largest studentised difference under swaps of clusters (max-T).

Choosing the best of ten runs is ten looks at once. A swap exchanges each run with the base in the same random
clusters, which keeps how the runs hang together: they share the base and the samples. The largest of the
swapped differences says what the best of runs that do not differ would show (Westfall and Young 1993).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.metrics.base import FloatArray
from evalkit.statistics.functional import metric_gradient
from evalkit.statistics.resampling import Resampler, in_groups
from evalkit.statistics.swaps import SAME, PairedSums, swap_error


@dataclass(frozen=True, slots=True)
class MaxT:
    """Differences of k runs from one base, and what they become in swaps.

    Attributes:
        values: new - base of each run, [k]. errors: their standard errors under swaps, [k].
        observed: studentised differences, [k]. swapped: the same of each swap, [swaps, k].
        changes: the swapped differences themselves, [swaps, k].
    """

    values: FloatArray
    errors: FloatArray
    observed: FloatArray
    swapped: FloatArray
    changes: FloatArray

    @property
    def largest(self) -> FloatArray:
        """The largest of each swap, [swaps]."""
        return np.asarray(self.swapped.max(axis=1), dtype=np.float64)

    def p(self) -> FloatArray:
        """Two-sided p values, [k], each over all runs (single step)."""
        p: FloatArray = (self.reached() + 1.0) / (len(self.swapped) + 1)
        return p

    def reached(self) -> FloatArray:
        """How many swaps reach the run's difference, [k]."""
        counts = (self.largest[:, None] >= self.observed * (1 - SAME)).sum(axis=0)
        return np.asarray(counts, dtype=np.float64)

    def quantile(self, alpha: float) -> float:
        """What the largest studentised difference exceeds with probability alpha where no run differs."""
        count = len(self.swapped)
        rank = min(count, math.ceil((1 - alpha) * (count + 1)))
        return float(np.sort(self.largest)[rank - 1])

    def level(self, alpha: float) -> float:
        """The level of one comparison at which the chance of any false one is alpha: alpha / k to alpha."""
        single = float((self.swapped >= self.quantile(alpha) * (1 - SAME)).mean())
        return min(alpha, max(alpha / len(self.values), single))

    def luck(self, sign: float) -> float:
        """The mean gain that the best shows where no run differs.

        Args:
            sign: 1 where higher is better, else -1.
        """
        return float((sign * self.changes).max(axis=1).mean())

    def shrinkage(self, sign: float) -> float:
        """By how much the best run's gain is expected to be too large, since it was chosen for it.

        The mean error of the run that comes out best, where the true gains are the observed ones drawn
        together by what their spread owes to chance (Efron and Morris 1975).
        """
        gains, errors = sign * self.values, sign * self.changes
        truth = gains
        if len(gains) > 1:
            noise = float((errors - errors.mean(axis=1, keepdims=True)).var(axis=0).mean())
            noise *= len(gains) / (len(gains) - 1)
            spread = float(gains.var(ddof=1))
            kept = max(0.0, 1 - noise / spread) if spread else 0.0
            truth = gains.mean() + kept * (gains - gains.mean())
        chosen = (truth + errors).argmax(axis=1)
        return max(0.0, float(errors[np.arange(len(errors)), chosen].mean()))


def max_t(pairs: Sequence[PairedSums], resampler: Resampler) -> MaxT:
    """Swap every run with the base in the same random clusters.

    Args:
        pairs: of one metric, with the same base and the same clusters, at least two.
    """
    seed = resampler.seed
    joined = [
        PairedSums(pair.metric, in_groups(pair.base, seed), in_groups(pair.new, seed)) for pair in pairs
    ]
    parts = [_Swapped(pair) for pair in joined]
    swapped, changes = [], []
    with np.errstate(all="ignore"):
        for signs in resampler.swaps(len(parts[0].half)):
            drawn = [part.at(signs) for part in parts]
            changes.append(np.stack([change for change, _ in drawn], axis=1))
            swapped.append(np.stack([_studentised(*each) for each in drawn], axis=1))
    values = np.array([part.value for part in parts])
    errors = np.array([part.error for part in parts])
    with np.errstate(all="ignore"):
        observed = _studentised(values, errors)
    moved = np.nan_to_num(np.concatenate(changes), nan=0.0)
    return MaxT(values, errors, observed, np.concatenate(swapped), moved)


def _studentised(change: FloatArray, error: FloatArray) -> FloatArray:
    """|change| / error; 0 where nothing changed, infinite where all clusters changed alike."""
    ratio = np.abs(change) / error
    return np.where(change == 0, 0.0, np.where(np.isnan(ratio), np.inf, ratio))


class _Swapped:
    """One run and the base: the difference and its error for any choice of clusters to be swapped."""

    def __init__(self, pair: PairedSums) -> None:
        middle = (pair.base + pair.new) / 2
        self._metric = pair.metric
        self._centre, self.half = middle.sum(axis=0), (pair.new - pair.base) / 2
        with np.errstate(all="ignore"):
            self._influence = 2 * self.half @ metric_gradient(pair.metric, self._centre, middle)
        self._influence = np.nan_to_num(self._influence)
        self._squares = float(self._influence @ self._influence)
        self.value = float(pair.difference(pair.sums().sum(axis=0)))
        self.error = float(self._error(self._influence.sum()))

    def at(self, signs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Differences and errors [rows] for signs [rows, clusters]."""
        shift = signs @ self.half
        change = self._metric.value(self._centre + shift) - self._metric.value(self._centre - shift)
        return change, self._error(signs @ self._influence)

    def _error(self, total: FloatArray) -> FloatArray:
        return swap_error(self._squares, total, len(self._influence))
