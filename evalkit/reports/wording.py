"""The wording that all formats share."""

from __future__ import annotations

from evalkit.comparison.compare import Comparison, TaskComparison
from evalkit.comparison.flips import Flip
from evalkit.comparison.forgetting import SuiteChange
from evalkit.comparison.verdicts import MetricResult
from evalkit.text import one_line, value_text

HEADER = ("metric", "base", "new", "change", "95% interval", "p (Holm)", "verdict")


def signed(value: float | None, unit: str = "") -> str:
    """A change with its sign."""
    if value is None:
        return "-"
    return f"{'+' if value > 0 else ''}{value_text(value, unit)}"


def cells(result: MetricResult) -> list[str]:
    """A metric's row under `HEADER`."""
    difference = result.difference
    unit = difference.metric.unit
    interval = difference.ci95
    shown = f"[{signed(interval[0], unit)}, {signed(interval[1], unit)}]" if interval else "-"
    return [
        f"{result.name} ({unit})",
        value_text(difference.base, unit),
        value_text(difference.new, unit),
        signed(difference.difference, unit),
        shown,
        "-" if result.p_adjusted is None else f"{result.p_adjusted:.2g}",
        verdict(result),
    ]


def verdict(result: MetricResult) -> str:
    """The verdict, what it does not exclude, and whether it fails the gate."""
    said = _said(result)
    if result.failure:
        return f"{said}; FAILS: {result.failure}"
    return f"{said}; UNDECIDED: {result.undecided}" if result.undecided else said


def _said(result: MetricResult) -> str:
    if result.verdict != "no_evidence":
        return result.verdict
    difference = result.difference
    if difference.p is None:
        return "not computed"
    same = "no evidence" if difference.se or difference.difference else "no difference at all"
    change = "drop" if difference.metric.higher_is_better else "rise"
    if result.detectable is not None:
        seen = value_text(result.detectable, difference.metric.unit)
        return f"{same} (a {change} of {seen} would have shown)"
    return f"{same} (too little data to show any {change})" if difference.se else same


def shown(comparison: Comparison, task: TaskComparison) -> list[MetricResult]:
    """A task's metrics; those of health only where they are not 0 on both sides."""
    return [
        result
        for result in comparison.metrics
        if result.key == task.key
        and not (result.health and not result.difference.base and not result.difference.new)
    ]


def notes(results: list[MetricResult]) -> list[str]:
    """Notes of metrics, those of several metrics once."""
    named: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            named.setdefault(note, []).append(result.name)
    return [f"{', '.join(names)}: {note}" for note, names in named.items()]


def clusters(count: int) -> str:
    """`1 cluster`, `2 clusters`."""
    return f"{count} cluster{'' if count == 1 else 's'}"


def counts(task: TaskComparison) -> str:
    """How much was compared."""
    return f"{task.answered} pairs in {clusters(task.clusters)}"


def flip_title(task: TaskComparison, lost: bool) -> str:
    """Heading of a list of flips."""
    flips = task.flips.right_to_wrong if lost else task.flips.wrong_to_right
    if task.flips.graded:
        return "largest drops" if lost else "largest gains"
    return f"{len(flips)} {'right to wrong' if lost else 'wrong to right'}"


def flip_cells(flip: Flip, limit: int = 40) -> list[str]:
    """Id, target and both answers that show the change, each on one line."""
    base, new = flip.answers
    target = base.target if isinstance(base.target, str) else repr(base.target)
    return [one_line(text, limit) for text in (flip_id(flip), target, base.text, new.text)]


def flip_id(flip: Flip) -> str:
    """The sample's id, and that of the rotation whose answers are shown, where it is another one."""
    if flip.hidden:
        return f"{flip.base.id} (a rotation unanswered)"
    more = f" and {len(flip.rotations) - 1} more" if len(flip.rotations) > 1 else ""
    shown = flip.answers[0].id
    return flip.base.id + (f" (rotation {shown}{more})" if shown != flip.base.id or more else "")


def suite_line(change: SuiteChange) -> list[str]:
    """A row of the forgetting report."""
    interval = change.ci95
    tasks = ", ".join(
        f"{r.key} {signed(r.difference.difference, r.difference.metric.unit)}" for r in change.headlines
    )
    shown = f"[{signed(interval[0])}, {signed(interval[1])}]" if interval else "-"
    return [change.suite, signed(change.change), shown, tasks]


def conclusion(comparison: Comparison) -> str:
    """The last line."""
    if comparison.verdict == "regression":
        failed = sum(result.failure is not None for result in comparison.metrics)
        return f"REGRESSION: {failed} of the metrics judged fail"
    if comparison.verdict == "pass":
        return "PASS"
    taken = {"pass": "taken as a pass", "fail": "taken as a failure", None: "the data cannot tell"}
    return f"UNDECIDED: {taken[comparison.undecided]}"
