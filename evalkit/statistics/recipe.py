"""Two recipes of training, several runs each: is the recipe better, or only these checkpoints?

A recipe's value scatters between training seeds and between samples. The runs of a recipe answer the same
samples, so the two are crossed: the error of the difference is that of the samples (by clusters), plus that
of the seeds, less what both count (two-way clustering, Cameron, Gelbach and Miller 2011).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import MetricValue, Record
from evalkit.metrics.base import FloatArray, Metric
from evalkit.statistics.estimate import estimate
from evalkit.statistics.functional import metric_gradient, standard_error
from evalkit.statistics.intervals import Interval, Student, cut, join
from evalkit.statistics.max_t import max_t
from evalkit.statistics.resampling import Clusters, Resampler, effective_clusters
from evalkit.statistics.swaps import PairedSums


@dataclass(frozen=True, slots=True)
class RecipeDifference:
    """The mean of the new runs less the mean of the base runs.

    Attributes:
        base, new: each run's value.
        sd_seeds: of a run's value between training seeds, base and new; None with one run of each.
        se_samples: error that the samples leave, were these runs all there are; se: with the seeds.
        ci95, interval, p: for the recipe, of any further runs; None where there is one run of each.
        p_runs: for these very runs.
        freedom: degrees of freedom of `se`. reason: why something is not there.
    """

    metric: Metric
    base: tuple[float, ...]
    new: tuple[float, ...]
    n: int
    clusters: int
    sd_seeds: tuple[float, float] | None = None
    se_samples: float | None = None
    se: float | None = None
    freedom: float | None = None
    ci95: Interval | None = None
    interval: Interval | None = None
    p: float | None = None
    p_runs: float | None = None
    reason: str | None = None

    @property
    def difference(self) -> float | None:
        """new - base, None where a run has no value."""
        if not (self.base and self.new):
            return None
        return float(np.mean(self.new) - np.mean(self.base))

    @property
    def gain(self) -> float | None:
        """The difference in the direction of better."""
        if (difference := self.difference) is None:
            return None
        return difference if self.metric.higher_is_better else -difference


class _Side:
    """The runs of one recipe: values [runs] and influences of the clusters on each, [runs, clusters]."""

    def __init__(self, metric: Metric, tables: Sequence[FloatArray]) -> None:
        self.values = np.array([float(metric.value(table.sum(axis=0))) for table in tables])
        with np.errstate(all="ignore"):
            slopes = [metric_gradient(metric, table.sum(axis=0), table) for table in tables]
        found = np.array([table @ slope for table, slope in zip(tables, slopes, strict=True)])
        self.influence = np.nan_to_num(found - found.mean(axis=1, keepdims=True))

    @property
    def runs(self) -> int:
        """How many."""
        return len(self.values)

    def spread(self) -> float:
        """Variance of the values between runs."""
        return float(self.values.var(ddof=1))

    def interaction(self) -> float:
        """Variance of a run's value that its own answers to the samples give, seeds and samples apart."""
        clusters = self.influence.shape[1]
        rest = self.influence - self.influence.mean(axis=0)
        return float(clusters / (clusters - 1) * (rest**2).sum() / (self.runs - 1))


def recipe_difference(
    metric: Metric,
    base: Sequence[Sequence[Record]],
    new: Sequence[Sequence[Record]],
    resampler: Resampler,
    *,
    alpha: float = 0.05,
) -> RecipeDifference:
    """Compare two recipes.

    Where one side has a single run, its spread between seeds is taken to be the other's.

    Args:
        base, new: [runs] of [n] records, all of the same samples in the same order.
    """
    sides = [*base, *new]
    chosen = np.logical_or.reduce([metric.selected(records) for records in sides], dtype=np.bool_)
    clusters, n = Clusters.of_chosen(sides[0], chosen), int(chosen.sum())
    for records in sides:
        if (reason := metric.reason(records)) is not None:
            return RecipeDifference(metric, (), (), n, clusters.count, reason=reason)
    tables = [clusters.sums(metric.statistics(records)[chosen]) for records in sides]
    old, fresh = _Side(metric, tables[: len(base)]), _Side(metric, tables[len(base) :])
    values = tuple(old.values.tolist()), tuple(fresh.values.tolist())
    if not all(map(math.isfinite, (*values[0], *values[1]))):
        return RecipeDifference(metric, (), (), n, clusters.count, reason="undefined for these answers")
    plain = RecipeDifference(metric, *values, n, clusters.count)
    if clusters.count < 2:
        return dataclasses.replace(plain, reason="one cluster: no interval and no test")
    shift = fresh.influence.mean(axis=0) - old.influence.mean(axis=0)
    se_samples = standard_error(shift)
    p_runs = _p_of_runs(metric, tables, len(base), resampler, se_samples, clusters)
    if old.runs == fresh.runs == 1:
        reason = "one run of each recipe: nothing is known of other training seeds"
        return dataclasses.replace(plain, se_samples=se_samples, p_runs=p_runs, reason=reason)
    return _judged(plain, old, fresh, se_samples, clusters, p_runs, alpha)


def recipe_value(metric: Metric, runs: Sequence[Sequence[Record]], *, resamples: int = 2000) -> MetricValue:
    """The mean over several runs of a recipe, with the error of samples and seeds.

    The interval also holds that of the middle run, which knows what scarce outcomes leave open.

    Args:
        runs: [runs] of [n] records, all of the same samples in the same order; at least two.
    """
    each = [estimate(metric, records, resamples=resamples) for records in runs]
    reason = next((one.reason for one in each if one.value is None), None)
    if reason is not None:
        return MetricValue(None, metric.unit, each[0].n, reason=reason)
    chosen = np.logical_or.reduce([metric.selected(records) for records in runs], dtype=np.bool_)
    clusters = Clusters.of_chosen(runs[0], chosen)
    side = _Side(metric, [clusters.sums(metric.statistics(records)[chosen]) for records in runs])
    value = float(side.values.mean())
    middle = sorted(each, key=lambda one: one.value or 0.0)[len(each) // 2]
    if middle.ci95 is None or clusters.count < 2:
        return MetricValue(value, metric.unit, each[0].n, reason=middle.reason)
    se_samples, total = standard_error(side.influence.mean(axis=0)), side.spread()
    seeds = max(0.0, total - side.interaction()) / side.runs
    below = se_samples**4 / max(1.0, effective_clusters(clusters.sizes()) - 1)
    below += (total / side.runs) ** 2 / (side.runs - 1.0)
    variance = se_samples**2 + seeds
    freedom = max(1.0, variance**2 / below) if below else math.inf
    both = join(Student(value, math.sqrt(variance), freedom).interval(), middle.ci95)
    return MetricValue(value, metric.unit, each[0].n, cut(both, metric.bounds, value))


def _p_of_runs(
    metric: Metric,
    tables: Sequence[FloatArray],
    split: int,
    resampler: Resampler,
    se: float,
    clusters: Clusters,
) -> float:
    """For these very runs: the larger of Student's p value and that of swapping the sides in clusters."""
    base, new = _mean(tables[:split]), _mean(tables[split:])
    value = float(metric.value(new.sum(axis=0)) - metric.value(base.sum(axis=0)))
    swapped = float(max_t([PairedSums(metric, base, new)], resampler).p()[0])
    freedom = max(1.0, effective_clusters(clusters.sizes()) - 1)
    return max(swapped, Student(value, se, freedom).p())


def _mean(tables: Sequence[FloatArray]) -> FloatArray:
    mean: FloatArray = np.mean(tables, axis=0)
    return mean


def _judged(
    plain: RecipeDifference,
    old: _Side,
    fresh: _Side,
    se_samples: float,
    clusters: Clusters,
    p_runs: float,
    alpha: float,
) -> RecipeDifference:
    """The difference with the error of seeds and samples, by Satterthwaite's degrees of freedom."""
    known = {id(side): (side.spread(), side.interaction()) for side in (old, fresh) if side.runs > 1}
    either = next(iter(known.values()))
    spread, own, freedoms = [], [], []
    for side in (old, fresh):
        total, interaction = known.get(id(side), either)
        runs = side.runs if side.runs > 1 else max(old.runs, fresh.runs)
        spread.append(total / side.runs)
        own.append(max(0.0, total - interaction))
        freedoms.append(runs - 1.0)
    seeds = own[0] / old.runs + own[1] / fresh.runs
    variance = se_samples**2 + seeds
    below = se_samples**4 / max(1.0, effective_clusters(clusters.sizes()) - 1)
    if len(known) == 1:  # one estimate stands for both
        below += sum(spread) ** 2 / freedoms[0]
    else:
        below += sum(part**2 / freedom for part, freedom in zip(spread, freedoms, strict=True))
    freedom = max(1.0, variance**2 / below) if below else math.inf
    value = plain.difference or 0.0
    student = Student(value, math.sqrt(variance), freedom)
    p = max(student.p(), p_runs)
    low, high = plain.metric.bounds
    ends = []
    for level in (0.05, alpha):
        interval = student.interval(level)
        interval = join(interval, (0.0, 0.0)) if p > level else interval
        ends.append(cut(interval, (low - high, high - low), value))
    return dataclasses.replace(
        plain,
        sd_seeds=(math.sqrt(own[0]), math.sqrt(own[1])),
        se_samples=se_samples,
        se=math.sqrt(variance),
        freedom=freedom,
        ci95=ends[0],
        interval=ends[1],
        p=p,
        p_runs=p_runs,
    )
