"""The swap test: two runs that do not differ can be exchanged in any cluster (Noreen 1989, by clusters)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evalkit.metrics.base import FloatArray, Metric
from evalkit.statistics.functional import Functional, metric_gradient, metric_slope
from evalkit.statistics.intervals import Interval, Student, join, two_tails
from evalkit.statistics.resampling import Resampler, digest, in_groups

#: Relative difference below which two studentised values are the same number.
SAME = 1e-9
#: With so many changed clusters the swap test is a mid-p test; with fewer it is exact.
MANY_MOVED = 30


@dataclass(frozen=True, slots=True)
class PairedSums:
    """A metric's statistics on both sides, summed by cluster, [clusters, k] each."""

    metric: Metric
    base: FloatArray
    new: FloatArray

    def sums(self) -> FloatArray:
        """Both sides in one table, [clusters, 2k]."""
        return np.concatenate([self.base, self.new], axis=1)

    def bounds(self) -> Interval:
        """Range of the difference."""
        low, high = self.metric.bounds
        return low - high, high - low

    def difference(self, sums: FloatArray) -> FloatArray:
        """new - base from column sums [..., 2k]."""
        width = self.base.shape[1]
        return self.metric.value(sums[..., width:]) - self.metric.value(sums[..., :width])

    def slope(self, resampler: Resampler) -> Functional:
        """Derivatives of `difference` at column sums [..., 2k]; each side's columns move that side alone.

        Args:
            resampler: keeps each side's, so that a run's are made once for all that it is compared with.
        """
        width = self.base.shape[1]
        sides = [(digest(rows), metric_slope(self.metric, rows)) for rows in (self.base, self.new)]

        def of_side(at: FloatArray, rows: bytes, own: Functional) -> FloatArray:
            return resampler.once((self.metric, rows, digest(at)), lambda: own(at))

        def slope(sums: FloatArray) -> FloatArray:
            before, after = of_side(sums[..., :width], *sides[0]), of_side(sums[..., width:], *sides[1])
            return np.concatenate([-before, after], axis=-1)

        return slope


@dataclass(frozen=True, slots=True)
class Swaps:
    """Studentised difference, what it becomes when clusters are swapped at random, and its error.

    `moved` is the number of clusters in which the swap changes anything.
    """

    observed: float
    swapped: FloatArray
    error: float
    moved: int

    def p(self) -> float:
        """Two-sided p value, never 0.

        Where at least `MANY_MOVED` clusters changed, swaps that equal the observed difference count half
        (the mid-p value, which holds its level in McNemar's test: Fagerland, Lydersen and Laake 2013).
        Where no swap drawn reaches the difference, Student's tail takes the place of the resamples' floor.
        It is no less than what all 2^moved swaps would give.
        """
        reached, found = (float(each[0]) for each in self._tails(np.array([abs(self.observed)])))
        if reached or self.moved < 2:
            return found
        tails = two_tails(self.observed, self.moved - 1)
        return min(found, max(math.ldexp(1.0, 1 - self.moved), tails))

    def _tails(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """How many swaps reach each of `values`, and the p values of these, [n] each."""
        count = len(self.swapped)
        reached = count - np.searchsorted(self.swapped, values * (1 - SAME), side="left")
        counted = reached.astype(np.float64)
        if self.moved >= MANY_MOVED:
            counted -= (
                reached - count + np.searchsorted(self.swapped, values * (1 + SAME), side="right")
            ) / 2
        return reached.astype(np.float64), (counted + 1) / (count + 1)

    def interval(self, value: float, alpha: float, freedom: float) -> Interval:
        """value -+ the error times the quantile of the swapped values; holds 0 exactly where p > alpha.

        Where that quantile is infinite (swaps without variance), Student's takes its place.
        """
        inside = np.flatnonzero(self._tails(self.swapped)[1] > alpha)
        last = int(inside[-1]) if len(inside) else 0
        quantile = float(self.swapped[last : last + 2].mean())
        if math.isfinite(quantile):
            found = value - quantile * self.error, value + quantile * self.error
        else:
            found = Student(value, self.error, freedom).interval(alpha)
        return join(found, (0.0, 0.0)) if self.p() > alpha else found

    def guard(self, interval: Interval, value: float, alpha: float) -> Interval:
        """The interval, widened to hold 0 where p > alpha."""
        return join(interval, (value - abs(value), value + abs(value))) if self.p() > alpha else interval

    def settle(self, wide: Interval, own: Interval, value: float, alpha: float) -> Interval:
        """The interval `wide`, told by the swap test alone, whose is `own`, whether it holds 0."""
        if self.p() > alpha:
            return join(wide, own)
        return (wide[0], own[1]) if value < 0 else (own[0], wide[1])


def swap(pair: PairedSums, value: float, resampler: Resampler) -> Swaps:
    """Swap the two runs in random clusters.

    The error of a swapped difference comes from the influences at the mean of both sides, where the sums lie
    when the runs do not differ; swapping a cluster turns its influence's sign.
    """
    middle = (pair.base + pair.new) / 2
    centre, half = middle.sum(axis=0), (pair.new - pair.base) / 2
    count = len(half)
    moved = (half != 0).any(axis=1)
    values = []
    with np.errstate(all="ignore"):
        slope = metric_gradient(pair.metric, centre, middle)
        half = in_groups(half[moved], resampler.seed)
        influence = 2 * half @ slope
        squares = float(influence @ influence)
        for signs in resampler.swaps(len(half)):
            shift = signs @ half
            change = pair.metric.value(centre + shift) - pair.metric.value(centre - shift)
            values.append(np.abs(change) / swap_error(squares, signs @ influence, count))
        error = float(swap_error(squares, influence.sum(), count))
    swapped = np.concatenate(values)
    swapped[np.isnan(swapped)] = np.inf
    return Swaps(value / error if error else math.inf, np.sort(swapped), error, int(moved.sum()))


def swap_error(squares: float, total: FloatArray, count: int) -> FloatArray:
    """Standard error of a sum of influences with these squares; 0 where all influences are the same."""
    variance = count / (count - 1) * (squares - total**2 / count)
    return np.sqrt(np.where(variance > SAME * squares, variance, 0.0))
