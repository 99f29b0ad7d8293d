"""The best of several runs as text."""

from __future__ import annotations

from evalkit.comparison.best_of import BestOfComparison, BestOfTask
from evalkit.reports.wording import clusters, signed
from evalkit.statistics.best_of import BestOf
from evalkit.text import one_line, table, value_text

_VERDICTS = {"pass": "PASS", "regression": "REGRESSION", "undecided": "UNDECIDED"}


def best_of_text(comparison: BestOfComparison) -> str:
    """Every run beside the base, the best, and what luck alone would show; the verdict last."""
    parts = [f"base  {one_line(comparison.base)}", *(_task(task) for task in comparison.tasks)]
    return "\n\n".join([*parts, "\n".join([*comparison.reasons, _VERDICTS[comparison.verdict]])])


def best_of_markdown(comparison: BestOfComparison) -> str:
    """The same for a pull request."""
    return f"```text\n{best_of_text(comparison)}\n```"


def _task(task: BestOfTask) -> str:
    unit = task.found.metric.unit
    rows = [["run", task.found.metric.name, "change", "95% interval (max-T)", "p (max-T)", "verdict"]]
    for place, contender in enumerate(task.found.contenders):
        difference, reach = contender.difference, contender.ci95
        mark = " (best)" if place == task.found.best else ""
        rows.append(
            [
                one_line(task.names[place], 60),
                value_text(difference.new, unit),
                signed(difference.difference, unit),
                f"[{signed(reach[0], unit)}, {signed(reach[1], unit)}]" if reach else "-",
                "-" if contender.p is None else f"{contender.p:.2g}",
                task.verdict(contender).replace("_", " ") + mark,
            ]
        )
    head = f"{task.key} · {task.samples} samples in {clusters(task.clusters)} that all runs answered"
    lines = [head, table(rows, right=(1, 2, 4)), *said_of_best(task.found, len(task.names), task.best)]
    return "\n".join(lines)


def said_of_best(found: BestOf, runs: int, best: str | None) -> list[str]:
    """What luck alone would show, and what is left of the best run's gain."""
    if found.luck is None or found.best is None or best is None:
        return []
    unit, sign = found.metric.unit, 1 if found.metric.higher_is_better else -1
    gain = found.contenders[found.best].difference.gain or 0.0
    luck = signed(sign * found.luck, unit)
    lines = [f"the best of {runs} equal checkpoints shows {luck} by luck alone at this size"]
    if found.expected_gain is not None:
        lines.append(
            f"best: {one_line(best)} shows {signed(sign * gain, unit)}; expected on new samples: "
            f"{signed(sign * found.expected_gain, unit)} (the choice itself adds "
            f"{signed(sign * (found.shrinkage or 0.0), unit)})"
        )
    return lines
