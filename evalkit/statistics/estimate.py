"""A metric's figure with its clustered interval."""

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
from evalkit.statistics.resampling import Resampler, Tally

#: Below this share of the value's size a standard error is rounding.
_ROUNDING = 1e-10


def estimate(
    metric: Metric, records: Sequence[Record], *, seed: int = 0, resamples: int = 2000
) -> MetricValue:
    """The metric's value over `records` with its 95% interval, clustered by `Record.cluster`.

    The interval is bootstrap-t over clusters, cut at the metric's bounds. It is None, with a `reason`, with
    one cluster or where the figure is undefined in most resamples. Where clusters are few it is widened, and
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
        n = int(metric.selected(records).sum())
        return MetricValue(None, metric.unit, n, reason=reason)
    return estimate_tally(Tally.of(metric, records), resampler)


def estimate_tally(tally: Tally, resampler: Resampler) -> MetricValue:
    """The figure of a tally with its interval, or why there is none."""
    metric, value = tally.metric, tally.value()
    if not math.isfinite(value):
        return MetricValue(None, metric.unit, tally.n, reason="undefined for these answers")
    found, said = interval(tally, resampler)
    if found is None:
        return MetricValue(value, metric.unit, tally.n, reason=said)
    return MetricValue(value, metric.unit, tally.n, found, note=said)


def interval(tally: Tally, resampler: Resampler) -> tuple[Interval | None, str | None]:
    """95% interval of a figure and what must be said about it, or None and why."""
    metric, count, value = tally.metric, tally.thinnest, tally.value()
    if count < 2:
        return None, "one cluster: no interval"
    few, note = None, None
    if count < FEW_CLUSTERS:
        few = Student(value, jackknife_error(metric.value, tally.sums), freedom(tally.sizes, count))
        note = few_note(count)
    replicates = replicate(
        metric.value, lambda sums: metric_gradient(metric, sums, tally.sums), tally.sums, resampler
    )
    if replicates.se <= _ROUNDING * max(1.0, abs(value)):
        same = alike(value, count, metric.bounds)
        return same, note if same else "all clusters alike: no interval"
    found = bootstrap_t(replicates, few)
    if found is None:
        return None, "undefined in most resamples: no interval"
    if (scarce := _scarce(tally, value, replicates.se, resampler)) is not None:
        found = join(found, scarce)
    return cut(found, metric.bounds, value), note


def _scarce(tally: Tally, value: float, se: float, resampler: Resampler) -> Interval | None:
    """For a share whose rarer outcome lies in a handful of clusters the exact interval; for a composite
    with such a part, what its parts' intervals make of it."""
    rarest, scale = tally.rarest(), tally.metric.bounds[1]
    if rarest is None or rarest >= RARE_CLUSTERS:
        return None
    if tally.parts:
        return _from_parts(tally, value, resampler)
    if not math.isfinite(scale):
        return None
    share = value / scale
    effective = min(float(tally.n), share * (1 - share) * (scale / se) ** 2)
    low, high = exact_share(share, effective)
    return low * scale, high * scale


def _from_parts(tally: Tally, value: float, resampler: Resampler) -> Interval | None:
    """A composite's limits from those of its parts (MOVER, Zou and Donner 2008); None where a part has none.

    (value - low)^2 = sum_i (slope_i (value_i - low_i))^2, and so above; parts are taken as independent.
    """
    assert isinstance(tally.metric, Composite)
    values = np.array([part.value() for part in tally.parts])
    below = above = 0.0
    for part, figure, slope in zip(tally.parts, values, part_slopes(tally.metric, values), strict=True):
        found, _ = interval(part, resampler)
        if found is None:
            return None
        ends = sorted((slope * (found[0] - figure), slope * (found[1] - figure)))
        below, above = below + ends[0] ** 2, above + ends[1] ** 2
    return value - math.sqrt(below), value + math.sqrt(above)
