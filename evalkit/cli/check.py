"""`evalkit check`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import terminal
from evalkit.cli.compare import format_flags, print_comparison, print_refusal
from evalkit.cli.options import FOLDER, data_flags, engine_flags, engine_given
from evalkit.cli.terminal import flag

if TYPE_CHECKING:
    from evalkit.comparison.policy import Policy
    from evalkit.comparison.runs import Key
    from evalkit.pipeline.options import RunOptions
    from evalkit.pipeline.results import RunResult


@click.command(short_help="Run, compare with the baseline, pass or fail (for CI).")
@flag("-m", "--model", required=True, metavar="NAME|FOLDER|HUB-ID", help="See `evalkit list models`.")
@flag("--checkpoint", metavar="DIR", help="Weights to load in place of the model's own.")
@flag("--policy", "policy_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
      help="Default: evalkit.toml here, or [tool.evalkit] of pyproject.toml.")  # fmt: skip
@flag("--baseline", metavar="NAME", help="In place of the policy's.")
@flag("-o", "--output", type=FOLDER, help="Folder of run folders, in place of the policy's.")
@flag("--device", metavar="NAME", help="In place of the policy's.")
@data_flags
@engine_flags
@format_flags
@terminal.verbosity
def check(
    model: str,
    checkpoint: str | None,
    policy_file: Path | None,
    baseline: str | None,
    output: Path | None,
    device: str | None,
    data_root: Path | None,
    offline: bool,
    style: str,
    as_json: bool,
    **engine: Any,
) -> int:
    """Run the policy's tasks, compare with its baseline, and pass (0) or fail (1).

    \b
    evalkit check -m mini-internvl-2b --checkpoint work/checkpoint-2000
    """
    from evalkit.comparison.check import baseline_runs
    from evalkit.comparison.check import check as judge
    from evalkit.comparison.policy import find, load
    from evalkit.errors import NotComparableError

    style = "json" if as_json else style
    policy = load(policy_file or find(Path()))
    run = dict(policy.run)
    run.update({name: value for name, value in (("data_root", data_root), ("device", device)) if value})
    run.update(engine_given(engine))
    run["offline"] = offline or run.get("offline", False)
    policy = dataclasses.replace(
        policy, baseline=baseline or policy.baseline, output=output or policy.output, run=run
    )
    try:
        base = baseline_runs(policy)
        with _Runs(policy, _options(policy, model, checkpoint)) as runs:
            comparison = judge(policy, model, base, runs)
    except NotComparableError as error:
        print_refusal(str(error), style)
        raise
    print_comparison(comparison, style)
    return comparison.exit_code


class _Runs:
    """Runs tasks with one model, loaded once."""

    def __init__(self, policy: Policy, options: RunOptions) -> None:
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


def _options(policy: Policy, model: str, checkpoint: str | None) -> RunOptions:
    from evalkit.pipeline.options import RunOptions, judge_options

    flags: dict[str, Any] = {
        k: v for k, v in policy.run.items() if k not in ("judge", "judge_model", "split")
    }
    if "gen" in flags:
        flags["gen"] = tuple(f"{name}={value}" for name, value in flags["gen"].items())
    if isinstance(flags.get("batch_size"), str):
        del flags["batch_size"]
    if "data_root" in flags:
        flags["data_root"] = Path(flags["data_root"])
    judge = judge_options(policy.run.get("judge"), policy.run.get("judge_model"))
    options = RunOptions(model=model, checkpoint=checkpoint, output=policy.output, judge=judge, **flags)
    options.check()
    return options
