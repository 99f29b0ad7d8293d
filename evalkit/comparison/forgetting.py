"""What a model gained in its domain beside what it lost in general, as in Fig. 4 of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evalkit import registry
from evalkit.comparison.verdicts import MetricResult
from evalkit.contracts import Json
from evalkit.statistics.intervals import quantile
from evalkit.task import Task

#: The suite that a domain-adapted model may forget.
GENERAL = "general"


@dataclass(frozen=True, slots=True)
class SuiteChange:
    """Mean change of the headline metrics of a suite's tasks, in points.

    Attributes:
        headlines: each task's headline metric, where both sides have a value.
        change: mean gain in points (percent, or a fraction times 100). ci95: of the mean, tasks independent.
    """

    suite: str
    headlines: tuple[MetricResult, ...]
    change: float
    ci95: tuple[float, float] | None

    def to_json(self) -> dict[str, Json]:
        """Suite, tasks, mean change and interval."""
        return {
            "suite": self.suite,
            "tasks": [str(result.key) for result in self.headlines],
            "change": self.change,
            "ci95": list(self.ci95) if self.ci95 else None,
        }


def headline(task: Task, results: Sequence[MetricResult]) -> MetricResult | None:
    """The task's headline metric, or the first after it that has a value in points on both sides."""
    usable = [result for result in results if _scale(result) and result.difference.gain is not None]
    return next((r for r in usable if r.name == task.headline), next(iter(usable), None))


def forgetting(points: Sequence[MetricResult]) -> list[SuiteChange]:
    """Changes of the suites compared, general first, then the domains; empty unless both kinds are there.

    Args:
        points: headline of each task.
    """
    changes = []
    for name, suite in registry.suites().items():
        members = {target.task for target in suite.targets()}
        chosen = tuple(result for result in points if result.key.task in members)
        if suite.table is None and chosen:
            changes.append(_change(name, chosen))
    changes.sort(key=lambda change: change.suite != GENERAL)
    return changes if len(changes) > 1 and changes[0].suite == GENERAL else []


def _scale(result: MetricResult) -> float | None:
    return {"percent": 1.0, "fraction": 100.0}.get(result.difference.metric.unit)


def _change(name: str, headlines: tuple[MetricResult, ...]) -> SuiteChange:
    gains, variances, weights = [], [], []
    for result in headlines:
        scale = _scale(result) or 1.0
        gains.append(scale * (result.difference.gain or 0.0))
        variances.append(None if result.difference.se is None else (scale * result.difference.se) ** 2)
        weights.append((variances[-1] or 0.0) ** 2 / result.difference.freedom)
    mean = sum(gains) / len(gains)
    known = [variance for variance in variances if variance is not None]
    if len(known) < len(variances):
        return SuiteChange(name, headlines, mean, None)
    # Satterthwaite's degrees of freedom: few clusters in one task make the mean's error uncertain
    freedom = sum(known) ** 2 / sum(weights) if sum(weights) > 0 else math.inf
    reach = quantile(0.975, freedom) * math.sqrt(sum(known)) / len(known)
    return SuiteChange(name, headlines, mean, (mean - reach, mean + reach))
