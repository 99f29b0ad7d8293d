"""`evalkit export`: a benchmark's submission file, or its questions for other programs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from evalkit.cli import completion, terminal
from evalkit.cli.options import include_flag, option_flags
from evalkit.cli.terminal import flag

log = logging.getLogger(__name__)

#: In place of a task: the next word is the task whose questions are written.
_QUESTIONS = "questions"


@click.command(short_help="Write a benchmark's submission file, or its questions.")
@click.argument("task", metavar="TASK|questions", shell_complete=completion.tasks)
@click.argument("run", metavar="RUN|TASK", shell_complete=completion.runs)
@flag("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), envvar="EVALKIT_EXPORT_OUTPUT",
      help="File to write. Default: the benchmark's own name, in the run folder.")  # fmt: skip
@option_flags(("data_root", "offline", "split", "protocol", "limit", "sample_id", "max_tiles", "gen", "seed"))
@include_flag
@terminal.verbosity
def export(task: str, run: str, output: Path | None, **flags: Any) -> int:
    """Write the submission file of TASK from the run folder RUN, or the questions of TASK.

    \b
    evalkit export drivelm RUN
    evalkit export questions dior-rsvg --data-root DIR -o questions.jsonl
    """
    if task == _QUESTIONS:
        return _questions(run, output, flags)
    return _submission(task, Path(run), output)


def _questions(task: str, output: Path | None, flags: dict[str, Any]) -> int:
    from evalkit.errors import UsageError
    from evalkit.pipeline.job import make_job
    from evalkit.pipeline.options import RunOptions
    from evalkit.pipeline.questions import export_questions
    from evalkit.suite import Target

    if output is None:
        raise UsageError("export questions: name the file to write with -o FILE")
    target = Target.parse(task)
    split = flags.pop("split") or target.split
    job = make_job(target.task, RunOptions(model=_QUESTIONS, split=split, **flags))
    count = export_questions(job, output)
    click.echo(f"{output}: {count} questions of {job.task.name} {job.split}")
    return 0


def _submission(task: str, run: Path, output: Path | None) -> int:
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
        log.warning("%s is %s: the file holds only its %d samples", run, stored.status, len(records))
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
