"""`evalkit score`."""

from __future__ import annotations

from pathlib import Path

import click

from evalkit.cli import terminal
from evalkit.cli.options import data_flags, json_flag, judge_flags


@click.command(short_help="Score stored responses again, without a model.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN…")
@data_flags
@judge_flags
@json_flag
@terminal.verbosity
def score(
    runs: tuple[Path, ...],
    data_root: Path | None,
    offline: bool,
    judge: str | None,
    judge_model: str | None,
    as_json: bool,
) -> int:
    """Score the stored responses of run folders again; nothing is generated.

    The data is read from where it was, or from --data-root.
    """
    from evalkit.cli import report
    from evalkit.pipeline.finish import score_run
    from evalkit.pipeline.options import judge_options

    chosen = judge_options(judge, judge_model)
    results = []
    for path in runs:
        result = score_run(path, data_root, chosen, offline)
        results.append(result.summary)
        if not as_json:
            click.echo(report.report(result.summary) + "\n")
    if as_json:
        terminal.print_json({"runs": results})
    return 0
