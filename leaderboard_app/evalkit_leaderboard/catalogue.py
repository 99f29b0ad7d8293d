"""What the registry knows of tasks: columns, directions, published rows and the paper's tables."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from evalkit import registry
from evalkit.errors import EvalkitError
from evalkit.suite import Suite, Table
from evalkit.task import MINIATURE, Reference, Task
from evalkit_leaderboard.runs import Run

log = logging.getLogger(__name__)

#: The suite whose table prints the paper's average over all its benchmarks, and that column.
AVERAGE_SUITE, AVERAGE = "paper-table-2", "Avg. Score"
#: The row that the paper measures its models against.
YARDSTICK = "InternVL2-Llama3-76B"


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """Unit and direction of a metric."""

    name: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task as far as the app needs it; one that is not installed has its name alone.

    Attributes:
        headline: the metric shown where there is room for one.
        sizes: published number of samples by split.
        references: published rows.
    """

    name: str
    title: str
    splits: tuple[str, ...] = ()
    protocol: str = "paper"
    metrics: Mapping[str, MetricInfo] = field(default_factory=dict)
    headline: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()


@lru_cache(maxsize=1)
def tasks() -> Mapping[str, TaskInfo]:
    """Installed tasks by name, in the registry's order; one that fails is named and left out."""
    found = {name: _describe(name, factory) for name, factory in registry.tasks().items()}
    return {name: task for name, task in found.items() if task is not None}


def _describe(name: str, factory: type[Task]) -> TaskInfo | None:
    try:
        return _described(factory())
    except Exception as error:  # a plug-in's own mistake
        log.warning("task %s: %s: %s", name, type(error).__name__, error)
        return None


def _described(task: Task) -> TaskInfo:
    metrics = {m.name: MetricInfo(m.name, m.unit, m.higher_is_better) for m in task.metrics()}
    return TaskInfo(
        task.name,
        task.title or task.name,
        (*task.splits, MINIATURE),
        task.protocols[0],
        metrics,
        task.headline or next(iter(metrics), ""),
        dict(task.data_source.sizes),
        tuple(task.published_rows),
    )


def info(name: str, runs: Iterable[Run] = ()) -> TaskInfo:
    """The task of that name; of one that is not installed, what its runs tell."""
    if (known := tasks().get(name)) is not None:
        return known
    metrics = {
        metric: MetricInfo(metric, cell.unit, True)
        for run in runs
        if run.task == name
        for metric, cell in run.metrics.items()
    }
    return TaskInfo(name, name, metrics=metrics, headline=next(iter(metrics), ""))


def tables_of(task: str) -> list[Suite]:
    """Suites with a table that the task has columns in."""
    return [
        suite
        for suite in registry.suites().values()
        if suite.table is not None and any(target.task == task for target in suite.targets())
    ]


@lru_cache(maxsize=1)
def table_titles() -> Mapping[str, str]:
    """Titles of the paper's tables by number, of those that a suite makes."""
    made = {name: paper_table(suite, ()) for name, suite in registry.suites().items() if suite.table}
    return {name.rpartition("-")[2]: table.title for name, table in made.items() if table is not None}


def paper_table(suite: Suite, runs: Sequence[tuple[str, Run]]) -> Table | None:
    """The suite's table with a row for each label of (label, run); None where it cannot be made."""
    if suite.table is None:
        return None
    try:
        return suite.table([_summary(label, run) for label, run in runs])
    except (EvalkitError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        log.warning("%s: %s: %s", suite.name, type(error).__name__, error)
        return None


def _summary(label: str, run: Run) -> dict[str, Any]:
    return {
        "run": run.path,
        "model": label,
        "task": run.task,
        "split": run.split,
        "protocol": run.protocol,
        "status": run.status,
        "limited": run.limited,
        "counts": dict(run.counts),
        "nonstandard": dict(run.nonstandard),
        "metrics": {name: {"value": f.value, "unit": f.unit, "n": f.n} for name, f in run.metrics.items()},
    }


@dataclass(frozen=True, slots=True)
class Average:
    """The paper's average of a row: its value, how many of the benchmarks it rests on, and of how many."""

    value: float
    measured: int
    benchmarks: int

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.measured == self.benchmarks


def averages(runs: Sequence[tuple[str, Run]]) -> tuple[dict[str, Average], dict[str, Average]]:
    """The paper's average by published model, and by label of (label, run)."""
    suite = registry.suites().get(AVERAGE_SUITE)
    table = paper_table(suite, runs) if suite is not None else None
    if table is None or AVERAGE not in table.columns:
        return {}, {}
    place = table.columns.index(AVERAGE)
    found: tuple[dict[str, Average], dict[str, Average]] = ({}, {})
    for row in table.rows:
        printed = row.cells[place]
        others = [cell for position, cell in enumerate(row.cells) if position != place]
        if printed is not None:
            measured = sum(cell is not None for cell in others)
            found[row.ours][row.label] = Average(float(printed), measured, len(others))
    return found


def parameters(size: str) -> int | None:
    """Number of parameters from a printed size such as `2.2B` or `938M`."""
    scale = {"B": 1e9, "M": 1e6}.get(size.strip()[-1:].upper())
    try:
        return int(float(size.strip()[:-1]) * scale) if scale else None
    except ValueError:
        return None
