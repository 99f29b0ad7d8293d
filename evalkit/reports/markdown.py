"""A comparison as Markdown, made for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.comparison.compare import Comparison, TaskComparison, group_rows
from evalkit.reports import wording
from evalkit.text import one_line, value_text

_FLIPS_SHOWN = 20
_GROUPS_SHOWN = 40
_ESCAPED = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_[]|~#"} | {"<": "&lt;", ">": "&gt;"}
)


def comparison_markdown(comparison: Comparison) -> str:
    """Verdict first; details fold away."""
    mark = {"pass": "✅", "regression": "❌", "undecided": "❔"}[comparison.verdict]
    lines = [f"### {mark} evalkit: {wording.conclusion(comparison)}", ""]
    lines += [f"Base `{comparison.base}`, new `{comparison.new}`, level {comparison.alpha:g}.", ""]
    lines += [f"- {_plain(reason)}" for reason in comparison.reasons]
    for task in comparison.tasks:
        lines += ["", *_task(comparison, task)]
    if comparison.forgetting:
        rows = [wording.suite_line(change) for change in comparison.forgetting]
        header = ("suite", "mean change, points", "95% interval", "headline metric of each task")
        lines += ["", "**Gained and forgotten**", "", *markdown_table(header, rows)]
    return "\n".join(lines) + "\n"


def refusal_markdown(reason: str) -> str:
    """The comment where nothing could be compared."""
    return f"### ⚠️ evalkit: not comparable\n\n{_plain(reason)}\n"


def _task(comparison: Comparison, task: TaskComparison) -> list[str]:
    results = wording.shown(comparison, task)
    lines = [f"**{_plain(str(task.key))}**, {wording.counts(task)}", ""]
    lines += markdown_table(wording.HEADER, [wording.cells(result) for result in results])
    if found := wording.notes(results):
        lines += ["", *(f"- {_plain(note)}" for note in found)]
    if rows := group_rows(task):
        body = [
            [row["tag"], row["value"], row["metric"], str(row["n"]),
             value_text(row["base"]), value_text(row["new"]), wording.signed(row["difference"])]
            for row in rows[:_GROUPS_SHOWN]
        ]  # fmt: skip
        table = markdown_table(("tag", "value", "metric", "n", "base", "new", "change"), body)
        lines += ["", *_folded(f"by tag ({len(rows)} rows)", table)]
    for lost, flips in ((True, task.flips.right_to_wrong), (False, task.flips.wrong_to_right)):
        if flips:
            body = [wording.flip_cells(flip) for flip in flips[:_FLIPS_SHOWN]]
            lines += [
                "",
                *_folded(
                    wording.flip_title(task, lost), markdown_table(("id", "target", "base", "new"), body)
                ),
            ]
    return lines


def _folded(title: str, content: Sequence[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *content, "", "</details>"]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; cells are escaped."""
    lines = [header, ["---"] * len(header), *([_plain(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _plain(text: str) -> str:
    """Text that Markdown leaves alone: an answer may hold anything."""
    return one_line(text, 400).translate(_ESCAPED)
