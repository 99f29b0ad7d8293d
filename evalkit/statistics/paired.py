"""The difference of a metric between two runs on the same samples.

Base and new are two halves of one table of cluster sums, so a resample gives both sides the same clusters and
the difference is one more figure to resample (functional.py). Beside the bootstrap stands a swap test: where
the two runs do not differ, exchanging them in any cluster changes nothing in law (approximate
randomisation, Noreen 1989). It is exact for any number of clusters, and guards the bootstrap where few
answers changed: three changed answers that all went one way say nothing, but no resample of them goes the
other way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import Record
from evalkit.metrics.base import FloatArray, Metric
from evalkit.statistics.functional import Replicates, gradient, replicate
from evalkit.statistics.hypotheses import McNemar, mcnemar
from evalkit.statistics.intervals import FEW_CLUSTERS, Interval, bootstrap_t, cut, join, student
from evalkit.statistics.power import detectable
from evalkit.statistics.resampling import Clusters, Resampler

#: Relative difference below which two studentised figures are the same number.
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """New minus base of one metric, paired by sample.

    Attributes:
        base, new: the figures; None where they cannot be computed, with `reason`.
        ci95, interval: 95% interval of the difference, and the one at the level that was asked for.
        p: two-sided p value, the larger of bootstrap and swap test.
        se: clustered standard error of the difference.
        n, clusters: samples and clusters that either side rests on.
        mcnemar: for binary metrics.
    """

    metric: Metric
    base: float | None
    new: float | None
    n: int
    clusters: int
    ci95: Interval | None = None
    interval: Interval | None = None
    p: float | None = None
    se: float | None = None
    mcnemar: McNemar | None = None
    reason: str | None = None

    @property
    def difference(self) -> float | None:
        """new - base."""
        return None if self.base is None or self.new is None else self.new - self.base

    @property
    def gain(self) -> float | None:
        """The difference in the direction of better."""
        if (difference := self.difference) is None:
            return None
        return difference if self.metric.higher_is_better else -difference

    @property
    def worst_gain(self) -> float | None:
        """The worst gain that the interval at the level asked for does not exclude."""
        if self.interval is None:
            return None
        return self.interval[0] if self.metric.higher_is_better else -self.interval[1]

    def detectable(self, alpha: float, power: float = 0.8) -> float | None:
        """The smallest drop that a comparison like this one would have shown with that power.

        Of an accuracy at least as many one-way flips as the swap test needs; None where nothing differed, or
        nothing could be computed, and the size of a change is therefore unknown.
        """
        if self.se is None or self.clusters < 2:
            return None
        floor = 0.0
        if self.metric.binary and math.isfinite(scale := self.metric.bounds[1]):
            flips = math.ceil(1 + math.log2(1 / alpha))
            floor = flips * scale / self.n
        return max(detectable(self.se, self.clusters, alpha, power), floor) or None


def difference(
    metric: Metric,
    base: Sequence[Record],
    new: Sequence[Record],
    resampler: Resampler,
    *,
    alpha: float = 0.05,
) -> Difference:
    """Compare `metric` on two runs' records of the same samples in the same order.

    Args:
        base, new: [n] records; the clusters are those of `base`.
        alpha: level of `Difference.interval`.
    """
    on_base, on_new = metric.selected(base), metric.selected(new)
    either = on_base | on_new
    names = [record.cluster for record, keep in zip(base, either, strict=True) if keep]
    clusters = Clusters.of(names)
    n = int(either.sum())
    for side, records in (("base", base), ("new", new)):
        if (reason := metric.reason(records)) is not None:
            return _unknown(metric, base, new, n, clusters.count, f"{side}: {reason}")
    base_sums = clusters.sums(metric.statistics(base)[either])
    new_sums = clusters.sums(metric.statistics(new)[either])
    before, after = (float(metric.value(sums.sum(axis=0))) for sums in (base_sums, new_sums))
    if not (math.isfinite(before) and math.isfinite(after)):
        return _unknown(metric, base, new, n, clusters.count, "undefined for these answers")
    pair = PairedSums(metric, base_sums, new_sums)
    exact = _mcnemar(metric, base, new)
    if clusters.count < 2:
        reason = "one cluster: no interval and no test"
        return Difference(metric, before, after, n, clusters.count, mcnemar=exact, reason=reason)
    ci95, interval, p, se = judge(pair, resampler, alpha)
    few = f"only {clusters.count} clusters: the interval is widened and rough"
    reason = few if clusters.count < FEW_CLUSTERS else None
    if ci95 is None:
        reason = "undefined in most resamples: no interval"
    return Difference(metric, before, after, n, clusters.count, ci95, interval, p, se, exact, reason)


@dataclass(frozen=True, slots=True)
class PairedSums:
    """A metric's statistics on both sides, summed by cluster, [clusters, k] each."""

    metric: Metric
    base: FloatArray
    new: FloatArray

    def sums(self) -> FloatArray:
        """Both sides in one table, [clusters, 2k]."""
        return np.concatenate([self.base, self.new], axis=1)

    def figure(self, sums: FloatArray) -> FloatArray:
        """new - base from column sums [..., 2k]."""
        width = self.base.shape[1]
        return self.metric.value(sums[..., width:]) - self.metric.value(sums[..., :width])


@dataclass(frozen=True, slots=True)
class _Swaps:
    """Studentised difference, what it becomes when clusters are swapped at random, and its error."""

    observed: float
    swapped: FloatArray
    error: float

    def p(self) -> float:
        """Two-sided p value, never 0."""
        reached = (self.swapped >= abs(self.observed) * (1 - _SAME)).sum()
        return float((reached + 1) / (len(self.swapped) + 1))

    def interval(self, value: float, alpha: float, clusters: int) -> Interval:
        """value -+ the error times the quantile of the swapped figures; holds 0 exactly where p > alpha.

        Where that quantile is infinite (a handful of clusters), Student's takes its place.
        """
        count = len(self.swapped)
        rank = min(count, math.ceil((1 - alpha) * (count + 1)))
        quantile = float(self.swapped[rank - 1])
        low, high = student(value, self.error, clusters, alpha)
        reach = quantile * self.error if math.isfinite(quantile) else (high - low) / 2
        if self.p() > alpha:
            reach = max(reach, abs(value))
        return value - reach, value + reach


def judge(
    pair: PairedSums, resampler: Resampler, alpha: float
) -> tuple[Interval | None, Interval | None, float | None, float]:
    """95% interval, interval at `alpha`, p value and standard error of a difference."""
    if np.array_equal(pair.base, pair.new):
        return (0.0, 0.0), (0.0, 0.0), 1.0, 0.0
    replicates = replicate(pair.figure, pair.sums(), resampler)
    swaps = _swap(pair, replicates.value, resampler)
    low, high = pair.metric.bounds
    intervals = []
    for level in (0.05, alpha):
        bootstrap = bootstrap_t(replicates, level)
        if bootstrap is None:
            return None, None, None, replicates.se
        both = join(bootstrap, swaps.interval(replicates.value, level, replicates.clusters))
        intervals.append(cut(both, (low - high, high - low), replicates.value))
    return intervals[0], intervals[1], max(_bootstrap_p(replicates), swaps.p()), replicates.se


def _bootstrap_p(replicates: Replicates) -> float:
    """Two-sided p value of no difference that goes with `bootstrap_t`; never 0."""
    from scipy.stats import t

    deviations = replicates.deviations()
    observed = (
        replicates.value / replicates.se if replicates.se else math.copysign(math.inf, replicates.value)
    )
    above = len(deviations) - int(np.searchsorted(deviations, observed, side="left"))
    below = int(np.searchsorted(deviations, observed, side="right"))
    p = min(1.0, 2 * (min(above, below) + 1) / (len(deviations) + 1))
    if replicates.clusters >= FEW_CLUSTERS:
        return p
    student = float(2 * t.sf(abs(observed), replicates.clusters - 1))
    return student if 2 * len(deviations) < len(replicates.figures) else max(p, student)


def _swap(pair: PairedSums, value: float, resampler: Resampler) -> _Swaps:
    """Swap the two runs in random clusters.

    The error of a swapped difference comes from the influences at the mean of both sides, where the sums lie
    when the runs do not differ; swapping a cluster turns its influence's sign.
    """
    middle = (pair.base + pair.new) / 2
    centre, half = middle.sum(axis=0), (pair.new - pair.base) / 2
    figures = []
    with np.errstate(all="ignore"):
        slope = 2 * half @ gradient(pair.metric.value, centre, middle)
        squares, count = float(slope @ slope), len(slope)
        for signs in resampler.swaps(count):
            shift = signs @ half
            change = pair.metric.value(centre + shift) - pair.metric.value(centre - shift)
            figures.append(np.abs(change) / _error(squares, signs @ slope, count))
        error = float(_error(squares, slope.sum(), count))
    swapped = np.concatenate(figures)
    swapped[np.isnan(swapped)] = np.inf
    return _Swaps(value / error if error else math.inf, np.sort(swapped), error)


def _error(squares: float, total: FloatArray, count: int) -> FloatArray:
    """Standard error of a sum of influences with these squares; 0 where all influences are the same."""
    variance = count / (count - 1) * (squares - total**2 / count)
    return np.sqrt(np.where(variance > _SAME * squares, variance, 0.0))


def _mcnemar(metric: Metric, base: Sequence[Record], new: Sequence[Record]) -> McNemar | None:
    if not metric.binary:
        return None
    outcomes = metric.outcomes(base), metric.outcomes(new)
    if outcomes[0] is None or outcomes[1] is None:
        return None
    return mcnemar(outcomes[0], outcomes[1])


def _unknown(
    metric: Metric, base: Sequence[Record], new: Sequence[Record], n: int, clusters: int, reason: str
) -> Difference:
    """A difference that cannot be computed, with whichever figure can."""
    figures = [
        None if metric.reason(records) is not None else float(metric.value(metric.statistics(records).sum(0)))
        for records in (base, new)
    ]
    known = [figure if figure is not None and math.isfinite(figure) else None for figure in figures]
    return Difference(metric, known[0], known[1], n, clusters, reason=reason)
