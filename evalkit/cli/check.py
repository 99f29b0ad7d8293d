"""`evalkit check`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import terminal
from evalkit.cli.compare import format_flags, print_comparison, print_refusal
from evalkit.cli.options import given, include_flag, model_flag, option_flags
from evalkit.cli.terminal import flag

if TYPE_CHECKING:
    from evalkit.comparison.runs import Key
    from evalkit.pipeline.options import RunOptions
    from evalkit.pipeline.results import RunResult


@click.command(short_help="Run, compare with the baseline, pass or fail (for CI).")
@model_flag
@flag("--policy", "policy_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
      help="Default: evalkit.toml here, or [tool.evalkit] of pyproject.toml.")  # fmt: skip
@flag("--baseline", metavar="NAME", help="In place of the policy's.")
@option_flags(("checkpoint", "output"), show_default=False)
@option_flags(decides="place", show_default=False)
@include_flag
@format_flags
@terminal.verbosity
def check(
    model: str,
    policy_file: Path | None,
    baseline: str | None,
    style: str,
    as_json: bool,
    **flags: Any,
) -> int:
    """Run the policy's tasks, compare with its baseline, and pass (0) or fail (1).

    A flag that is given takes the place of the policy's setting.

    \b
    evalkit check -m mini-internvl-2b --checkpoint work/checkpoint-2000
    """
    from evalkit.comparison.check import baseline_runs
    from evalkit.comparison.check import check as judge
    from evalkit.comparison.policy import find, load
    from evalkit.errors import NotComparableError
    from evalkit.pipeline.options import RunOptions

    style = "json" if as_json else style
    policy = load(policy_file or find(Path()))
    run = {**policy.run, **given(flags)}
    output = run.pop("output", policy.output)
    policy = dataclasses.replace(policy, baseline=baseline or policy.baseline, output=output, run=run)
    options = RunOptions(model, output=output, **run)
    options.check()
    try:
        base = baseline_runs(policy)
        with _Runs(options) as runs:
            comparison = judge(policy, model, base, runs)
    except NotComparableError as error:
        print_refusal(str(error), style)
        raise
    print_comparison(comparison, style)
    return comparison.exit_code


class _Runs:
    """Runs tasks with one model, loaded once."""

    def __init__(self, options: RunOptions) -> None:
        from evalkit.pipeline.run import load_model

        self._options = options
        self._model = load_model(options)

    def __enter__(self) -> _Runs:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()

    def __call__(self, key: Key) -> RunResult:
        from evalkit.pipeline.run import run_task

        return run_task(key.task, self._model, dataclasses.replace(self._options, split=key.split))
