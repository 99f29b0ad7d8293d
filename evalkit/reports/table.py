"""A comparison as plain text."""

from __future__ import annotations

from evalkit.comparison.compare import Comparison, TaskComparison, group_rows
from evalkit.reports import wording
from evalkit.text import one_line, table, value_text

#: Flips printed in each direction; JSON has all.
_FLIPS_SHOWN = 5
#: Rows of the per-tag table printed.
_GROUPS_SHOWN = 24


def comparison_text(comparison: Comparison) -> str:
    """Values and verdicts, what changed, the verdict last."""
    parts = [f"base  {comparison.base}\nnew   {comparison.new}"]
    for task in comparison.tasks:
        parts.append(_metrics(comparison, task))
        parts += [part for part in (_groups(task), _flips(task)) if part]
    if comparison.forgetting:
        rows = [["suite", "mean change, points", "95% interval", "headline metric of each task"]]
        rows += [wording.suite_line(change) for change in comparison.forgetting]
        parts.append("gained and forgotten\n" + table(rows, right=(1,)))
    parts.append("\n".join([*comparison.reasons, wording.conclusion(comparison)]))
    return "\n\n".join(parts)


def _metrics(comparison: Comparison, task: TaskComparison) -> str:
    results = wording.shown(comparison, task)
    body = table([list(wording.HEADER), *(wording.cells(result) for result in results)], right=(1, 2, 3, 5))
    lines = [f"{task.key} · {wording.counts(task)}", body, *(f"note: {n}" for n in wording.notes(results))]
    return "\n".join(lines)


def _groups(task: TaskComparison) -> str:
    rows = group_rows(task)
    if not rows:
        return ""
    lines = [["tag", "value", "metric", "n", "base", "new", "change"]]
    for row in rows[:_GROUPS_SHOWN]:
        names = [one_line(str(row[name]), 32) for name in ("tag", "value", "metric")]
        values = [value_text(row["base"]), value_text(row["new"]), wording.signed(row["difference"])]
        lines.append([*names, str(row["n"]), *values])
    text = table(lines, right=(3, 4, 5, 6))
    if len(rows) > _GROUPS_SHOWN:
        text += f"\n… and {len(rows) - _GROUPS_SHOWN} more rows; --json has all"
    return text


def _flips(task: TaskComparison) -> str:
    parts = []
    for lost, flips in ((True, task.flips.right_to_wrong), (False, task.flips.wrong_to_right)):
        if flips:
            rows = [["id", "target", "base", "new"]]
            rows += [wording.flip_cells(flip) for flip in flips[:_FLIPS_SHOWN]]
            more = (
                f"\n… and {len(flips) - _FLIPS_SHOWN} more; --json has all"
                if len(flips) > _FLIPS_SHOWN
                else ""
            )
            parts.append(f"{wording.flip_title(task, lost)}\n{table(rows)}{more}")
    return "\n\n".join(parts)
