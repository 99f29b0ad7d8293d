"""`evalkit compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evalkit.cli import terminal
from evalkit.cli.options import FOLDER, include_flag, json_flag
from evalkit.cli.terminal import flag

FORMATS = ("table", "json", "markdown", "junit")


def format_flags(command: Any) -> Any:
    """`--format` and `--json`."""
    chosen = flag("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
    return chosen(json_flag(command))


@click.command(short_help="Paired comparison of two runs, or of two models' runs.")
@click.argument("base", metavar="BASE")
@click.argument("new", metavar="NEW")
@flag("--max-drop", multiple=True, metavar="METRIC=X",
      help="Fail a significant drop of METRIC larger than X, in its unit; repeatable.")  # fmt: skip
@flag("--margin", multiple=True, metavar="METRIC=X",
      help="Pass only where a drop of METRIC larger than X is excluded; repeatable.")  # fmt: skip
@flag("--alpha", type=float, default=0.05, show_default=True, help="Level, over all metrics judged.")
@flag("--allow", multiple=True, metavar="FIELD", help="Signature field that may differ; repeatable.")
@flag("--speed", is_flag=True, help="Judge the model time a sample too.")
@flag("-o", "--output", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of run folders.")
@flag("--seed", type=int, default=0, show_default=True, help="Of the resamples.")
@include_flag
@format_flags
@terminal.verbosity
def compare(
    base: str,
    new: str,
    max_drop: tuple[str, ...],
    margin: tuple[str, ...],
    alpha: float,
    allow: tuple[str, ...],
    speed: bool,
    output: Path,
    seed: int,
    style: str,
    as_json: bool,
) -> int:
    """Compare two results on the same samples: improved, regressed, or no evidence.

    BASE and NEW are run folders, models (their latest complete run of each task) or baselines. Exit status:
    0 pass, 1 regression, 2 not comparable. METRIC may be TASK:METRIC, and a glob.

    \b
    evalkit compare mini-internvl-2b my-finetune
    evalkit compare runs/a/… runs/b/… --max-drop average=0.5 --format markdown
    """
    from evalkit.comparison.compare import compare_runs
    from evalkit.comparison.runs import resolve
    from evalkit.comparison.thresholds import Thresholds, parse
    from evalkit.errors import NotComparableError
    from evalkit.pipeline.options import comma_list

    style = "json" if as_json else style
    thresholds = Thresholds(parse(max_drop, "--max-drop"), parse(margin, "--margin"))
    try:
        comparison = compare_runs(
            resolve(base, output),
            resolve(new, output),
            names=(base, new),
            thresholds=thresholds,
            alpha=alpha,
            allow=comma_list(allow),
            with_speed=speed,
            seed=seed,
        )
    except NotComparableError as error:
        print_refusal(str(error), style)
        raise
    print_comparison(comparison, style)
    return comparison.exit_code


def print_comparison(comparison: Any, style: str) -> None:
    """Print a comparison on stdout in one of `FORMATS`."""
    from evalkit import reports
    from evalkit.comparison.to_json import comparison_json

    if style == "json":
        terminal.print_json(comparison_json(comparison))
        return
    write = {
        "table": reports.comparison_text,
        "markdown": reports.comparison_markdown,
        "junit": reports.comparison_junit,
    }[style]
    click.echo(write(comparison).rstrip("\n"))


def print_refusal(reason: str, style: str) -> None:
    """Print that nothing can be compared, in the formats that a machine reads."""
    from evalkit import reports
    from evalkit.comparison.to_json import refusal_json

    if style == "json":
        terminal.print_json(refusal_json(reason))
    elif style == "markdown":
        click.echo(reports.refusal_markdown(reason).rstrip("\n"))
    elif style == "junit":
        click.echo(reports.refusal_junit(reason).rstrip("\n"))
