"""Intervals, paired comparison and power of any metric from one clustered resampling path."""

from __future__ import annotations

from evalkit.statistics.estimate import estimate, estimate_all
from evalkit.statistics.resampling import Clusters, Resampler, Tally

__all__ = ["Clusters", "Resampler", "Tally", "estimate", "estimate_all"]
