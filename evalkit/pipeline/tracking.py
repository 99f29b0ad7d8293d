"""A finished run in the trackers that the user named (`--log-to`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evalkit.contracts import Json
from evalkit.pipeline.options import RunSettings
from evalkit.pipeline.results import RunResult
from evalkit.store.records import read_table, rows_of
from evalkit.trackers.base import TrackedRun, Trackers

#: Columns of the table of samples; the scores come after them.
_COLUMNS = ("id", "question", "text", "target", "error_message")


def log_result(result: RunResult, options: RunSettings) -> None:
    """Hand the run's manifest, figures and, on request, samples to each tracker; none can stop the run."""
    asked = options.trackers
    if not asked:
        return
    trackers = Trackers(asked, _run(result, options.offline))
    trackers.log(figures(result.summary))
    if options.log_samples:
        trackers.table("samples", *_samples(result))
    trackers.finish()


def figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Values by name: `drivelm/accuracy`, with `.ci95_low`, `.ci95_high`, `.n`; `drivelm/counts.errors`.

    A metric without a value is left out.
    """
    task = summary["task"]
    found: dict[str, float] = {}
    for name, content in summary["metrics"].items():
        if content["value"] is None:
            continue
        found[f"{task}/{name}"] = content["value"]
        found[f"{task}/{name}.n"] = content["n"]
        if interval := content.get("ci95"):
            found[f"{task}/{name}.ci95_low"], found[f"{task}/{name}.ci95_high"] = interval
    return {**found, **{f"{task}/counts.{name}": count for name, count in summary["counts"].items()}}


def _run(result: RunResult, offline: bool) -> TrackedRun:
    summary = result.summary
    names = ("model", "task", "split", "protocol", "status", "signature", "run")
    return TrackedRun(
        id=result.path.name,
        name=f"{summary['model']} {summary['task']}@{summary['split']}",
        config={**{name: summary[name] for name in names}, "manifest": result.manifest},
        folder=result.path,
        offline=offline,
        tags=("evaluation",),
    )


def _samples(result: RunResult) -> tuple[list[str], list[list[Json]]]:
    """Columns and rows."""
    rows = list(rows_of(read_table(result.path)))
    scores = list(dict.fromkeys(name for row in rows for name, _ in row["scores"]))
    lines = []
    for row in rows:
        row["target"] = _text(row["target"])
        values = dict(row["scores"])
        lines.append([*(row[name] for name in _COLUMNS), *(_finite(values.get(name)) for name in scores)])
    return [*_COLUMNS, *scores], lines


def _text(content: str) -> str:
    """A JSON text as it reads: the text itself where it is one."""
    value = json.loads(content)
    return value if isinstance(value, str) else content


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None
