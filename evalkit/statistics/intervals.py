"""95% intervals from bootstrap replicates."""

from __future__ import annotations

import math

import numpy as np

from evalkit.metrics.base import FloatArray


def tail(clusters: int, level: float = 0.95) -> float:
    """Tail probability of the expanded percentile interval (Hesterberg 2015, The American Statistician 69:4).

    The percentile interval is too narrow by sqrt(1 - 1/G) and uses normal where Student's quantiles belong;
    both are made good by quantiles further out: Phi(-sqrt(G / (G - 1)) t_{G-1}).
    """
    from scipy.stats import norm, t

    quantile = t.ppf(0.5 + level / 2, clusters - 1)
    return float(norm.cdf(-math.sqrt(clusters / (clusters - 1)) * quantile))


def percentile(replicates: FloatArray, clusters: int) -> tuple[float, float]:
    """Expanded percentile interval of finite replicates."""
    share = tail(clusters)
    low, high = np.quantile(replicates, [share, 1 - share])
    return float(low), float(high)
