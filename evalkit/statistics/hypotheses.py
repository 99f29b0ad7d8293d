"""McNemar's test, Holm's correction and the trend over checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import Record
from evalkit.metrics.base import FloatArray, Metric
from evalkit.statistics.functional import jackknife_error, metric_slope, replicate
from evalkit.statistics.intervals import FEW_CLUSTERS, Interval, Student, bootstrap_t, freedom, join
from evalkit.statistics.resampling import Clusters, ClusterSums, Resampler


@dataclass(frozen=True, slots=True)
class McNemar:
    """Discordant pairs of two runs on the same samples, with the exact two-sided p value."""

    right_to_wrong: int
    wrong_to_right: int
    p: float


def mcnemar(base: FloatArray, new: FloatArray) -> McNemar:
    """Exact McNemar test of 0/1 outcomes [n] of the same samples (McNemar 1947; binomial form).

    Assumes independent samples; within clusters it is only a companion to the clustered test.
    """
    from scipy.special import bdtr

    lost = int(((base == 1) & (new == 0)).sum())
    won = int(((base == 0) & (new == 1)).sum())
    p = min(1.0, 2 * float(bdtr(min(lost, won), lost + won, 0.5))) if lost + won else 1.0
    return McNemar(lost, won, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the given order: the chance of any false rejection stays at alpha (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True, slots=True)
class Trend:
    """Least-squares slope with its 95% interval.

    The interval holds both errors: that of the samples, clusters resampled alike at every checkpoint, and
    that of the checkpoints, which scatter about the line by more than the samples explain.
    """

    slope: float
    ci95: Interval | None


def trend(
    metric: Metric, series: Sequence[Sequence[Record]], places: FloatArray, resampler: Resampler
) -> Trend | None:
    """Slope of the metric per unit of `places`; None where a checkpoint's value cannot be computed.

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

    own_slopes = [metric_slope(metric, block) for block in blocks]

    def derivatives(sums: FloatArray) -> FloatArray:
        parts = [
            weight * own_slope(sums[..., i * width : (i + 1) * width])
            for i, (weight, own_slope) in enumerate(zip(weights, own_slopes, strict=True))
        ]
        return np.concatenate(parts, axis=-1)

    sums = np.concatenate(blocks, axis=1)
    value = float(slope(sums.sum(axis=0)))
    count = min(ClusterSums.of(metric, *both).thinnest for both in zip(series, statistics, strict=True))
    if count < 2 or not np.isfinite(value):
        return Trend(value, None) if np.isfinite(value) else None
    if count < FEW_CLUSTERS:
        student = Student(value, jackknife_error(slope, sums), freedom(clusters.sizes(), count))
        found: Interval | None = student.interval()
    else:
        found = bootstrap_t(replicate(slope, derivatives, sums, resampler))
    if found is None:
        return Trend(value, None)
    values = np.array([float(metric.value(block.sum(axis=0))) for block in blocks])
    return Trend(value, join(found, _scatter(value, values, away)))


def _scatter(slope: float, values: FloatArray, away: FloatArray) -> Interval:
    """Student's interval of a slope from the scatter of the checkpoints' values about the line.

    Two checkpoints have none: their slope is a contrast of two.
    """
    if len(values) < 3:
        return slope, slope
    rest = values - values.mean() - slope * away
    freedom = len(values) - 2
    error = float(np.sqrt(rest @ rest / freedom / (away @ away)))
    return Student(slope, error, freedom).interval()
