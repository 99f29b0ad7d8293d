"""Is it better, or is it noise? Comparison of results and the gate."""

from __future__ import annotations

from evalkit.comparison.api import compare
from evalkit.comparison.compare import Comparison, TaskComparison, compare_runs, comparison_json
from evalkit.comparison.flips import Flip, Flips
from evalkit.comparison.runs import Key
from evalkit.comparison.verdicts import MetricResult, Thresholds

__all__ = [
    "Comparison",
    "Flip",
    "Flips",
    "Key",
    "MetricResult",
    "TaskComparison",
    "Thresholds",
    "compare",
    "compare_runs",
    "comparison_json",
]
