"""Intervals from resamples: bootstrap-t, and what takes its place where resampling shows nothing.

Bootstrap-t (Efron 1981; Hall 1988) divides each resample's deviation by that resample's own standard error.
It is second-order accurate: skewed metrics (RMSE, CIDEr) keep their coverage, where percentile intervals lose
several points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evalkit.statistics.functional import Replicates
from evalkit.statistics.resampling import effective_clusters

Interval = tuple[float, float]

#: Fewer clusters than this are few: intervals are at least Student's, and the report says so.
FEW_CLUSTERS = 30
#: With the rarer outcome in fewer clusters than this, resamples of a mean say too little about its tail.
RARE_CLUSTERS = 30
#: With few clusters bootstrap-t may explode; it widens Student's interval to this multiple at most.
_WIDEST = 2.0


@dataclass(frozen=True, slots=True)
class Student:
    """A value with Student's t, for few clusters: jackknife error, degrees of freedom."""

    value: float
    error: float
    freedom: float

    def interval(self, alpha: float = 0.05) -> Interval:
        """value -+ t error."""
        reach = quantile(1 - alpha / 2, self.freedom) * self.error
        return self.value - reach, self.value + reach

    def p(self) -> float:
        """Two-sided p value of the hypothesis that the true value is 0."""
        if not self.error:
            return float(not self.value)
        return two_tails(self.value / self.error, self.freedom)


def quantile(level: float, freedom: float) -> float:
    """A quantile of Student's t.

    From scipy.special: scipy.stats takes a second to import.
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))


def two_tails(ratio: float, freedom: float) -> float:
    """Two-sided p value of Student's t."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(ratio)))


def few_note(clusters: int, worth: float) -> str:
    """What a report says of an interval from few clusters, or from unequal ones that are worth few."""
    if clusters < FEW_CLUSTERS:
        return f"only {clusters} clusters: the interval is widened and rough"
    return f"{clusters} unequal clusters are worth {worth:.0f}: the interval is widened and rough"


def freedom(sizes: npt.NDArray[np.intp], thinnest: int) -> float:
    """Degrees of freedom of clusters with these sizes: the effective number of clusters less one.

    Unequal clusters count for less: (sum n)^2 / sum n^2 (Carter, Schnepel and Steigerwald 2017, with sizes
    for influences), and never more than the clusters under a composite's thinnest part.
    """
    return max(1.0, min(effective_clusters(sizes), float(thinnest)) - 1.0)


def bootstrap_t(replicates: Replicates, few: Student | None = None, alpha: float = 0.05) -> Interval | None:
    """Bootstrap-t interval; None where the value is undefined in most resamples.

    With `few` clusters it is joined with Student's interval and may reach at most twice as far; where most
    resamples have no variance (a handful of clusters), Student's stands alone.
    """
    if 2 * np.isfinite(replicates.values).sum() < len(replicates.values):
        return None
    deviations = replicates.deviations()
    if 2 * len(deviations) < len(replicates.values):
        return few.interval(alpha) if few else None
    low, high = np.quantile(deviations, [alpha / 2, 1 - alpha / 2])
    value, se = replicates.value, replicates.se
    interval = value - float(high) * se, value - float(low) * se
    if few is None:
        return interval
    inner = few.interval(alpha)
    reach = _WIDEST * (inner[1] - value)
    return join(inner, cut(interval, (value - reach, value + reach), value))


def join(one: Interval, other: Interval) -> Interval:
    """The smallest interval that holds both."""
    return min(one[0], other[0]), max(one[1], other[1])


def cut(interval: Interval, bounds: Interval, value: float) -> Interval:
    """The interval within `bounds`; bounds that the value itself leaves are not its bounds."""
    if not bounds[0] <= value <= bounds[1]:
        return interval
    return max(interval[0], bounds[0]), min(interval[1], bounds[1])


def alike(value: float, clusters: float, bounds: Interval, alpha: float = 0.05) -> Interval | None:
    """Interval where all clusters are alike (every answer right, say), so that resamples never differ.

    If a share q of all clusters were different, G drawn ones would be alike with probability (1 - q)^G; the
    largest q not excluded is 1 - (alpha / 2)^(1 / G), and such clusters move the value at most to its
    bounds. None for a metric without bounds.
    """
    if not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] <= value <= bounds[1]):
        return None
    share = 1 - (alpha / 2) ** (1 / clusters)
    return value - share * (value - bounds[0]), value + share * (bounds[1] - value)


def exact_share(share: float, effective: float, alpha: float = 0.05) -> Interval:
    """Clopper-Pearson interval of a share with an effective sample size (Korn and Graubard 1998)."""
    from scipy.special import betaincinv

    hits = share * effective
    low = float(betaincinv(hits, effective - hits + 1, alpha / 2)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, effective - hits, 1 - alpha / 2)) if hits < effective else 1.0
    return low, high


def rare_share(
    hits: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], alpha: float = 0.05
) -> Interval:
    """The gamma interval of a rare share that comes in clusters (Fay and Feuer 1997; Tiwari and others 2006).

    Clusters with hits come as in a Poisson process. The one that was not seen has the size of the mean
    cluster and any part of it hit, all alike probable.

    Args:
        hits: each cluster's part of the share, [clusters]; at least one above 0. shares: of all samples.
    """
    from scipy.special import gammaincinv

    value, variance = float(hits.sum()), float(hits @ hits)
    unseen, square = float(shares.mean()) / 2, float(shares @ shares) / len(shares) / 3
    low = float(gammaincinv(value**2 / variance, alpha / 2)) * variance / value
    more, spread = value + unseen, variance + square
    return low, min(1.0, float(gammaincinv(more**2 / spread, 1 - alpha / 2)) * spread / more)
