"""Intervals, paired comparison and power of any metric from one clustered resampling path."""

from __future__ import annotations

from evalkit.statistics.estimate import estimate, estimate_all
from evalkit.statistics.hypotheses import McNemar, Trend, holm, mcnemar, trend
from evalkit.statistics.paired import Difference, difference
from evalkit.statistics.power import SampleSize, Spread, needed
from evalkit.statistics.resampling import Clusters, ClusterSums, Resampler

__all__ = [
    "ClusterSums",
    "Clusters",
    "Difference",
    "McNemar",
    "Resampler",
    "SampleSize",
    "Spread",
    "Trend",
    "difference",
    "estimate",
    "estimate_all",
    "holm",
    "mcnemar",
    "needed",
    "trend",
]
