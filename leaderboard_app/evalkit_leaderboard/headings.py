"""Columns as the paper's tables call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from evalkit_leaderboard import catalogue
from evalkit_leaderboard.catalogue import TaskInfo
from evalkit_leaderboard.matrix import Column
from evalkit_leaderboard.runs import MetricCell, Run


def headings(columns: Sequence[Column], infos: Mapping[str, TaskInfo]) -> list[str]:
    """The paper's name of each column, with the split where that tells more; else its full name.

    Where the columns are of several tables, names that stand for one benchmark alone (Accuracy) say which.
    """
    tasks = {column.task for column in columns}
    found = [_heading(column, infos.get(column.task), len(tasks) > 1) for column in columns]
    pairs = list(zip(found, columns, strict=True))
    split = [name if found.count(name) == 1 else f"{name} ({column.split})" for name, column in pairs]
    return [name if split.count(name) == 1 else str(c) for name, c in zip(split, columns, strict=True)]


def _heading(column: Column, info: TaskInfo | None, several: bool) -> str:
    printed = _printed(column.task, column.split).get(column.metric) if info is not None else None
    if info is None or printed is None:
        return str(column)
    name, of_one_task = printed
    if several and of_one_task:
        name = f"{info.title} {name}"
    theirs = {row.split for row in info.references if column.metric in row.metrics}
    return name if column.split in theirs else f"{name} ({column.split})"


@lru_cache(maxsize=256)
def _printed(task: str, split: str) -> Mapping[str, tuple[str, bool]]:
    """By metric: its column in a table of the paper, and whether that table is of this task alone.

    A table names the run and metric behind each of its cells; so it is made of a run that has every metric.
    """
    info = catalogue.tasks().get(task)
    if info is None:  # not installed: the paper has no name for it
        return {}
    metrics = {name: MetricCell(1.0, metric.unit, 1) for name, metric in info.metrics.items()}
    run = Run(task, "complete", task=task, split=split, protocol=info.protocol, metrics=metrics)
    found: dict[str, tuple[str, bool]] = {}
    for suite in catalogue.tables_of(task):
        table = catalogue.paper_table(suite, [(task, run)])
        of_one_task = len({target.task for target in suite.targets()}) == 1
        for row in table.rows if table is not None else ():
            if row.ours:
                for name, source in zip(table.columns, row.sources, strict=True):  # type: ignore[union-attr]
                    if source is not None:
                        found.setdefault(source.metric, (name, of_one_task))
    return found
