"""The difference of a metric between two runs on the same samples.

Base and new are two halves of one table of cluster sums. So a resample gives both sides the same clusters,
and the difference is one more value to resample (functional.py).

The verdict rests on one test, the swap test: if two runs do not differ, exchanging them in any cluster
changes nothing in law. It is approximate randomisation (Noreen 1989), by clusters, exact for any number of
clusters, and studentised, so that it holds its level too where only the difference is 0 (Chung and Romano
2013). Away from 0 the interval is joined with the bootstrap's, which knows how skewed the changes are.

With few clusters neither can say much. Student's t takes their place, guarded by the swap test of single
samples, which knows that three changed answers say nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import Record
from evalkit.metrics.base import BoolArray, Composite, FloatArray, Metric, Records, once
from evalkit.statistics.changes import FEW_CHANGES, score_reach, spread
from evalkit.statistics.functional import jackknife_error, replicate
from evalkit.statistics.hypotheses import McNemar, mcnemar
from evalkit.statistics.intervals import (
    FEW_CLUSTERS,
    Interval,
    Student,
    bootstrap_t,
    cut,
    few_note,
    freedom,
    join,
)
from evalkit.statistics.power import SampleSize, Spread, needed
from evalkit.statistics.resampling import Clusters, ClusterSums, Resampler
from evalkit.statistics.swaps import PairedSums, swap

#: Below this share of a difference its standard error is rounding.
_ROUNDING = 1e-12
#: Resamples of the bootstrap, which makes ends of intervals and no p value.
_BOOTSTRAPS = 2000
#: And at least so many over the level.
_BOOTSTRAPS_A_TAIL = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """New minus base of one metric, paired by sample.

    Attributes:
        base, new: the values; None where they cannot be computed, with `reason`.
        ci95, interval: 95% interval of the difference, and the one at the level that was asked for.
        p: two-sided p value of the swap test; with few clusters the larger of its and Student's t.
        se: clustered standard error of the difference; freedom: its degrees of freedom.
        n, clusters: samples and clusters that either side rests on.
        mcnemar: for binary metrics. spread: what planning rests on; None where nothing could be computed.
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
    freedom: float = 1.0
    mcnemar: McNemar | None = None
    reason: str | None = None
    spread: Spread | None = None

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

    @property
    def best_gain(self) -> float | None:
        """The best gain that the interval at the level asked for does not exclude."""
        if self.interval is None:
            return None
        return self.interval[1] if self.metric.higher_is_better else -self.interval[0]

    @property
    def room(self) -> float:
        """The largest drop that the base leaves room for."""
        low, high = self.metric.bounds
        if self.base is None:
            return 0.0
        return self.base - low if self.metric.higher_is_better else high - self.base

    def detectable(self, alpha: float, power: float = 0.8) -> float | None:
        """The smallest drop that a comparison like this one would have shown with that power.

        Of a share at least as many one-way flips as the swap test needs. None where no possible drop is that
        large, where nothing could be computed, or nothing differed and the size of a change is unknown.
        """
        if self.spread is None or self.base is None:
            return None
        floor = 0.0
        if self.metric.binary and math.isfinite(high := self.metric.bounds[1]):
            floor = math.ceil(1 + math.log2(1 / alpha)) * high / self.n
        smallest = max(self.spread.detectable(alpha, power), floor)
        return smallest if 0 < smallest <= self.room else None

    def needed_for_margin(self, margin: float, alpha: float) -> SampleSize | None:
        """The data with which the margin is shown four times in five where nothing is lost."""
        return None if self.spread is None else needed(margin, self.spread, alpha, margin=True)


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
    base, new = Records.of(base), Records.of(new)
    either = metric.selected(base) | metric.selected(new)
    clusters = _clusters(metric, base, either)
    for side, records in (("base", base), ("new", new)):
        if (reason := metric.reason(records)) is not None:
            return _unknown(metric, base, new, len(clusters.codes), clusters.count, f"{side}: {reason}")
    (on_base, thin_base), (on_new, thin_new) = (_of_side(metric, records) for records in (base, new))
    rows = PairedSums(metric, on_base[either], on_new[either])
    count = min(thin_base, thin_new)
    found = between(rows, clusters, resampler, alpha=alpha, thinnest=count)
    return dataclasses.replace(found, mcnemar=_mcnemar(metric, base, new))


def _clusters(metric: Metric, records: Records, chosen: BoolArray) -> Clusters:
    """Clusters of the records chosen; kept where these are all that the metric selects."""
    if not np.array_equal(chosen, metric.selected(records)):
        return Clusters.of_chosen(records, chosen)
    return once(records, (Clusters, chosen.tobytes()), lambda: Clusters.of_chosen(records, chosen))


def _of_side(metric: Metric, records: Records) -> tuple[FloatArray, int]:
    """The metric's statistics over a run's records, and the clusters under its thinnest part."""

    def found() -> tuple[FloatArray, int]:
        statistics = metric.statistics(records)
        return statistics, ClusterSums.of(metric, records, statistics).thinnest

    return once(records, ("statistics", metric), found)


def between(
    rows: PairedSums,
    clusters: Clusters,
    resampler: Resampler,
    *,
    alpha: float = 0.05,
    thinnest: int | None = None,
) -> Difference:
    """The difference from the statistics of both sides' samples, [n, k] each.

    Args:
        clusters: those of the n samples. thinnest: of a composite, the clusters under its thinnest part.
    """
    metric, n = rows.metric, len(rows.base)
    pair = PairedSums(metric, clusters.sums(rows.base), clusters.sums(rows.new))
    before, after = (float(metric.value(sums.sum(axis=0))) for sums in (pair.base, pair.new))
    if not (math.isfinite(before) and math.isfinite(after)):
        one, other = (value if math.isfinite(value) else None for value in (before, after))
        return Difference(metric, one, other, n, clusters.count, reason="undefined for these answers")
    count = clusters.count if thinnest is None else thinnest
    if count < 2:
        reason: str | None = "one cluster: no interval and no test"
        return Difference(metric, before, after, n, clusters.count, reason=reason)
    worth = freedom(clusters.sizes(), count)
    if worth + 1 < FEW_CLUSTERS:
        found = judge_few(pair, rows, worth, resampler, alpha)
        reason = few_note(count, worth + 1)
    else:
        found, reason = judge(pair, resampler, alpha), None
    found = _with_few_changes(found, rows, clusters, after - before, alpha)
    if found.ci95 is None:
        reason = "undefined in most resamples: no interval"
        if not found.se:
            reason = "no sample changed, and no range bounds a change: no interval"
    seen = Spread(found.se, worth, clusters.count, n)
    return Difference(
        metric, before, after, n, clusters.count,
        found.ci95, found.interval, found.p, found.se, found.freedom, None, reason,
        spread(metric, rows.base, rows.new, clusters, seen),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judgement:
    """Intervals (95% and at the level asked for), p value, standard error and degrees of freedom."""

    ci95: Interval | None
    interval: Interval | None
    p: float | None
    se: float
    freedom: float


def judge(pair: PairedSums, resampler: Resampler, alpha: float) -> Judgement:
    """Judge a difference over many clusters by the swap test; the interval is joined with bootstrap-t."""
    freedom = len(pair.base) - 1.0
    if np.array_equal(pair.base, pair.new):
        return Judgement((0.0, 0.0), (0.0, 0.0), 1.0, 0.0, freedom)
    value = float(pair.difference(pair.sums().sum(axis=0)))
    swaps = swap(pair, value, resampler)
    few = resampler.at_most(max(_BOOTSTRAPS, math.ceil(_BOOTSTRAPS_A_TAIL / alpha)))
    replicates = replicate(pair.difference, pair.slope(few), pair.sums(), few)
    if replicates.se <= _ROUNDING * max(1.0, abs(value)):  # every cluster changed alike
        ci95, interval = (swaps.guard((value, value), value, level) for level in (0.05, alpha))
        return Judgement(ci95, interval, swaps.p(), 0.0, freedom)
    intervals = []
    for level in (0.05, alpha):
        bootstrap = bootstrap_t(replicates, alpha=level)
        if bootstrap is None:
            return Judgement(None, None, None, replicates.se, freedom)
        own = swaps.interval(value, level, freedom)
        intervals.append(cut(swaps.settle(join(bootstrap, own), own, value, level), pair.bounds(), value))
    return Judgement(intervals[0], intervals[1], swaps.p(), replicates.se, freedom)


def judge_few(
    pair: PairedSums, rows: PairedSums, freedom: float, resampler: Resampler, alpha: float
) -> Judgement:
    """Judge a difference over few clusters: Student's t with the jackknife error.

    Where hardly any answer changed, the clusters' spread means little; the swap test over `rows`, the single
    samples [n, k], then says so.
    """
    if np.array_equal(rows.base, rows.new):
        return Judgement((0.0, 0.0), (0.0, 0.0), 1.0, 0.0, freedom)
    sums = pair.sums()
    value = float(pair.difference(sums.sum(axis=0)))
    student = Student(value, jackknife_error(pair.difference, sums), freedom)
    swaps = swap(rows, value, resampler)
    ci95, interval = (
        cut(swaps.guard(student.interval(level), value, level), pair.bounds(), value)
        for level in (0.05, alpha)
    )
    return Judgement(ci95, interval, max(student.p(), swaps.p()), student.error, freedom)


def _with_few_changes(
    found: Judgement, rows: PairedSums, clusters: Clusters, value: float, alpha: float
) -> Judgement:
    """The judgement, with a score interval where so few clusters changed that resamples do not show it.

    Args:
        rows: statistics of the single samples, [n, k]. value: the difference.
    """
    changed = clusters.sums((rows.base != rows.new).any(axis=1).astype(np.float64)[:, None])
    count, metric = int((changed > 0).sum()), rows.metric
    if 2 * count > clusters.count and changed.sum() >= FEW_CHANGES:
        return found
    mean = metric.mean_range is not None or isinstance(metric, Composite)
    if found.p is None or count >= (FEW_CHANGES if mean else FEW_CHANGES // 3):
        return found
    intervals: list[Interval | None] = []
    for level, usual in ((0.05, found.ci95), (alpha, found.interval)):
        reach = score_reach(metric, rows.base, rows.new, clusters, level)
        if reach is None or usual is None:
            intervals.append(usual if count else None)
            continue
        score = value - reach[0], value + reach[1]
        if found.freedom < FEW_CLUSTERS - 1:
            score = join(score, usual)
        if found.p > level:
            score = join(score, (0.0, 0.0))
        elif score[0] <= 0 <= score[1]:  # the test says no: its own interval ends before 0
            score = (score[0], usual[1]) if value < 0 else (usual[0], score[1])
        intervals.append(cut(score, rows.bounds(), value))
    return dataclasses.replace(found, ci95=intervals[0], interval=intervals[1])


def _mcnemar(metric: Metric, base: Sequence[Record], new: Sequence[Record]) -> McNemar | None:
    if not metric.binary:
        return None
    outcomes = [_outcomes(metric, records) for records in (base, new)]
    if outcomes[0] is None or outcomes[1] is None:
        return None
    return mcnemar(outcomes[0], outcomes[1])


def _outcomes(metric: Metric, records: Sequence[Record]) -> FloatArray | None:
    return once(records, ("outcomes", metric), lambda: metric.outcomes(records))


def _unknown(
    metric: Metric, base: Sequence[Record], new: Sequence[Record], n: int, clusters: int, reason: str
) -> Difference:
    """A difference that cannot be computed, with whichever value can."""
    values = [
        None if metric.reason(records) is not None else float(metric.value(metric.statistics(records).sum(0)))
        for records in (base, new)
    ]
    known = [value if value is not None and math.isfinite(value) else None for value in values]
    return Difference(metric, known[0], known[1], n, clusters, reason=reason)
