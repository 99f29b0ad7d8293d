"""A metric's value with its clustered interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evalkit.contracts import MetricValue, Record
from evalkit.metrics.base import Composite, Metric
from evalkit.statistics.functional import jackknife_error, metric_gradient, part_slopes, replicate
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
    freedom,
    join,
)
from evalkit.statistics.resampling import ClusterSums, Resampler

#: Below this share of the value's size a standard error is rounding.
_ROUNDING = 1e-10


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
    resampler = Resampler(seed, resamples)
    return {metric.name: _estimate(metric, records, resampler) for metric in metrics}


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
    metric, count, value = sums.metric, sums.thinnest, sums.value()
    if count < 2:
        return None, "one cluster: no interval"
    few, note = None, None
    if count < FEW_CLUSTERS:
        few = Student(value, jackknife_error(metric.value, sums.rows), freedom(sums.sizes, count))
        note = few_note(count)
    replicates = replicate(
        metric.value, lambda at: metric_gradient(metric, at, sums.rows), sums.rows, resampler
    )
    if replicates.se <= _ROUNDING * max(1.0, abs(value)):
        same = alike(value, count, metric.bounds)
        return same, note if same else "all clusters alike: no interval"
    found = bootstrap_t(replicates, few)
    if found is None:
        return None, "undefined in most resamples: no interval"
    if (scarce := _scarce(sums, value, replicates.se, resampler)) is not None:
        found = join(found, scarce)
    return cut(found, metric.bounds, value), note


def _scarce(sums: ClusterSums, value: float, se: float, resampler: Resampler) -> Interval | None:
    """The exact interval of a share whose rarer outcome lies in a handful of clusters.

    For a composite with such a part, the interval that follows from its parts' intervals. None for others.
    """
    rarest, scale = sums.rarest(), sums.metric.bounds[1]
    if rarest is None or rarest >= RARE_CLUSTERS:
        return None
    if sums.parts:
        return _from_parts(sums, value, resampler)
    if not math.isfinite(scale):
        return None
    share = value / scale
    effective = min(float(sums.n), share * (1 - share) * (scale / se) ** 2)
    low, high = exact_share(share, effective)
    return low * scale, high * scale


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
