"""How small a change a comparison can show, and how much data a change needs."""

from __future__ import annotations

import math
from dataclasses import dataclass


def detectable(se: float, freedom: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true change that a two-sided test at `alpha` finds with probability `power`.

    (t_{alpha/2} + t_{power}) se, with Student's quantiles.

    Args:
        se: clustered standard error of the difference. freedom: clusters less one.
    """
    from scipy.stats import t

    return float((t.ppf(1 - alpha / 2, freedom) + t.ppf(power, freedom)) * se)


@dataclass(frozen=True, slots=True)
class Need:
    """Data needed to see a change: clusters, and samples at the stored run's samples per cluster."""

    clusters: int
    samples: int


def needed(
    change: float, se: float, clusters: int, samples: int, alpha: float = 0.05, power: float = 0.8
) -> Need:
    """Clusters and samples that make `change` detectable, from a standard error seen with others.

    The variance of a clustered figure falls as 1 / clusters, so the error with G clusters is
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
    return Need(low, math.ceil(low * samples / clusters))
