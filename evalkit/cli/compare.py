"""`evalkit compare`, `check` and `baseline`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import completion, terminal
from evalkit.cli.options import (
    FOLDER,
    fitting,
    given,
    include_flag,
    json_flag,
    model_flag,
    option_flags,
    output_flag,
)
from evalkit.cli.outcomes import print_outcome
from evalkit.cli.terminal import flag
from evalkit.pipeline.comparison_options import ComparisonOptions
from evalkit.text import table

if TYPE_CHECKING:
    from evalkit.comparison.baselines import Baseline
    from evalkit.comparison.runs import Key
    from evalkit.pipeline.options import RunOptions
    from evalkit.pipeline.results import RunResult


comparison_flags = option_flags(kind=ComparisonOptions)
FORMATS = ("table", "json", "markdown", "junit")


def format_flags(command: Any) -> Any:
    """`--format` and `--json`."""
    chosen = flag(
        "--format",
        "style",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How the result is printed.",
    )
    return chosen(json_flag(command))


@click.command(short_help="Paired comparison of two runs, of several, or of two recipes.")
@click.argument("base", metavar="BASE", required=False, shell_complete=completion.models_or_runs)
@click.argument("new", metavar="NEW…", nargs=-1, shell_complete=completion.models_or_runs)
@flag("--best-of", is_flag=True,
      help="Choose the best of several NEW, and say what it owes to luck.")  # fmt: skip
@flag("--metric", metavar="METRIC", help="What --best-of chooses by. Default: each task's headline.")
@flag("--base-runs", multiple=True, metavar="RUN",
      help="Runs of one recipe (training seeds) in place of BASE; a glob, or repeatable.")  # fmt: skip
@flag("--new-runs", multiple=True, metavar="RUN",
      help="Runs of another recipe in place of NEW; a glob, or repeatable.")  # fmt: skip
@comparison_flags
@output_flag
@include_flag
@format_flags
@terminal.verbosity
def compare(
    base: str | None,
    new: tuple[str, ...],
    best_of: bool,
    metric: str | None,
    base_runs: tuple[str, ...],
    new_runs: tuple[str, ...],
    output: Path,
    style: str,
    as_json: bool,
    **flags: Any,
) -> int:
    """Compare two results on the same samples: improved, regressed, or no evidence.

    BASE and NEW are run folders, models (their latest complete run of each task) or baselines. Exit status:
    0 pass, 1 regression, 2 not comparable, 5 undecided. METRIC may be TASK:METRIC, and a glob. Several NEW
    are each compared with BASE; with --best-of one is chosen. Several runs a side, by --base-runs and
    --new-runs or by globs in quotes, are two recipes of training.

    \b
    evalkit compare mini-internvl-2b my-finetune
    evalkit compare runs/a/… runs/b/… --max-drop average=0.5 --format markdown
    evalkit compare mini-internvl-2b step-1000 step-2000 step-3000 --best-of
    evalkit compare 'base-seed*' 'new-seed*'
    """
    from evalkit.comparison.api import CompareCall, outcome
    from evalkit.errors import NotComparableError

    style = "json" if as_json else style
    call = CompareCall(
        base=base,
        new=new,
        best_of=best_of,
        metric=metric,
        base_runs=base_runs,
        new_runs=new_runs,
        output=output,
        **flags,
    )
    try:
        found = outcome(call)
    except NotComparableError as error:
        print_refusal(str(error), style)
        raise
    print_outcome(found, style)
    return found.exit_code


def print_refusal(reason: str, style: str) -> None:
    """Print that nothing can be compared, in the formats for machines."""
    from evalkit.comparison.compare import refusal_json
    from evalkit.reports.junit import refusal_junit
    from evalkit.reports.markdown import refusal_markdown

    if style == "json":
        terminal.print_json(refusal_json(reason))
    elif style == "markdown":
        click.echo(refusal_markdown(reason).rstrip("\n"))
    elif style == "junit":
        click.echo(refusal_junit(reason).rstrip("\n"))


@click.command(short_help="Run, compare with the baseline, pass or fail (for CI).")
@model_flag
@flag("--policy", "policy_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
      help="Default: evalkit.toml here, or [tool.evalkit] of pyproject.toml.")  # fmt: skip
@flag("--baseline", metavar="NAME", help="In place of the policy's.")
@comparison_flags
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
    """Run the policy's tasks, compare with its baseline: pass (0), regression (1) or undecided (5).

    A flag that is given takes the place of the policy's setting.

    \b
    evalkit check -m mini-internvl-2b --checkpoint work/checkpoint-2000
    """
    from evalkit.comparison.policy import baseline_runs, find, load
    from evalkit.comparison.policy import check as judge
    from evalkit.errors import NotComparableError
    from evalkit.pipeline.options import RunOptions, options_of

    style = "json" if as_json else style
    policy = load(policy_file or find(Path()))
    told = given(fitting(model, flags))
    judged = {name: told.pop(name) for name in options_of(ComparisonOptions) if name in told}
    run = {**policy.run, **told}
    output = run.pop("output", policy.output)
    policy = dataclasses.replace(
        policy,
        baseline=baseline or policy.baseline,
        options=dataclasses.replace(policy.options, **judged),
        output=output,
        run=run,
    )
    options = RunOptions(model, output=output, **run)
    options.check()
    policy.options.check()
    try:
        base = baseline_runs(policy)
        with _Runs(options) as runs:
            comparison = judge(policy, model, base, runs)
    except NotComparableError as error:
        print_refusal(str(error), style)
        raise
    print_outcome(comparison, style)
    if runs.useless_judge:
        return terminal.fail(f"done, but {runs.useless_judge}", 4)
    return comparison.exit_code


class _Runs:
    """Runs tasks with one model, loaded once.

    Attributes:
        useless_judge: why a judge that was asked gave nothing; empty where it answered, or was not asked.
    """

    def __init__(self, options: RunOptions) -> None:
        from evalkit.pipeline.run import load_model

        self.useless_judge = ""
        self._options = options
        self._model = load_model(options)

    def __enter__(self) -> _Runs:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()

    def __call__(self, key: Key) -> RunResult:
        from evalkit.pipeline.judging import gave_nothing
        from evalkit.pipeline.run import run_task

        result = run_task(key.task, self._model, dataclasses.replace(self._options, split=key.split))
        self.useless_judge = self.useless_judge or gave_nothing(result.summary)
        return result


def _output(command: Any) -> Any:
    text = "Folder of run folders; baselines lie in its folder `baselines`."
    return flag("-o", "--output", type=FOLDER, default=Path("runs"), show_default=True, help=text)(command)


@click.group(short_help="Save, list and show baselines.")
def baseline() -> None:
    """Baselines: names for runs that later ones are judged against.

    \b
    evalkit baseline set release mini-internvl-2b
    evalkit compare release my-finetune
    """


@baseline.command("set")
@click.argument("name")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", shell_complete=completion.models_or_runs)
@_output
@include_flag
@json_flag
@terminal.verbosity
def set_command(name: str, runs: tuple[str, ...], output: Path, as_json: bool) -> int:
    """Set NAME to runs: run folders, or a model for its latest complete run of each task.

    \b
    evalkit baseline set release mini-internvl-2b
    """
    from evalkit.comparison import baselines
    from evalkit.comparison.baselines import resolve

    paths = [path for run in runs for path in resolve(run, output).values()]
    _print(baselines.save(output, name, paths), as_json)
    return 0


@baseline.command("list")
@_output
@json_flag
@terminal.verbosity
def list_command(output: Path, as_json: bool) -> int:
    """List all baselines.

    \b
    evalkit baseline list -o runs
    """
    from evalkit.comparison import baselines

    found = [baselines.load(output, name) for name in baselines.names(output)]
    if as_json:
        terminal.print_json({"baselines": [_json(item) for item in found]})
    elif not found:
        click.echo(f"no baselines in {output}; set one with `evalkit baseline set NAME RUN`")
    else:
        rows = [["baseline", "set", "runs"]]
        rows += [[b.name, b.created, ", ".join(str(run.key) for run in b.runs)] for b in found]
        click.echo(table(rows))
    return 0


@baseline.command("show")
@click.argument("name")
@_output
@json_flag
@terminal.verbosity
def show_command(name: str, output: Path, as_json: bool) -> int:
    """Show the runs of a baseline, and whether they are still what they were (exit 2 if not).

    \b
    evalkit baseline show release
    """
    from evalkit.comparison import baselines

    found = baselines.load(output, name)
    _print(found, as_json)
    found.paths()
    return 0


def _print(baseline: Baseline, as_json: bool) -> None:
    if as_json:
        terminal.print_json(_json(baseline))
        return
    rows = [["task", "model", "run", "signature"]]
    rows += [[str(run.key), run.model, str(run.path), run.signature] for run in baseline.runs]
    click.echo(f"baseline {baseline.name}, set {baseline.created}\n{table(rows)}")
    for item in baseline.includes:
        click.echo(f"task file  {item.path}")


def _json(baseline: Baseline) -> dict[str, Any]:
    return {
        "name": baseline.name,
        "created": baseline.created,
        "includes": [str(item.path) for item in baseline.includes],
        "runs": [
            {
                "task": run.key.task,
                "split": run.key.split,
                "model": run.model,
                "run": str(run.path),
                "signature": run.signature,
                "summary_sha256": run.summary_sha256,
            }
            for run in baseline.runs
        ],
    }
