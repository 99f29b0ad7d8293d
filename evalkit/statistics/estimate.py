"""A metric's figure with its clustered interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evalkit.contracts import MetricValue, Record
from evalkit.metrics.base import Metric
from evalkit.statistics.intervals import percentile
from evalkit.statistics.resampling import Resampler, Tally


def estimate(
    metric: Metric, records: Sequence[Record], *, seed: int = 0, resamples: int = 2000
) -> MetricValue:
    """The metric's value over `records` with its 95% interval, clustered by `Record.cluster`."""
    return estimate_all([metric], records, seed=seed, resamples=resamples)[metric.name]


def estimate_all(
    metrics: Sequence[Metric], records: Sequence[Record], *, seed: int = 0, resamples: int = 2000
) -> dict[str, MetricValue]:
    """`estimate` of every metric of a report, by name; the metrics share their cluster weights."""
    resampler = Resampler(seed, resamples)
    return {metric.name: _estimate(metric, records, resampler) for metric in metrics}


def _estimate(metric: Metric, records: Sequence[Record], resampler: Resampler) -> MetricValue:
    if (reason := metric.reason(records)) is not None:
        n = int(metric.selected(records).sum())
        return MetricValue(None, metric.unit, n, reason=reason)
    tally = Tally.of(metric, records)
    value = tally.value()
    if not math.isfinite(value):
        return MetricValue(None, metric.unit, tally.n, reason="undefined for these answers")
    if tally.clusters < 2:
        return MetricValue(value, metric.unit, tally.n, reason="one cluster: no interval")
    replicates = metric.value(resampler.sums(tally.sums))
    replicates = replicates[np.isfinite(replicates)]
    if 2 * len(replicates) < resampler.resamples:
        return MetricValue(value, metric.unit, tally.n, reason="undefined in most resamples: no interval")
    return MetricValue(value, metric.unit, tally.n, percentile(replicates, tally.clusters))
