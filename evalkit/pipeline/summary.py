"""The summary of a run: values of metrics with what they rest on, or the reason where there is none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evalkit.contracts import Json, MetricValue, Record
from evalkit.metrics.repeated import over_repeats
from evalkit.near_miss import NEAR_MISS, ExactScores, is_wrong
from evalkit.reasoning import REASONING
from evalkit.task import Reference, Task


def metric_values(task: Task, records: Sequence[Record]) -> dict[str, MetricValue]:
    """Every metric of the report with its clustered interval, headline first."""
    from evalkit.statistics import estimate_all

    return estimate_all(over_repeats(task.metrics(), records), records)


def groups(task: Task, records: Sequence[Record]) -> dict[str, dict[str, dict[str, Json]]]:
    """`{tag: {value: {metric: {value, n}}}}` for the tags of `Task.group_by`.

    A metric without samples in a group is left out of it. Corpus constants (CIDEr's document frequencies) are
    those of all records.
    """
    members = {tag: _members(records, tag) for tag in task.group_by}
    if not any(members.values()):
        return {}
    report: dict[str, dict[str, dict[str, Json]]] = {
        tag: {value: {} for value in values} for tag, values in members.items()
    }
    for metric in over_repeats(task.group_metrics(), records):
        chosen = metric.selected(records)
        reason = metric.reason(records)
        rows = metric.statistics(records) if reason is None else None
        for tag, values in members.items():
            for value, places in values.items():
                n = int(chosen[places].sum())
                if n:
                    result = None if rows is None else float(metric.value(rows[places].sum(axis=0)))
                    report[tag][value][metric.name] = _grouped(result, n, reason)
    return report


def _members(records: Sequence[Record], tag: str) -> dict[str, np.ndarray[Any, np.dtype[np.intp]]]:
    found: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        if tag in record.tags:
            found.setdefault(record.tags[tag], []).append(place)
    return {value: np.array(places, dtype=np.intp) for value, places in found.items()}


def _grouped(value: float | None, n: int, reason: str | None) -> dict[str, Json]:
    if value is not None and math.isfinite(value):
        return {"value": value, "n": n}
    return {"value": None, "n": n, "reason": reason or "undefined for these answers"}


def metric_json(value: MetricValue) -> dict[str, Json]:
    """A metric's value in JSON: full precision, null with its reason where there is none."""
    number = value.value if value.value is not None and math.isfinite(value.value) else None
    interval = value.ci95 if number is not None else None
    content: dict[str, Json] = {
        "value": number,
        "unit": value.unit,
        "n": value.n,
        "ci95": list(interval) if interval is not None and all(map(math.isfinite, interval)) else None,
    }
    reason = value.reason or ("undefined for these answers" if number is None else None)
    remarks = {"reason": reason, "note": value.note}
    return {**content, **{name: text for name, text in remarks.items() if text}}


def metric_from_json(content: Mapping[str, Any]) -> MetricValue:
    """The inverse of `metric_json`."""
    interval = content.get("ci95")
    return MetricValue(
        content.get("value"),
        str(content.get("unit", "")),
        int(content.get("n") or 0),
        (float(interval[0]), float(interval[1])) if interval else None,
        content.get("reason"),
        content.get("note"),
    )


def counts(records: Iterable[Record], expected: int) -> dict[str, int]:
    """Samples asked, answered, failed, and answers that could not be parsed, were cut or are near misses, or
    were refused, or whose reasoning was kept apart (the last two where there are such)."""
    found = {"expected": expected, "answered": 0, "errors": 0, "unparsed": 0, "truncated": 0, "near_miss": 0}
    for record in records:
        found["errors" if record.failed else "answered"] += 1
        found["unparsed"] += "unparsed" in record.flags
        kind = record.error.kind if record.error is not None else ""
        found["truncated"] += "truncated" in record.flags or kind == "truncated"
        if kind == "refused":
            found["refused"] = found.get("refused", 0) + 1
        found["near_miss"] += NEAR_MISS in record.flags
        if REASONING in record.data:
            found[REASONING] = found.get(REASONING, 0) + 1
    return found


def failures(records: Iterable[Record]) -> dict[str, int]:
    """Samples without an answer by the kind of failure, the commonest first."""
    kinds = Counter(record.error.kind for record in records if record.error is not None)
    return dict(kinds.most_common())


def near_misses(records: Iterable[Record], names: ExactScores) -> dict[str, Json]:
    """Wrong answers, and how many are near misses of which kind, the commonest first; empty without any."""
    wrong, kinds = 0, Counter[str]()
    for record in records:
        wrong += is_wrong(record.scores, names) is True
        if NEAR_MISS in record.flags:
            kinds[str(record.data[NEAR_MISS])] += 1
    return {"wrong": wrong, "kinds": dict(kinds.most_common())} if kinds else {}


def status(found: Mapping[str, int], limited: bool, excerpt: bool = False) -> str:
    """`complete`, `excerpt`, `partial` (limited, or samples without response) or `failed` (nothing answered).

    Args:
        excerpt: the files at hand hold fewer samples than the benchmark publishes.
    """
    if found["answered"] + found["errors"] < found["expected"]:
        return "partial"
    if found["expected"] and not found["answered"]:
        return "failed"
    if limited:
        return "partial"
    return "excerpt" if excerpt else "complete"


def published_rows(task: Task, split: str) -> list[dict[str, Json]]:
    """The published rows to set beside a run on `split`, those measured on it first.

    Of a table that has rows for several splits (two test sets, two languages), only those that fit; all of a
    table where none fits.
    """
    rows = task.published_rows
    fitting = {row.table for row in rows if split in (row.split, *row.stand_ins)}
    chosen = [row for row in rows if row.table not in fitting or split in (row.split, *row.stand_ins)]
    return [reference_json(row) for row in sorted(chosen, key=lambda row: row.split != split)]


def reference_json(row: Reference) -> dict[str, Json]:
    """A published row."""
    content: dict[str, Json] = {"table": row.table, "model": row.model, "metrics": dict(row.metrics)}
    if row.size:
        content["size"] = row.size
    if row.split:
        content["split"] = row.split
    if row.note:
        content["note"] = row.note
    return content
