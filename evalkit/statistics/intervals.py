"""Intervals from resamples: bootstrap-t, and what takes its place where resampling shows nothing.

Bootstrap-t (Efron 1981; Hall 1988) divides each resample's deviation by that resample's own standard error.
It is second-order accurate: skewed figures (RMSE, CIDEr) keep their coverage, where percentile intervals lose
several points.
"""

from __future__ import annotations

import math

import numpy as np

from evalkit.statistics.functional import Replicates

Interval = tuple[float, float]

#: Fewer clusters than this are few: intervals are widened to Student's at least, and the report says so.
FEW_CLUSTERS = 20
#: With the rarer outcome in fewer clusters than this, resamples of a share say too little about its tail.
RARE_CLUSTERS = 10


def student(value: float, se: float, clusters: int, alpha: float = 0.05) -> Interval:
    """value -+ t_{G-1} se."""
    from scipy.stats import t

    reach = float(t.ppf(1 - alpha / 2, clusters - 1)) * se
    return value - reach, value + reach


def bootstrap_t(replicates: Replicates, alpha: float = 0.05) -> Interval | None:
    """Bootstrap-t interval, joined with Student's where clusters are few.

    None where the figure is undefined in most resamples. Where it is defined but most resamples have no
    variance (a handful of clusters), Student's interval alone.
    """
    if 2 * np.isfinite(replicates.figures).sum() < len(replicates.figures):
        return None
    deviations = replicates.deviations()
    if 2 * len(deviations) < len(replicates.figures):
        return student(replicates.value, replicates.se, replicates.clusters, alpha)
    low, high = np.quantile(deviations, [alpha / 2, 1 - alpha / 2])
    interval = (
        replicates.value - float(high) * replicates.se,
        replicates.value - float(low) * replicates.se,
    )
    if replicates.clusters < FEW_CLUSTERS:
        return join(interval, student(replicates.value, replicates.se, replicates.clusters, alpha))
    return interval


def join(one: Interval, other: Interval) -> Interval:
    """The smallest interval that holds both."""
    return min(one[0], other[0]), max(one[1], other[1])


def cut(interval: Interval, bounds: Interval, value: float) -> Interval:
    """The interval within `bounds`; bounds that the value itself leaves are not its bounds."""
    if not bounds[0] <= value <= bounds[1]:
        return interval
    return max(interval[0], bounds[0]), min(interval[1], bounds[1])


def alike(value: float, clusters: int, bounds: Interval, alpha: float = 0.05) -> Interval | None:
    """Interval where all clusters are alike (every answer right, say), so that resamples never differ.

    If a share q of all clusters were different, G drawn ones would be alike with probability (1 - q)^G; the
    largest q not excluded is 1 - (alpha / 2)^(1 / G), and such clusters move the figure at most to its
    bounds. None for a metric without bounds.
    """
    if not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] <= value <= bounds[1]):
        return None
    share = 1 - (alpha / 2) ** (1 / clusters)
    return value - share * (value - bounds[0]), value + share * (bounds[1] - value)


def exact_share(share: float, effective: float, alpha: float = 0.05) -> Interval:
    """Clopper-Pearson interval of a share with an effective sample size (Korn and Graubard 1998)."""
    from scipy.stats import beta

    hits = share * effective
    low = float(beta.ppf(alpha / 2, hits, effective - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - alpha / 2, hits + 1, effective - hits)) if hits < effective else 1.0
    return low, high
