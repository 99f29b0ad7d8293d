"""Intervals, paired comparison and power of any metric from one clustered resampling path."""

from __future__ import annotations

from evalkit.statistics.estimate import estimate, estimate_all
from evalkit.statistics.hypotheses import McNemar, holm, mcnemar
from evalkit.statistics.paired import Difference, difference
from evalkit.statistics.power import Need, detectable, needed
from evalkit.statistics.resampling import Clusters, Resampler, Tally
from evalkit.statistics.trend import Trend, trend

__all__ = [
    "Clusters",
    "Difference",
    "McNemar",
    "Need",
    "Resampler",
    "Tally",
    "Trend",
    "detectable",
    "difference",
    "estimate",
    "estimate_all",
    "holm",
    "mcnemar",
    "needed",
    "trend",
]
