"""`evalkit plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli import terminal
from evalkit.cli.options import FOLDER, include_flag, json_flag
from evalkit.cli.terminal import flag

if TYPE_CHECKING:
    from evalkit.comparison.need import MetricNeed


@click.command(short_help="How many samples a difference takes to be seen.")
@flag("-t", "--task", required=True, metavar="NAME", help="Task, or task@split.")
@flag("--detect", type=float, required=True, metavar="POINTS",
      help="Change to see: points of percent (0.01 of a fraction), or the metric's unit.")  # fmt: skip
@flag("--run", "runs", multiple=True, type=click.Path(path_type=Path), metavar="RUN",
      help="Run whose variance is used; two give that of their difference. Default: the latest.")  # fmt: skip
@flag("--metric", "metrics", multiple=True, metavar="NAME", help="Only this metric; repeatable.")
@flag("--power", type=float, default=0.8, show_default=True, help="Chance of seeing a change of that size.")
@flag("--alpha", type=float, default=0.05, show_default=True, help="Level of the test.")
@flag("--correlation", type=float, default=0.0, show_default=True,
      help="With one run: how alike two models' answers are taken to be; 0 is safe.")  # fmt: skip
@flag("-o", "--output", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of run folders.")
@include_flag
@json_flag
@terminal.verbosity
def plan(
    task: str,
    detect: float,
    runs: tuple[Path, ...],
    metrics: tuple[str, ...],
    power: float,
    alpha: float,
    correlation: float,
    output: Path,
    as_json: bool,
) -> int:
    """Say how many samples and clusters it takes to see a change.

    \b
    evalkit plan -t rsvqa-lr --detect 1.0
    evalkit plan -t rsvqa-lr --detect 1.0 --run runs/a/… --run runs/b/…
    """
    from evalkit.comparison import need

    paths = need.choose_runs(task, runs, output)
    needs = need.plan(paths, detect, metrics=metrics, correlation=correlation, alpha=alpha, power=power)
    if as_json:
        terminal.print_json(
            {
                "task": task,
                "runs": [str(path) for path in paths],
                "detect": detect,
                "alpha": alpha,
                "power": power,
                "correlation": correlation if len(paths) == 1 else None,
                "metrics": [item.to_json() for item in needs],
            }
        )
    else:
        click.echo(_text(needs, paths, alpha, power, correlation))
    return 0


def _text(needs: list[MetricNeed], paths: list[Path], alpha: float, power: float, correlation: float) -> str:
    from evalkit.cli.report import figure

    rows = [["metric", "to see", "clusters", "samples", "the run has", "which shows", ""]]
    for item in needs:
        unit = item.metric.unit
        rows.append(
            [
                f"{item.metric.name} ({unit})",
                figure(item.change, unit),
                "-" if item.need is None else str(item.need.clusters),
                "-" if item.need is None else str(item.need.samples),
                f"{item.clusters} / {item.samples}",
                figure(item.now, unit),
                item.reason or "",
            ]
        )
    source = (
        f"variance of the difference of {paths[0]} and {paths[1]}"
        if len(paths) == 2
        else f"variance of {paths[0]}; answers of two models assumed to correlate by {correlation:g}"
    )
    head = f"{source}\nlevel {alpha:g}, seen with probability {power:g}; the paired comparison of two runs"
    return f"{head}\n{terminal.table(rows, right=(1, 2, 3, 4, 5))}"
