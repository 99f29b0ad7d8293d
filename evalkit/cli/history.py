"""`evalkit history`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli import terminal
from evalkit.cli.options import FOLDER, include_flag, json_flag
from evalkit.cli.terminal import flag

if TYPE_CHECKING:
    from evalkit.comparison.history import History


@click.command(short_help="A model's scores over its checkpoints.")
@flag("-m", "--model", "models", required=True, multiple=True, metavar="NAME",
      help="Model, or a glob of model folders; repeatable.")  # fmt: skip
@flag("-t", "--task", required=True, metavar="NAME", help="Task, or task@split.")
@flag("--split", metavar="NAME", help="Split, where there are runs of several.")
@flag("--metric", metavar="NAME",
      help="Default: the task's headline, or the first metric that all runs have.")  # fmt: skip
@flag("--alpha", type=float, default=0.05, show_default=True, help="Level, over all checkpoints.")
@flag("--allow", multiple=True, metavar="FIELD", help="Signature field that may differ; repeatable.")
@flag("-o", "--output", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of run folders.")
@include_flag
@json_flag
@terminal.verbosity
def history(
    models: tuple[str, ...],
    task: str,
    split: str | None,
    metric: str | None,
    alpha: float,
    allow: tuple[str, ...],
    output: Path,
    as_json: bool,
) -> int:
    """Follow a metric over checkpoints: intervals, trend, the first significant change.

    The latest complete run of each checkpoint counts, oldest first; all are compared with the first.

    \b
    evalkit history -m my-finetune -t drivelm
    """
    from evalkit.comparison.history import find_series
    from evalkit.comparison.history import history as follow
    from evalkit.pipeline.options import comma_list
    from evalkit.suite import Target

    target = Target.parse(task)
    runs = find_series(models, target.task, target.split or split, output)
    found = follow(runs, metric, alpha=alpha, allow=comma_list(allow))
    if as_json:
        terminal.print_json(found.to_json())
    else:
        click.echo(_text(found))
    return 0


def _text(found: History) -> str:
    from evalkit.cli.report import figure
    from evalkit.reports.wording import signed
    from evalkit.text import one_line

    unit = found.metric.unit
    rows = [["checkpoint", found.metric.name, "95% interval", "change", "95% interval", "p (Holm)", ""]]
    for point in found.points:
        interval, change = point.value.ci95, point.change
        reach = change.ci95 if change else None
        rows.append(
            [
                one_line(point.label, 40),
                figure(point.value.value, unit),
                f"[{figure(interval[0], unit)}, {figure(interval[1], unit)}]" if interval else "-",
                signed(change.difference, unit) if change else "",
                f"[{signed(reach[0], unit)}, {signed(reach[1], unit)}]" if reach else "",
                "" if point.p_adjusted is None else f"{point.p_adjusted:.2g}",
                "significant" if point.significant else point.value.reason or "",
            ]
        )
    lines = [f"{found.key} · {found.metric.name} ({unit}), changes against the first checkpoint"]
    if found.stands_in is not None:
        headline, reason = found.stands_in
        lines.append(f"{found.metric.name} stands in for {headline}, the headline: {one_line(reason)}")
    lines.append(terminal.table(rows, right=(1, 3, 5)))
    if found.trend is not None:
        reach = found.trend.ci95
        shown = f" [{reach[0]:+.3g}, {reach[1]:+.3g}]" if reach else ""
        lines.append(f"trend: {found.trend.slope:+.3g}{shown} a {'step' if found.by_step else 'checkpoint'}")
    first = found.first_change
    lines.append(f"first significant change: {one_line(first.label) if first else 'none'}")
    lines += [f"left out: {reason}" for reason in found.left_out]
    return "\n".join(lines)
