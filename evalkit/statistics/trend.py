"""The slope of a metric over checkpoints that answered the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import Record
from evalkit.metrics.base import FloatArray, Metric
from evalkit.statistics.functional import jackknife_error, metric_gradient, replicate
from evalkit.statistics.intervals import FEW_CLUSTERS, Interval, Student, bootstrap_t, freedom
from evalkit.statistics.resampling import Clusters, Resampler, Tally


@dataclass(frozen=True, slots=True)
class Trend:
    """Least-squares slope with its 95% interval, clusters resampled alike at every checkpoint."""

    slope: float
    ci95: Interval | None


def trend(
    metric: Metric, series: Sequence[Sequence[Record]], places: FloatArray, resampler: Resampler
) -> Trend | None:
    """Slope of the metric per unit of `places`; None where a checkpoint's figure cannot be computed.

    Args:
        series: [checkpoints] of [n] records of the same samples in the same order.
        places: [checkpoints], where each lies (step or number), not all the same.
    """
    if any(metric.reason(records) is not None for records in series):
        return None
    clusters = Clusters.of([record.cluster for record in series[0]])
    statistics = [metric.statistics(records) for records in series]
    blocks = [clusters.sums(rows) for rows in statistics]
    width = blocks[0].shape[1]
    away = places - places.mean()
    weights = away / (away @ away)

    def slope(sums: FloatArray) -> FloatArray:
        values = [metric.value(sums[..., i * width : (i + 1) * width]) for i in range(len(blocks))]
        result: FloatArray = np.stack(values, axis=-1) @ weights
        return result

    def derivatives(sums: FloatArray) -> FloatArray:
        parts = [
            weight * metric_gradient(metric, sums[..., i * width : (i + 1) * width], block)
            for i, (weight, block) in enumerate(zip(weights, blocks, strict=True))
        ]
        return np.concatenate(parts, axis=-1)

    sums = np.concatenate(blocks, axis=1)
    value = float(slope(sums.sum(axis=0)))
    count = min(Tally.of(metric, *both).thinnest for both in zip(series, statistics, strict=True))
    if count < 2 or not np.isfinite(value):
        return Trend(value, None) if np.isfinite(value) else None
    if count < FEW_CLUSTERS:
        student = Student(value, jackknife_error(slope, sums), freedom(clusters.sizes(), count))
        return Trend(value, student.interval())
    return Trend(value, bootstrap_t(replicate(slope, derivatives, sums, resampler)))
