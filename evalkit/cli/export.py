"""`evalkit export`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from evalkit.cli import terminal
from evalkit.cli.options import include_flag
from evalkit.cli.terminal import flag

log = logging.getLogger(__name__)


@click.command(short_help="Write a benchmark's official submission file.")
@click.argument("task", metavar="TASK")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@flag("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), envvar="EVALKIT_EXPORT_OUTPUT",
      help="File to write. Default: the benchmark's own name, in the run folder.")  # fmt: skip
@include_flag
@terminal.verbosity
def export(task: str, run: Path, output: Path | None) -> int:
    """Write the submission file of TASK from the run folder RUN."""
    from evalkit import registry
    from evalkit.errors import RunFolderError, UsageError
    from evalkit.store import load_run

    stored = load_run(run)
    asked = stored.manifest.get("task", {})
    if asked.get("name") != task:
        raise UsageError(f"{run}: is a run of {asked.get('name')}, not of {task}")
    chosen = registry.task(task, asked.get("protocol"))
    records = stored.records()
    if failed := sum(record.failed for record in records):
        log.warning(
            "%d of %d samples have no answer; a benchmark's server may refuse the file", failed, len(records)
        )
    if stored.status != "complete":
        log.warning("%s is %s: the file holds its %d samples only", run, stored.status, len(records))
    submission = chosen.submission
    if submission is None:
        raise UsageError(f"{task}: the benchmark has no submission file; its labels are public")
    path = output or stored.path / submission.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        submission.write(records, path)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written ({error.strerror or error})") from None
    click.echo(str(path))
    return 0
