"""Values as smooth functions of cluster sums, with the standard error of every resample.

A metric, the difference of a metric between two runs and the slope of a metric over checkpoints are all
functions F of column sums. With d_g = grad F . S_g the influence of cluster g, the clustered standard error
is sqrt(G / (G - 1) * sum_g (d_g - mean d)^2): the delta method with the usual small-sample factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evalkit.metrics.base import BoolArray, Composite, FloatArray, Metric
from evalkit.statistics.resampling import Resampler, in_groups

#: Maps column sums [..., k] to values [...]; NaN where undefined.
Functional = Callable[[FloatArray], FloatArray]

#: Step of the numerical derivative, as a share of a column's total.
_STEP = 1e-6
#: Standard errors below this share of the sample's own are rounding: the resample has no variance.
_NOTHING = 1e-7


def slope_of(function: Functional, cluster_sums: FloatArray) -> Functional:
    """Derivatives of `function` by every column, [..., k], as a function of sums [..., k].

    Central differences; at the edge of a column that holds no negative number, one-sided. What follows from
    the clusters is found once.
    """
    steps = _STEP * np.abs(cluster_sums).sum(axis=0)
    positive = cluster_sums.min(axis=0) >= 0

    def slope(sums: FloatArray) -> FloatArray:
        result = np.zeros_like(sums)
        for column in np.flatnonzero(steps > 0):
            above, below = sums.copy(), sums.copy()
            above[..., column] += steps[column]
            below[..., column] -= steps[column]
            if positive[column]:
                below[..., column] = np.maximum(below[..., column], 0.0)
            distance = above[..., column] - below[..., column]
            result[..., column] = (function(above) - function(below)) / distance
        return result

    return slope


def metric_gradient(metric: Metric, sums: FloatArray, cluster_sums: FloatArray) -> FloatArray:
    """`metric_slope` at the sums given."""
    return metric_slope(metric, cluster_sums)(sums)


def metric_slope(metric: Metric, cluster_sums: FloatArray) -> Functional:
    """`slope_of` a metric's value; of a composite by the chain rule, a column moving its part alone."""
    if not isinstance(metric, Composite):
        return slope_of(metric.value, cluster_sums)
    blocks = zip(metric.parts, metric.blocks(cluster_sums), strict=True)
    parts = [(part, metric_slope(part, own)) for part, own in blocks]

    def slope(sums: FloatArray) -> FloatArray:
        given = metric.blocks(sums)
        values = np.stack([part.value(block) for (part, _), block in zip(parts, given, strict=True)], axis=-1)
        slopes = part_slopes(metric, values)
        columns = [
            of_part(block) * slopes[..., place, None]
            for place, ((_, of_part), block) in enumerate(zip(parts, given, strict=True))
        ]
        return np.concatenate(columns, axis=-1)

    return slope


def part_slopes(metric: Composite, values: FloatArray) -> FloatArray:
    """Derivatives of a composite by its parts' values, at `values` [..., parts]."""
    slopes = np.zeros_like(values)
    for place in range(values.shape[-1]):
        step = np.zeros(values.shape[-1])
        step[place] = _STEP * (1.0 + np.nanmax(np.abs(values[..., place]), initial=0.0))
        rise = metric.combine(values + step) - metric.combine(values - step)
        slopes[..., place] = rise / (2 * step[place])
    return slopes


def standard_error(influence: FloatArray) -> float:
    """Clustered standard error from the clusters' influences."""
    count = len(influence)
    spread = influence - influence.mean()
    return float(np.sqrt(count / (count - 1) * (spread @ spread)))


def jackknife_error(function: Functional, cluster_sums: FloatArray) -> float:
    """Standard error from leaving out one cluster at a time.

    Larger than the delta method's where clusters are few and unequal, and there the more honest one
    (MacKinnon, Nielsen and Webb 2023, "CV3").
    """
    count, total = len(cluster_sums), cluster_sums.sum(axis=0)
    with np.errstate(all="ignore"):
        changes = function(total - cluster_sums) - function(total)
    return float(np.sqrt((count - 1) / count * np.nansum(changes**2)))


@dataclass(frozen=True, slots=True)
class Replicates:
    """A value with its resamples.

    Attributes:
        value: over the sample; se: its clustered standard error.
        values, errors: value and standard error of each resample, [resamples], NaN where undefined.
    """

    value: float
    se: float
    values: FloatArray
    errors: FloatArray

    @property
    def defined(self) -> BoolArray:
        """Resamples of which the studentised deviation can be taken, [resamples]."""
        with np.errstate(invalid="ignore"):
            usable: BoolArray = np.isfinite(self.values) & (self.errors > _NOTHING * self.se)
        return usable

    def deviations(self) -> FloatArray:
        """(resampled value - value) / error of the usable resamples, sorted."""
        keep = self.defined
        return np.sort((self.values[keep] - self.value) / self.errors[keep])


def replicate(
    function: Functional, slope: Functional, cluster_sums: FloatArray, resampler: Resampler
) -> Replicates:
    """Resample clusters and evaluate `function` and its standard error on each resample.

    Args:
        slope: derivatives [..., k] of the function at column sums [..., k].
        cluster_sums: statistics by cluster, [clusters, k], at least two clusters.
    """
    total = cluster_sums.sum(axis=0)
    value = float(function(total))
    values, errors = [], []
    with np.errstate(all="ignore"):
        se = standard_error(cluster_sums @ slope(total))
        cluster_sums = in_groups(cluster_sums, resampler.seed)
        count = len(cluster_sums)
        for weights in resampler.weights(count):
            sums = weights @ cluster_sums
            values.append(function(sums))
            influence = slope(sums) @ cluster_sums.T
            weights *= influence
            total = weights.sum(axis=1)
            squares = np.einsum("bg,bg->b", weights, influence)
            del weights, influence  # before the next are made
            variance = count / (count - 1) * (squares - total**2 / count)
            errors.append(np.sqrt(np.maximum(variance, 0.0)))
    return Replicates(value, se, np.concatenate(values), np.concatenate(errors))
