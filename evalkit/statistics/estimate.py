"""A metric's value with its clustered interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evalkit.contracts import MetricValue, Record
from evalkit.metrics.base import Composite, FloatArray, Metric, Records, RootMeanSquare
from evalkit.statistics.functional import (
    jackknife_error,
    metric_slope,
    part_slopes,
    replicate,
    standard_error,
)
from evalkit.statistics.intervals import (
    FEW_CLUSTERS,
    RARE_CLUSTERS,
    Interval,
    Student,
    alike,
    bootstrap_t,
    cut,
    exact_share,
    few_note,
    join,
    quantile,
    rare_share,
)
from evalkit.statistics.resampling import ClusterSums, Resampler

#: Below this share of the value's size a standard error is rounding.
_ROUNDING = 1e-10
#: A cluster with more than this share of the squared error dominates it.
_DOMINANT = 0.25
#: Graded scores scatter less than 0 and 1 with the same mean: a sample of them may be worth so many. Without
#: a limit, seldom failures that were not seen are forgotten (79% covered where one failure in ten is whole).
_GRADED_WORTH = 1.5
#: With fewer single samples too few graded failures are seen to count so.
_MANY_SINGLES = 300
#: Up to this share an outcome is rare, and clusters full of it may not have been seen.
_RARE_SHARE = 0.1


def estimate(
    metric: Metric, records: Sequence[Record], *, seed: int = 0, resamples: int = 2000
) -> MetricValue:
    """The metric's value over `records` with its 95% interval, clustered by `Record.cluster`.

    The interval is bootstrap-t over clusters, cut at the metric's bounds. It is None, with a `reason`, with
    one cluster or where the value is undefined in most resamples. Where clusters are few it is widened, and
    `note` says so.
    """
    return estimate_all([metric], records, seed=seed, resamples=resamples)[metric.name]


def estimate_all(
    metrics: Sequence[Metric], records: Sequence[Record], *, seed: int = 0, resamples: int = 2000
) -> dict[str, MetricValue]:
    """`estimate` of every metric of a report, by name; metrics of the same clusters share their weights."""
    resampler, fixed = Resampler(seed, resamples), Records.of(records)
    return {metric.name: _estimate(metric, fixed, resampler) for metric in metrics}


def _estimate(metric: Metric, records: Sequence[Record], resampler: Resampler) -> MetricValue:
    if (reason := metric.reason(records)) is not None:
        return MetricValue(None, metric.unit, int(metric.selected(records).sum()), reason=reason)
    sums = ClusterSums.of(metric, records)
    value = sums.value()
    if not math.isfinite(value):
        return MetricValue(None, metric.unit, sums.n, reason="undefined for these answers")
    found, remark = interval(sums, resampler)
    if found is None:
        return MetricValue(value, metric.unit, sums.n, reason=remark)
    return MetricValue(value, metric.unit, sums.n, found, note=remark)


def interval(sums: ClusterSums, resampler: Resampler) -> tuple[Interval | None, str | None]:
    """The 95% interval of a value with a note for its readers, or None with the reason."""
    metric, value = sums.metric, sums.value()
    if sums.thinnest < 2:
        return None, "one cluster: no interval"
    few, note, freedom = None, None, sums.freedom()
    if freedom + 1 < FEW_CLUSTERS:
        few = Student(value, jackknife_error(metric.value, sums.rows), freedom)
        note = few_note(sums.thinnest, freedom + 1)
    slope = metric_slope(metric, sums.rows)
    error = standard_error(sums.rows @ slope(sums.rows.sum(axis=0)))
    if error <= _ROUNDING * max(1.0, abs(value)):
        same = alike(value, sums.effective, metric.bounds)
        return same, note if same else "all clusters alike: no interval"
    rarest = sums.rarest()
    rare = rarest is not None and rarest < RARE_CLUSTERS
    if metric.mean_range is not None and (rare or few):
        low, high = metric.mean_range
        unseen = rare and min(value - low, high - value) <= _RARE_SHARE * (high - low)
        return cut(_exact(sums, value, few.error if few else error, unseen), metric.bounds, value), note
    mover = _from_parts(sums, value, resampler) if sums.parts and (rare or few) else None
    if few and mover is not None:
        return cut(join(few.interval(), mover), metric.bounds, value), note
    replicates = replicate(metric.value, slope, sums.rows, resampler)
    found = bootstrap_t(replicates, few)
    if found is None:
        return None, "undefined in most resamples: no interval"
    if mover is not None:
        found = join(found, mover)
    if isinstance(metric, RootMeanSquare) and (heavy := _dominant(sums.rows[:, 0])):
        note = f"{note}; {heavy}" if note else heavy
    return cut(found, metric.bounds, value), note


def _dominant(squares: FloatArray) -> str | None:
    """That one cluster holds much of the squared error [clusters]; resamples then say little of its size."""
    share = float(squares.max() / squares.sum())
    if share <= _DOMINANT:
        return None
    return (
        f"one of {len(squares)} clusters holds {100 * share:.0f}% of the squared error: the interval is rough"
    )


def _exact(sums: ClusterSums, value: float, error: float, unseen: bool) -> Interval:
    """The interval of a bounded mean near an end of its range, or over few or unequal clusters.

    Clopper-Pearson on the effective number of samples, v (1 - v) / variance (Korn and Graubard 1998). It
    holds for any bounded score: of all with a given mean, those of 0 and 1 have the largest variance. Graded
    scores of many single samples are worth more, up to `_GRADED_WORTH`.
    Degrees of freedom lie between Korn and Graubard's, which count clusters, and the effective ones: over
    unequal clusters the former cover too little, the latter too much. Where outcomes are rare, clusters seen
    to fail may be the small ones; `rare_share` says how much the others may add.
    """
    assert sums.metric.mean_range is not None
    low, high = sums.metric.mean_range
    width = high - low
    share, n = (value - low) / width, sums.n
    most = n if sums.clusters < n or n < _MANY_SINGLES else _GRADED_WORTH * n
    effective = min(float(most), share * (1 - share) / (error / width) ** 2)
    if sums.freedom() + 1 < FEW_CLUSTERS:
        freedom = math.sqrt(sums.freedom() * (sums.clusters - 1))
        effective *= (quantile(0.975, n - 1) / quantile(0.975, freedom)) ** 2
    found = exact_share(share, effective)
    if unseen and sums.clusters < n:
        shares = sums.sizes / n
        hits = (sums.metric.value(sums.rows) - low) / width * shares
        if share <= 0.5:
            found = join(found, rare_share(hits, shares))
        else:
            ends = rare_share(shares - hits, shares)
            found = join(found, (1 - ends[1], 1 - ends[0]))
    return low + found[0] * width, low + found[1] * width


def _from_parts(sums: ClusterSums, value: float, resampler: Resampler) -> Interval | None:
    """A composite's limits from those of its parts (MOVER, Zou and Donner 2008). None where a part has none.

    (value - low)^2 = sum_i (slope_i (value_i - low_i))^2, and so above; parts are taken as independent.
    """
    assert isinstance(sums.metric, Composite)
    values = np.array([part.value() for part in sums.parts])
    below = above = 0.0
    for part, middle, slope in zip(sums.parts, values, part_slopes(sums.metric, values), strict=True):
        found, _ = interval(part, resampler)
        if found is None:
            return None
        ends = sorted((slope * (found[0] - middle), slope * (found[1] - middle)))
        below, above = below + ends[0] ** 2, above + ends[1] ** 2
    return value - math.sqrt(below), value + math.sqrt(above)
