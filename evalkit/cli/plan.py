"""`evalkit plan` and `evalkit history`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli import completion, terminal
from evalkit.cli.options import include_flag, json_flag, option_flags, output_flag
from evalkit.cli.terminal import flag
from evalkit.pipeline.comparison_options import ComparisonOptions, limit, limits
from evalkit.text import one_line, table

if TYPE_CHECKING:
    from evalkit.comparison.history import History
    from evalkit.comparison.sample_size import MetricSampleSize


@click.command(short_help="How many samples it takes to detect a difference.")
@flag("-t", "--task", required=True, metavar="NAME", help="Task, or task@split.",
      shell_complete=completion.tasks)  # fmt: skip
@flag("--detect", metavar="METRIC=X|POINTS",
      help="Drop to detect: in the metric's unit, or points of all (0.01 of a fraction).")  # fmt: skip
@flag("--margin", metavar="METRIC=X|POINTS",
      help="In place of --detect: margin to show, where nothing is lost.")  # fmt: skip
@flag("--run", "runs", multiple=True, type=click.Path(path_type=Path), metavar="RUN",
      help="Run whose variance is used; two: that of their difference. Default: the latest.")  # fmt: skip
@flag("--metric", "metrics", multiple=True, metavar="NAME", help="Only this metric; repeatable.")
@flag(
    "--power",
    type=float,
    default=0.8,
    show_default=True,
    help="Probability of detecting a change of that size.",
)
@option_flags(("alpha",), kind=ComparisonOptions)
@flag("--correlation", type=float, default=0.0, show_default=True,
      help="With one run: assumed correlation of two models' answers; 0 is safe.")  # fmt: skip
@output_flag
@include_flag
@json_flag
@terminal.verbosity
def plan(
    task: str,
    detect: str | None,
    margin: str | None,
    runs: tuple[Path, ...],
    metrics: tuple[str, ...],
    power: float,
    alpha: float,
    correlation: float,
    output: Path,
    as_json: bool,
) -> int:
    """Say how many samples and clusters it takes to detect a change.

    \b
    evalkit plan -t rsvqa-lr --detect 1.0
    evalkit plan -t drivelm --margin accuracy=0.01,match=1.0
    evalkit plan -t rsvqa-lr --detect 1.0 --run runs/a/… --run runs/b/…
    """
    from evalkit.comparison import sample_size
    from evalkit.errors import UsageError

    if (detect is None) == (margin is None):
        raise UsageError("give --detect or --margin: POINTS, or METRIC=X in the metric's unit")
    text = margin if detect is None else detect
    assert text is not None
    change = _change(text, "--detect" if margin is None else "--margin")
    paths = sample_size.choose_runs(task, runs, output)
    needs = sample_size.plan(
        paths,
        change,
        metrics=metrics,
        correlation=correlation,
        alpha=alpha,
        power=power,
        margin=margin is not None,
    )
    if as_json:
        terminal.print_json(
            {
                "task": task,
                "runs": [str(path) for path in paths],
                "detect": change if margin is None else None,
                "margin": None if margin is None else change,
                "alpha": alpha,
                "power": power,
                "correlation": correlation if len(paths) == 1 else None,
                "metrics": [item.to_json() for item in needs],
            }
        )
    else:
        click.echo(_plan_text(needs, paths, alpha, power, correlation, margin is not None))
    return 0


def _change(text: str, flag_name: str) -> float | dict[str, float]:
    """Points of every metric, or by metric in its unit."""
    return limits([text], flag_name) if "=" in text else limit(text, f"{flag_name} {text}")


def _plan_text(
    needs: list[MetricSampleSize],
    paths: list[Path],
    alpha: float,
    power: float,
    correlation: float,
    margin: bool,
) -> str:
    from evalkit.text import value_text

    rows = [["metric", "to detect", "clusters", "samples", "the run has", "which detects", ""]]
    if margin:
        rows[0][1], rows[0][5] = "margin", "which shows"
    for item in needs:
        unit = item.metric.unit
        rows.append(
            [
                f"{item.metric.name} ({unit})",
                value_text(item.change, unit),
                "-" if item.needed is None else str(item.needed.clusters),
                "-" if item.needed is None else str(item.needed.samples),
                f"{item.clusters} / {item.samples}",
                value_text(item.now, unit),
                item.reason or "",
            ]
        )
    source = (
        f"variance of the difference of {paths[0]} and {paths[1]}"
        if len(paths) == 2
        else f"variance of {paths[0]}; answers of two models assumed to correlate by {correlation:g}"
    )
    head = f"{source}\nlevel {alpha:g}, power {power:g}; for the paired comparison of two runs"
    if not margin and len(needs) > 1:
        head += f", {len(needs)} metrics judged together (Holm)"
    return f"{head}\n{table(rows, right=(1, 2, 3, 4, 5))}"


@click.command(short_help="A model's scores over its checkpoints.")
@flag("-m", "--model", "models", required=True, multiple=True, metavar="NAME",
      help="Model, or a glob of model folders; repeatable.")  # fmt: skip
@flag("-t", "--task", required=True, metavar="NAME", help="Task, or task@split.",
      shell_complete=completion.tasks)  # fmt: skip
@flag("--split", metavar="NAME", help="The split, if there are runs of several.")
@flag("--metric", metavar="NAME",
      help="Default: the task's headline, or the first metric that all runs have.")  # fmt: skip
@option_flags(("alpha", "allow"), kind=ComparisonOptions)
@output_flag
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

    The latest complete run of each checkpoint counts. All are compared with the oldest.

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
        click.echo(_history_text(found))
    return 0


def _best_lines(found: History) -> list[str]:
    from evalkit.reports.best_of import said_of_best

    best, point = found.best_json(), found.best_point
    if best is None or point is None or found.best is None:
        return []
    p = "" if best["p_adjusted"] is None else f", p {best['p_adjusted']:.2g} (max-T)"
    said = f"best checkpoint: {one_line(point.label)}, {best['verdict'].replace('_', ' ')}{p}"
    return [said, *said_of_best(found.best, len(found.points) - 1, point.label)]


def _history_text(found: History) -> str:
    from evalkit.reports.wording import signed
    from evalkit.text import value_text

    unit = found.metric.unit
    rows = [["checkpoint", found.metric.name, "95% interval", "change", "95% interval", "p (Holm)", ""]]
    for point in found.points:
        interval, change = point.value.ci95, point.change
        reach = change.ci95 if change else None
        rows.append(
            [
                one_line(point.label, 40),
                value_text(point.value.value, unit),
                f"[{value_text(interval[0], unit)}, {value_text(interval[1], unit)}]" if interval else "-",
                signed(change.difference, unit) if change else "",
                f"[{signed(reach[0], unit)}, {signed(reach[1], unit)}]" if reach else "",
                "" if point.p_adjusted is None else f"{point.p_adjusted:.2g}",
                "significant" if point.significant else point.value.reason or "",
            ]
        )
    lines = [f"{found.key} · {found.metric.name} ({unit}), changes against the first checkpoint"]
    if found.stands_in is not None:
        headline, reason = found.stands_in
        lines.append(f"{found.metric.name} replaces {headline}, the headline metric: {one_line(reason)}")
    lines.append(table(rows, right=(1, 3, 5)))
    if found.trend is not None:
        reach = found.trend.ci95
        shown = f" [{reach[0]:+.3g}, {reach[1]:+.3g}]" if reach else ""
        lines.append(f"trend: {found.trend.slope:+.3g}{shown} a {'step' if found.by_step else 'checkpoint'}")
    first = found.first_change
    lines.append(f"first significant change: {one_line(first.label) if first else 'none'}")
    lines += _best_lines(found)
    lines += [f"left out: {reason}" for reason in found.left_out]
    return "\n".join(lines)
