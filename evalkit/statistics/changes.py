"""The difference of two runs of which few samples changed: score intervals for paired proportions.

Three changed answers that all went one way say little, and resamples of them say nothing: none goes the other
way. Adding one change in each direction (Bonett and Price 2012) covers 97 to 100% there. Clusters count
through the effective number of samples.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from evalkit.metrics.base import Composite, FloatArray, Metric
from evalkit.statistics.functional import part_slopes, standard_error
from evalkit.statistics.intervals import Interval, alike, quantile
from evalkit.statistics.power import Spread
from evalkit.statistics.resampling import Clusters, effective_clusters

#: With changes in fewer clusters than this, resamples say too little about the difference of a mean.
FEW_CHANGES = 30


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed between two runs of a bounded mean, as shares of the metric's range.

    A change of half the range counts as half a change: of all scores with a given mean change, whole
    ones have the largest variance.

    Attributes:
        won, lost: sums of the changes up and down. n: samples.
        effective: the number of independent samples that these are worth.
        freedom: degrees of freedom of the clusters. width: the metric's range, in its unit.
    """

    won: float
    lost: float
    n: int
    effective: float
    freedom: float
    width: float

    @classmethod
    def of(cls, metric: Metric, base: FloatArray, new: FloatArray, clusters: Clusters) -> Changes | None:
        """Changes from statistics [n, 2] of both sides.

        None for a metric that is not a bounded mean, or where one side lacks samples that the other has.
        """
        if metric.mean_range is None or not np.array_equal(base[:, 1], new[:, 1]):
            return None
        width = metric.mean_range[1] - metric.mean_range[0]
        counted = base[:, 1] > 0
        own = clusters.only(counted)
        base, new = base[counted], new[counted]
        ones = np.ones(len(base))
        change = metric.value(np.stack([new[:, 0] - base[:, 0], ones], axis=1)) / width
        design = _design(change, own)
        if design is None:  # nothing changed: clusters matter as much as they do to the answers themselves
            design = _design((base[:, 0] + new[:, 0]) / 2, own)
        count, worth = len(change), effective_clusters(own.sizes())
        effective = worth if design is None else count / max(1.0, design)
        won, lost = float(change[change > 0].sum()), float(-change[change < 0].sum())
        return cls(won, lost, count, effective, max(1.0, worth - 1), width)

    @property
    def middle(self) -> float:
        """The observed difference, in the metric's unit."""
        return (self.won - self.lost) / self.n * self.width

    def score(self) -> tuple[float, float]:
        """Middle of the interval and standard error, as shares."""
        worth = self.effective / self.n
        return bonett_price(self.won * worth, self.lost * worth, self.effective)

    def interval(self, alpha: float = 0.05) -> Interval:
        """Interval of the difference, in the metric's unit."""
        middle, error = self.score()
        reach = quantile(1 - alpha / 2, self.freedom) * error
        return (middle - reach) * self.width, (middle + reach) * self.width


def bonett_price(won: float, lost: float, n: float) -> tuple[float, float]:
    """Difference of paired proportions and its standard error, each direction with one change more.

    (won - lost) / (n + 2) and sqrt((p + q - (p - q)^2) / (n + 2)) with p = (won + 1) / (n + 2) and q likewise
    (Bonett and Price 2012).
    """
    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    return up - down, math.sqrt((up + down - (up - down) ** 2) / (n + 2))


def score_reach(
    metric: Metric, base: FloatArray, new: FloatArray, clusters: Clusters, alpha: float = 0.05
) -> Interval | None:
    """How far below and above the observed difference its interval goes where few samples changed.

    Of a composite by its parts (MOVER, Zou and Donner 2008). Of another bounded metric: as far as it moves
    by the largest share of different clusters of which none would be seen. None where nothing bounds it.

    Args:
        base, new: statistics of both sides, [n, k]. clusters: those of the n samples.
    """
    if (changes := Changes.of(metric, base, new, clusters)) is not None:
        low, high = changes.interval(alpha)
        return max(0.0, changes.middle - low), max(0.0, high - changes.middle)
    if not isinstance(metric, Composite):
        value = float(metric.value(base.sum(axis=0)))
        found = alike(value, effective_clusters(clusters.sizes()), metric.bounds, alpha)
        return None if found is None else (value - found[0], found[1] - value)
    parts = list(zip(metric.parts, metric.blocks(base), metric.blocks(new), strict=True))
    middle = np.array([float(part.value((one + other).sum(axis=0) / 2)) for part, one, other in parts])
    below = above = 0.0
    for (part, one, other), slope in zip(parts, part_slopes(metric, middle), strict=True):
        if (reach := score_reach(part, one, other, clusters, alpha)) is None:
            return None
        down, up = reach if slope > 0 else reach[::-1]
        below, above = below + (slope * down) ** 2, above + (slope * up) ** 2
    return math.sqrt(below), math.sqrt(above)


def spread(metric: Metric, base: FloatArray, new: FloatArray, clusters: Clusters, seen: Spread) -> Spread:
    """The error of a difference with what a drop, or a change not seen, adds to it."""
    added, unseen = _added(metric, base, new, clusters)
    return dataclasses.replace(seen, added=added, unseen=unseen, width=metric.bounds[1] - metric.bounds[0])


def _added(metric: Metric, base: FloatArray, new: FloatArray, clusters: Clusters) -> tuple[float, float]:
    """`Spread.added` and `Spread.unseen`: of a composite from its parts, each with its share of the drop."""
    if (changes := Changes.of(metric, base, new, clusters)) is not None:
        return 1 / changes.effective, 2 * (changes.width / changes.effective) ** 2
    width = metric.bounds[1] - metric.bounds[0]
    if not isinstance(metric, Composite) or not math.isfinite(width):
        return 0.0, 0.0
    parts = list(zip(metric.parts, metric.blocks(base), metric.blocks(new), strict=True))
    middle = np.array([float(part.value((one + other).sum(axis=0) / 2)) for part, one, other in parts])
    added = unseen = 0.0
    for (part, one, other), slope in zip(parts, part_slopes(metric, middle), strict=True):
        found = _added(part, one, other, clusters)
        if math.isfinite(share := (part.bounds[1] - part.bounds[0]) / width):
            added, unseen = added + (slope * share) ** 2 * found[0], unseen + slope**2 * found[1]
    return added, unseen


def _design(values: FloatArray, clusters: Clusters) -> float | None:
    """Variance of the mean of values [n] in clusters over that of independent ones; None if all are alike."""
    spread = values - values.mean()
    alone = float(spread @ spread) / len(values) ** 2
    if alone <= 1e-20 or clusters.count < 2:
        return None
    return standard_error(clusters.sums(spread[:, None])[:, 0] / len(values)) ** 2 / alone
