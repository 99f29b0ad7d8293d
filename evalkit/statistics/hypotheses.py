"""McNemar's test, Holm's correction, power and sample size, and the trend over checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import Record
from evalkit.metrics.base import FloatArray, Metric
from evalkit.statistics.functional import jackknife_error, metric_gradient, replicate
from evalkit.statistics.intervals import FEW_CLUSTERS, Interval, Student, bootstrap_t, freedom
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
    from scipy.stats import binomtest

    lost = int(((base == 1) & (new == 0)).sum())
    won = int(((base == 0) & (new == 1)).sum())
    p = float(binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0
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


def detectable(se: float, freedom: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true change that a two-sided test at `alpha` finds with probability `power`.

    (t_{alpha/2} + t_{power}) se, with Student's quantiles.

    Args:
        se: clustered standard error of the difference. freedom: clusters less one.
    """
    from scipy.stats import t

    return float((t.ppf(1 - alpha / 2, freedom) + t.ppf(power, freedom)) * se)


@dataclass(frozen=True, slots=True)
class SampleSize:
    """Data needed to see a change: clusters, and samples at the stored run's samples per cluster."""

    clusters: int
    samples: int


def needed(
    change: float, se: float, clusters: int, samples: int, alpha: float = 0.05, power: float = 0.8
) -> SampleSize:
    """Clusters and samples that make `change` detectable, from a standard error seen with others.

    The variance of a clustered value falls as 1 / clusters, so the error with G clusters is
    se sqrt(clusters / G); the smallest G with `detectable` <= change is found by bisection.

    Args:
        change: positive, in the metric's unit.
        se, clusters, samples: of the difference as measured.
    """
    if change <= 0:
        raise ValueError("the change to detect must be positive")

    def enough(count: int) -> bool:
        return detectable(se * math.sqrt(clusters / count), count - 1, alpha, power) <= change

    high = 2
    while not enough(high):
        high *= 2
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return SampleSize(low, math.ceil(low * samples / clusters))


@dataclass(frozen=True, slots=True)
class Trend:
    """Least-squares slope with its 95% interval, clusters resampled alike at every checkpoint."""

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

    def derivatives(sums: FloatArray) -> FloatArray:
        parts = [
            weight * metric_gradient(metric, sums[..., i * width : (i + 1) * width], block)
            for i, (weight, block) in enumerate(zip(weights, blocks, strict=True))
        ]
        return np.concatenate(parts, axis=-1)

    sums = np.concatenate(blocks, axis=1)
    value = float(slope(sums.sum(axis=0)))
    count = min(ClusterSums.of(metric, *both).thinnest for both in zip(series, statistics, strict=True))
    if count < 2 or not np.isfinite(value):
        return Trend(value, None) if np.isfinite(value) else None
    if count < FEW_CLUSTERS:
        student = Student(value, jackknife_error(slope, sums), freedom(clusters.sizes(), count))
        return Trend(value, student.interval())
    return Trend(value, bootstrap_t(replicate(slope, derivatives, sums, resampler)))
