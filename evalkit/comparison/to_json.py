"""A comparison as the JSON document of `compare --json`."""

from __future__ import annotations

import math
from typing import Any

from evalkit.comparison.compare import Comparison, TaskComparison
from evalkit.comparison.verdicts import MetricResult
from evalkit.contracts import Json


def comparison_json(comparison: Comparison) -> dict[str, Json]:
    """Verdict, metrics, flips by task, reasons; full precision, no NaN or Infinity."""
    return {
        "verdict": comparison.verdict,
        "base": comparison.base,
        "new": comparison.new,
        "alpha": comparison.alpha,
        "metrics": [metric_json(result) for result in comparison.metrics],
        "flips": {str(task.key): task.flips.to_json(task.tags) for task in comparison.tasks},
        "tasks": [_task_json(task) for task in comparison.tasks],
        "forgetting": [change.to_json() for change in comparison.forgetting],
        "reasons": list(comparison.reasons),
    }


def refusal_json(reason: str) -> dict[str, Json]:
    """The document of runs that cannot be compared."""
    return {"verdict": "not_comparable", "metrics": [], "flips": {}, "reasons": [reason]}


def metric_json(result: MetricResult) -> dict[str, Json]:
    """One element of `metrics`."""
    difference = result.difference
    exact = difference.mcnemar
    return {
        "task": result.key.task,
        "split": result.key.split,
        "metric": result.name,
        "unit": difference.metric.unit,
        "higher_is_better": difference.metric.higher_is_better,
        "base": _finite(difference.base),
        "new": _finite(difference.new),
        "difference": _finite(difference.difference),
        "ci95": None if difference.ci95 is None else [_finite(end) for end in difference.ci95],
        "p": _finite(difference.p),
        "p_adjusted": _finite(result.p_adjusted),
        "verdict": result.verdict,
        "detectable": _finite(result.detectable),
        "n": difference.n,
        "clusters": difference.clusters,
        "judged": result.judged,
        "max_drop": result.max_drop,
        "margin": result.margin,
        "failure": result.failure,
        "mcnemar": None
        if exact is None
        else {"right_to_wrong": exact.right_to_wrong, "wrong_to_right": exact.wrong_to_right, "p": exact.p},
        "notes": list(result.notes),
    }


def _task_json(task: TaskComparison) -> dict[str, Json]:
    return {
        "task": task.key.task,
        "split": task.key.split,
        "base": str(task.base),
        "new": str(task.new),
        "samples": task.samples,
        "answered": task.answered,
        "clusters": task.clusters,
        "groups": group_rows(task),
    }


def group_rows(task: TaskComparison) -> list[dict[str, Any]]:
    """The per-tag table: a row for each tag value and metric, with the flips in it."""
    counts = task.flips.by_tag(task.tags)
    rows = []
    for tag, values in task.base_groups.items():
        for value, metrics in values.items():
            lost, won = counts.get(tag, {}).get(value, (0, 0))
            for name, before in metrics.items():
                after = task.new_groups.get(tag, {}).get(value, {}).get(name, {})
                base, new = before.get("value"), after.get("value")
                rows.append(
                    {
                        "tag": tag,
                        "value": value,
                        "metric": name,
                        "n": before.get("n"),
                        "base": base,
                        "new": new,
                        "difference": None if base is None or new is None else new - base,
                        "right_to_wrong": lost,
                        "wrong_to_right": won,
                    }
                )
    return rows


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
