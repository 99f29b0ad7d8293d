"""`evalkit baseline`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import terminal
from evalkit.cli.options import FOLDER, include_flag, json_flag
from evalkit.cli.terminal import flag

if TYPE_CHECKING:
    from evalkit.comparison.baselines import Baseline


def _output(command: Any) -> Any:
    text = "Folder of run folders; baselines lie in its folder `baselines`."
    return flag("-o", "--output", type=FOLDER, default=Path("runs"), show_default=True, help=text)(command)


@click.group(short_help="Save, list and show baselines.")
def baseline() -> None:
    """Baselines: names for runs that later ones are judged against."""


@baseline.command("set")
@click.argument("name")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
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
    from evalkit.comparison.runs import resolve

    paths = [path for run in runs for path in resolve(run, output).values()]
    _print(baselines.save(output, name, paths), as_json)
    return 0


@baseline.command("list")
@_output
@json_flag
@terminal.verbosity
def list_command(output: Path, as_json: bool) -> int:
    """List all baselines."""
    from evalkit.comparison import baselines

    found = [baselines.load(output, name) for name in baselines.names(output)]
    if as_json:
        terminal.print_json({"baselines": [_json(item) for item in found]})
    elif not found:
        click.echo(f"no baselines in {output}; set one with `evalkit baseline set NAME RUN`")
    else:
        rows = [["baseline", "set", "runs"]]
        rows += [[b.name, b.created, ", ".join(str(run.key) for run in b.runs)] for b in found]
        click.echo(terminal.table(rows))
    return 0


@baseline.command("show")
@click.argument("name")
@_output
@json_flag
@terminal.verbosity
def show_command(name: str, output: Path, as_json: bool) -> int:
    """Show the runs of a baseline, and whether they are still what they were (exit 2 if not)."""
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
    click.echo(f"baseline {baseline.name}, set {baseline.created}\n{terminal.table(rows)}")


def _json(baseline: Baseline) -> dict[str, Any]:
    return {
        "name": baseline.name,
        "created": baseline.created,
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
