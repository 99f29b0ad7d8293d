"""A sweep as Markdown: scores against the first point, what each training took, scores by step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from evalkit.statistics.intervals import Interval
from mini_internvl_train.sweep_outcomes import Outcome
from mini_internvl_train.sweep_scores import PointScore, TaskScores

Group = tuple[str, Sequence[Outcome]]
"""A point's label and its trainings, one a seed."""


def table(groups: Sequence[Group], scores: Sequence[TaskScores]) -> list[str]:
    """All tables that there is something for."""
    parts = [_scores(scores), _costs(groups), _steps(groups)]
    lines: list[str] = []
    for part in parts:
        if part:
            lines += ["", *part] if lines else part
    return lines


def _scores(scores: Sequence[TaskScores]) -> list[str]:
    """Each task's headline metric at each point."""
    if not scores:
        return []
    base = scores[0].points[0].label
    rows = [
        f"| task | metric | point | value, 95% interval | against {base} | p (Holm) | |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for task in scores:
        rows += [
            f"| {task.key} | {task.metric} | {point.label} | {_value(point)} | {_change(point)} | "
            f"{'' if point.p_adjusted is None else _p(point.p_adjusted)} | "
            f"{(point.verdict or point.reason or '').replace('_', ' ')} |"
            for point in task.points
        ]
    return rows


def _value(point: PointScore) -> str:
    shown = "-" if point.value is None else f"{point.value:.4g}"
    seeds = f" ({len(point.runs)} seeds)" if len(point.runs) > 1 else ""
    return f"{shown}{_interval(point.ci95)}{seeds}"


def _change(point: PointScore) -> str:
    if point.difference is None:
        return ""
    return f"{point.difference:+.4g}{_interval(point.difference_ci95, signed=True)}"


def _interval(ends: Interval | None, *, signed: bool = False) -> str:
    if ends is None:
        return ""
    low, high = (f"{end:+.4g}" if signed else f"{end:.4g}" for end in ends)
    return f" [{low}, {high}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _costs(groups: Sequence[Group]) -> list[str]:
    """Memory and speed, in the columns of the paper's Table 13; means over seeds."""
    first = groups[0][1]
    memory_of = first[0].memory_of
    rows = [
        f"| point | learns | peak memory ({memory_of}) | relative | steps/h | relative | samples/s | loss |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    speed = _mean([outcome.iterations for outcome in first])
    memory = _memory(first)
    for label, own in groups:
        peak, steps = _memory(own), _mean([outcome.iterations for outcome in own])
        relative = "-" if peak is None or not memory else f"{peak / memory:.2f}"
        rows.append(
            f"| {label} | {own[0].learns:,} | {'not counted' if peak is None else f'{peak / 1e9:.2f} GB'} | "
            f"{relative} | {steps:,.0f} | {steps / speed:.2f} | "
            f"{_mean([outcome.samples for outcome in own]):.2f} | "
            f"{_mean([outcome.loss for outcome in own]):.4f} |"
        )
    return rows


def _steps(groups: Sequence[Group]) -> list[str]:
    """Scores by step (Fig. 5), where there are several evaluations; means over seeds.

    An epoch may be a step longer with another seed or more data, so all last evaluations share a column.
    """
    trainings = [outcome for _, own in groups for outcome in own]
    if all(len(outcome.scores) < 2 for outcome in trainings):
        return []
    ends = sorted({max(outcome.scores) for outcome in trainings if outcome.scores})
    steps = sorted({step for outcome in trainings for step in outcome.scores if step < max(outcome.scores)})
    metrics = sorted({m for o in trainings for found in o.scores.values() for m in found})
    last = f"step {ends[0]}" if len(ends) == 1 else f"last, step {ends[0]} to {ends[-1]}"
    rows = ["| metric | point | " + " | ".join([*(f"step {step}" for step in steps), last]) + " |"]
    rows.append("|---|---|" + "---:|" * (len(steps) + 1))
    for metric in metrics:
        for label, own in groups:
            shown = [_at([_before(outcome, step, metric) for outcome in own]) for step in steps]
            shown.append(_at([_last(outcome, metric) for outcome in own]))
            rows.append(f"| {metric} | {label} | " + " | ".join(shown) + " |")
    return rows


def _before(outcome: Outcome, step: int, metric: str) -> float | None:
    """The value at a step that is not the last."""
    return outcome.scores.get(step, {}).get(metric) if step < max(outcome.scores, default=0) else None


def _last(outcome: Outcome, metric: str) -> float | None:
    return outcome.scores[max(outcome.scores)].get(metric) if outcome.scores else None


def _at(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{_mean(known):.4g}" if values and len(known) == len(values) else "-"


def _memory(own: Sequence[Outcome]) -> float | None:
    peaks = [outcome.memory for outcome in own]
    return None if None in peaks else max(peak for peak in peaks if peak is not None)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)
