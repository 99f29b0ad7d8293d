"""`evalkit run`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import completion, terminal
from evalkit.cli.options import MaxErrors, fitting, given, include_flag, json_flag, model_flag, option_flags
from evalkit.cli.terminal import flag

if TYPE_CHECKING:
    from collections.abc import Callable

    from evalkit.engines.launch import Launch
    from evalkit.pipeline.options import RunOptions
    from evalkit.suite import Target


@click.command(short_help="Generate answers and score them: the main job.")
@model_flag
@flag("-t", "--task", "tasks", required=True, multiple=True, metavar="NAME",
      shell_complete=completion.tasks,
      help="Task, task@split, suite or glob, or several with commas. See `evalkit list tasks`.")  # fmt: skip
@option_flags()
@flag("--max-errors", default="0", show_default=True, metavar="N|P%",
      help="How many samples may fail before the exit status is 4.")  # fmt: skip
@flag("--ranks/--no-ranks", default=True, show_default=True,
      help="Share the run if torchrun or srun started several processes: those that come within 15 s, or "
           "with --ranks itself all of them within --worker-timeout.")  # fmt: skip
@flag("--dry-run", is_flag=True, help="Print the plan, counts, costs and the first prompt; load no weights.")
@flag("--check-reference", is_flag=True, help="Compare with the paper's values of the same model.")
@include_flag
@json_flag
@terminal.verbosity
def run(
    model: str,
    tasks: tuple[str, ...],
    max_errors: str,
    ranks: bool,
    dry_run: bool,
    check_reference: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Generate answers and score them.

    If it is killed at any moment, the same command continues the run.

    \b
    evalkit run -m mini-internvl-tiny -t drivelm --split miniature
    evalkit run -m OpenGVLab/InternVL2-2B -t drivelm --data-root DIR
    evalkit run -m predictions:answers.jsonl -t chartqa --data-root DIR
    """
    from evalkit import registry
    from evalkit.engines.rank import from_environment
    from evalkit.pipeline.options import RunOptions

    errors = MaxErrors.parse(max_errors)
    rank = from_environment(os.environ) if ranks else None
    options = RunOptions(model, rank=rank, **fitting(model, flags))
    options.check()
    targets = registry.targets(tasks, options.split)
    for target in targets:
        registry.task(target.task, options.protocol)
    if dry_run:
        from evalkit.cli.dry_run import show_plans

        return show_plans(targets, options, as_json)
    with terminal.interruptible():
        session = _Session(options, targets, errors, as_json, check_reference, tasks)
        return session.run(patient="ranks" in given({"ranks": ranks}))


class _Session:
    """The tasks of one call, one after another with the same loaded model."""

    def __init__(
        self,
        options: RunOptions,
        targets: list[Target],
        max_errors: MaxErrors,
        as_json: bool,
        check_reference: bool,
        asked: tuple[str, ...],
    ) -> None:
        self._options = options
        self._targets = targets
        self._max_errors = max_errors
        self._as_json = as_json
        self._check_reference = check_reference
        self._asked = asked
        self._runs: list[dict[str, Any]] = []
        self._status = 0
        self._why = ""
        self._helps = options.rank is not None and options.rank.number > 0
        self._before: Path | None = None
        self._gone: Callable[[int], bool] = lambda number: False

    def run(self, patient: bool = False) -> int:
        """Run every task; one that cannot be run is reported, and the others follow.

        Args:
            patient: of several ranks, whether each is waited for, as long as for a worker.
        """
        if self._options.rank is None:
            return self._run()
        from evalkit.engines.launch import NO_SIGN, Launch

        asked = [self._options.model, *(target.task for target in self._targets)]
        seconds = self._options.worker_timeout
        with Launch(self._options.runs, self._options.rank, asked, os.environ) as launch:
            self._gone = launch.gone
            return self._run(launch, seconds if patient else min(seconds, NO_SIGN))

    def _settle(self, launch: Launch, seconds: float) -> None:
        """Go on with the ranks that are there."""
        from evalkit.engines.launch import those_there

        assert self._options.rank is not None
        rank = those_there(launch, self._options.rank, seconds, terminal.command_line())
        self._options = dataclasses.replace(self._options, rank=rank)
        self._helps = rank is not None and rank.number > 0

    def _run(self, launch: Launch | None = None, seconds: float = 0.0) -> int:
        from evalkit.errors import BudgetError, RankLost
        from evalkit.pipeline.run import Interrupted, load_model

        with terminal.only_warnings_if(self._helps):
            self._check_data()
            model = load_model(self._options)
        try:
            if launch is not None:
                self._settle(launch, seconds)
            if self._helps:
                terminal.only_warnings()
            for target in self._targets:
                self._one(target, model)
                if self._status in (BudgetError.exit_code, RankLost.exit_code):
                    break
        except Interrupted as stop:
            self._keep(stop.path)
            self._print()
            return terminal.fail(str(stop), 130)
        finally:
            model.close()
        self._print()
        return self._status

    def _check_data(self) -> None:
        """Fail before weights are loaded where no task at all has its data."""
        from evalkit import registry
        from evalkit.data.locate import locate
        from evalkit.errors import DataError
        from evalkit.task import MINIATURE

        first: DataError | None = None
        for target in self._targets:
            task = registry.task(target.task, self._options.protocol)
            split = target.split or task.splits[0]
            if split == MINIATURE:
                return
            try:
                locate(task, split, self._options.root, self._options.offline)
                return
            except DataError as error:
                first = first or error
        if first is not None:
            raise first

    def _one(self, target: Target, model: Any) -> None:
        from evalkit.errors import BudgetError, EvalkitError, UsageError
        from evalkit.pipeline.judging import gave_nothing
        from evalkit.pipeline.run import RunStopped, run_share, run_task

        options = dataclasses.replace(self._options, split=target.split)
        try:
            if self._helps:
                self._before = run_share(target.task, model, options, self._before, self._gone)
                return
            result = run_task(target.task, model, options, self._gone)
        except UsageError:
            raise
        except EvalkitError as error:
            if len(self._targets) == 1 and not (self._as_json and isinstance(error, RunStopped)):
                raise
            stopped = error.exit_code == BudgetError.exit_code
            self._status = error.exit_code if stopped or self._status in (0, 4) else self._status
            terminal.fail(str(error), error.exit_code)
            if isinstance(error, RunStopped):
                self._keep(error.path)
            return
        counts = result.counts
        if self._max_errors.exceeded(counts["errors"], counts["expected"]) or not counts["answered"]:
            self._status = self._status or 4
        if why := gave_nothing(result.summary):
            self._status, self._why = self._status or 4, why
        self._add(result.summary)

    def _add(self, summary: dict[str, Any]) -> None:
        from evalkit.reports import run as report

        if self._check_reference:
            row, differences = report.check_reference(summary)
            summary = {**summary, "reference_check": {"row": row, "differences": differences}}
        self._runs.append(summary)
        if not self._as_json:
            click.echo(report.run_text(summary) + "\n")
            if self._check_reference:
                click.echo(report.reference_text(summary) + "\n")

    def _keep(self, path: Path) -> None:
        """Report what a run folder holds so far."""
        from evalkit.pipeline.results import load_run

        self._runs.append(load_run(path).summary)

    def _print(self) -> None:
        if self._helps:
            return  # rank 0 scores and reports
        if self._as_json:
            terminal.print_json({"runs": self._runs})
        else:
            self._print_text()
        if self._status == 4:
            failed = "more samples failed than --max-errors allows; the values rest on the others"
            terminal.fail(f"done, but {self._why or failed}", 4)

    def _print_text(self) -> None:
        from evalkit.reports import run as report

        for table in self._suite_tables():
            click.echo(f"{table}\n")
        finished = [run for run in self._runs if run["metrics"]]
        if finished:
            click.echo(report.next_steps(finished))

    def _suite_tables(self) -> list[str]:
        from evalkit import registry
        from evalkit.pipeline.options import comma_list

        suites = registry.suites()
        chosen = [suites[name] for name in comma_list(self._asked) if name in suites]
        finished = [run for run in self._runs if run["metrics"]]
        return [suite.table(finished).text() for suite in chosen if suite.table and finished]
