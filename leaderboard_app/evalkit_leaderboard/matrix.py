"""Models by tasks: which run stands in which cell, what is best, what may be ranked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from evalkit.task import PARTS
from evalkit_leaderboard import catalogue
from evalkit_leaderboard.catalogue import Average, TaskInfo
from evalkit_leaderboard.marks import Mark, all_marks, is_ranked
from evalkit_leaderboard.numbers import shown
from evalkit_leaderboard.runs import Run


class Column(NamedTuple):
    """A value of a task on a split."""

    task: str
    split: str
    metric: str

    def __str__(self) -> str:
        return f"{self.task}@{self.split}:{self.metric}"


@dataclass(frozen=True, slots=True)
class Cell:
    """A value of the matrix.

    Attributes:
        run: key of the run it was measured in. table: the paper's table it was printed in. One is empty.
        decimals: as many as the paper prints in the column; None for what was measured here.
    """

    value: float | None
    unit: str = ""
    n: int = 0
    low: float | None = None
    high: float | None = None
    marks: tuple[Mark, ...] = ()
    reason: str = ""
    run: str = ""
    table: str = ""
    decimals: int | None = None

    @property
    def text(self) -> str:
        """The value as people read it."""
        if self.value is not None and self.decimals is not None:
            return f"{self.value:.{self.decimals}f}"
        return shown(self.value, self.unit)

    @property
    def ranked(self) -> bool:
        """Whether it counts for the order and for best by default."""
        return self.value is not None and is_ranked(self.marks)


@dataclass(frozen=True, slots=True)
class Row:
    """A model, measured here or published.

    Attributes:
        label: unique among the rows. current: no newer weights of the same model have run on all its tasks.
        parameters: their number, of published rows as rounded in print.
        key: of a row measured here, what an address calls it: a hash of its model and weights.
    """

    label: str
    published: bool
    cells: Mapping[Column, Cell] = field(default_factory=dict)
    parameters: int | None = None
    average: Average | None = None
    current: bool = True
    model: str = ""
    key: str = ""

    def apart(self, columns: Iterable[Column]) -> bool:
        """Whether none of its values in `columns` may be set beside a published one."""
        cells = [(column, cell) for column in columns if (cell := self.cells.get(column)) is not None]
        found = any(cell.ranked and column.split not in PARTS for column, cell in cells)
        return not self.published and self.average is None and not found

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Marks of its values, each once."""
        return tuple(dict.fromkeys(mark for cell in self.cells.values() for mark in cell.marks))


@dataclass(frozen=True)
class Matrix:
    """All rows and columns there are."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    infos: Mapping[str, TaskInfo]

    @cached_property
    def measured(self) -> frozenset[Column]:
        """Columns that a row measured here has a cell in."""
        return frozenset(column for row in self.rows if not row.published for column in row.cells)

    def higher_is_better(self, column: Column) -> bool:
        """Direction of a column."""
        metric = self.infos[column.task].metrics.get(column.metric)
        return metric is None or metric.higher_is_better

    def best(self, column: Column, rows: Iterable[Row], everything: bool = False) -> float | None:
        """The best of two or more ranked values of a column; `everything` ranks marked ones too."""
        values = [
            cell.value
            for row in rows
            if (cell := row.cells.get(column)) is not None
            and cell.value is not None
            and (everything or cell.ranked)
        ]
        if len(values) < 2:
            return None
        return max(values) if self.higher_is_better(column) else min(values)

    def row(self, label: str) -> Row | None:
        """The row of that label."""
        return next((row for row in self.rows if row.label == label), None)


def build(runs: Mapping[str, Run]) -> Matrix:
    """The matrix of all runs and all published rows."""
    usable = {key: run for key, run in runs.items() if run.metrics and run.status != "broken"}
    infos = {name: catalogue.info(name, usable.values()) for name in {run.task for run in usable.values()}}
    infos = {**catalogue.tasks(), **infos}
    measured = _measured(usable, infos)
    rows = (*measured, *_published(infos, {row.label for row in measured}))
    columns = {column for row in rows for column in row.cells}
    return Matrix(rows, tuple(sorted(columns, key=lambda column: _place(column, infos))), infos)


def _place(column: Column, infos: Mapping[str, TaskInfo]) -> tuple[object, ...]:
    task = infos[column.task]
    metrics = [task.headline, *task.metrics]
    return (
        list(infos).index(column.task),
        task.splits.index(column.split) if column.split in task.splits else len(task.splits),
        column.split,
        metrics.index(column.metric) if column.metric in metrics else len(metrics),
        column.metric,
    )


def _measured(runs: Mapping[str, Run], infos: Mapping[str, TaskInfo]) -> list[Row]:
    marks = all_marks(runs, infos)
    groups: dict[tuple[str, str], list[str]] = {}
    for key, run in runs.items():
        groups.setdefault((run.model, run.weights), []).append(key)
    weights_of = Counter(model for model, _ in groups)
    newest = _newest(runs)
    rows: list[Row] = []
    chosen_runs: list[tuple[str, Run]] = []
    for (model, weights), keys in groups.items():
        label = f"{model} · {weights[:8] or 'unknown weights'}" if weights_of[model] > 1 else model
        chosen = _chosen(keys, runs, marks)
        cells = {
            Column(target[0], target[1], name): Cell(
                cell.value, cell.unit, cell.n, cell.low, cell.high, marks[key], cell.reason, key
            )
            for target, key in chosen.items()
            for name, cell in runs[key].metrics.items()
        }
        mine = [runs[key] for key in chosen.values()]
        current = any(newest[run.series, run.task, run.split] == (run.model, run.weights) for run in mine)
        parameters = next((run.parameters for run in mine if run.parameters), None)
        rows.append(Row(label, False, cells, parameters, None, current, model, row_key(model, weights)))
        chosen_runs += [
            (label, runs[key])
            for target, key in chosen.items()
            if is_ranked(marks[key]) and target[1] not in PARTS
        ]
    _, averages = catalogue.averages(chosen_runs)
    return [replace(row, average=averages.get(row.label)) for row in rows]


def row_key(model: str, weights: str) -> str:
    """Short name of a model's weights in addresses."""
    return hashlib.sha256(f"{model}\0{weights}".encode("utf-8", "replace")).hexdigest()[:10]


def _newest(runs: Mapping[str, Run]) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Model and weights of the newest run of each series on each task and split."""
    found: dict[tuple[str, str, str], tuple[str, str]] = {}
    for run in sorted(runs.values(), key=lambda run: (run.created, run.step or 0)):
        found[run.series, run.task, run.split] = (run.model, run.weights)
    return found


def _chosen(
    keys: Sequence[str], runs: Mapping[str, Run], marks: Mapping[str, Sequence[Mark]]
) -> dict[tuple[str, str], str]:
    """The run to show by task and split: one that is ranked before one that is not, then the newest."""
    order = sorted(keys, key=lambda key: (is_ranked(marks[key]), runs[key].created, runs[key].path))
    return {(runs[key].task, runs[key].split): key for key in order}


def _published(infos: Mapping[str, TaskInfo], taken: set[str]) -> list[Row]:
    """The paper's rows by model; where two tables print different runs of a model, each has its row."""
    tables: dict[str, dict[str, dict[Column, Cell]]] = {}
    decimals = _decimals(infos)
    sizes: dict[str, str] = {}
    for task in infos.values():
        for row in task.references:
            mine = tables.setdefault(row.model, {}).setdefault(row.table, {})
            marks = (Mark("†", row.note, ranked=True),) if row.note else ()
            for metric, value in row.metrics.items():
                unit = task.metrics[metric].unit if metric in task.metrics else ""
                column = Column(task.name, row.split, metric)
                mine[column] = Cell(
                    value, unit, marks=marks, table=row.table, decimals=decimals[column, row.table]
                )
            sizes[row.model] = sizes.get(row.model) or row.size
    averages, _ = catalogue.averages([])
    rows: list[Row] = []
    for model, by_table in tables.items():
        merged: dict[Column, Cell] = {}
        for number in sorted(by_table, key=lambda text: (len(text), text)):
            apart = not merged.keys().isdisjoint(by_table[number])
            if apart:
                label = f"{model} (Table {number})"
                rows.append(
                    Row(label, True, by_table[number], catalogue.parameters(sizes[model]), model=model)
                )
            else:
                merged.update(by_table[number])
        label = f"{model} (published)" if model in taken else model
        rows.append(
            Row(label, True, merged, catalogue.parameters(sizes[model]), averages.get(model), model=model)
        )
    return rows


def _decimals(infos: Mapping[str, TaskInfo]) -> dict[tuple[Column, str], int]:
    """The most decimals that a table of the paper prints in a column."""
    found: dict[tuple[Column, str], int] = {}
    for task in infos.values():
        for row in task.references:
            for metric, value in row.metrics.items():
                key = Column(task.name, row.split, metric), row.table
                decimals = len(f"{value:.4f}".rstrip("0").partition(".")[2])
                found[key] = max(decimals, found.get(key, 0))
    return found


def default_columns(matrix: Matrix, every_task: bool = False) -> list[Column]:
    """For every task that was measured, the headline on each split; without runs, of every task.

    On a split where no run has the headline, the first metric with a value stands in for it. The splits with
    metrics measured here come first within their task.
    """
    filled = {c for row in matrix.rows for c, cell in row.cells.items() if cell.value is not None}
    measured = matrix.measured & filled
    tasks = set() if every_task else {column.task for column in measured}
    headlines = {c[:2] for c in filled if c.metric == matrix.infos[c.task].headline}
    shown: list[Column] = []
    for column in matrix.columns:
        if column not in filled or (tasks and column.task not in tasks):
            continue
        headline = column.metric == matrix.infos[column.task].headline
        first = all(column[:2] != other[:2] for other in shown)
        if headline or (column in measured and first and column[:2] not in headlines):
            shown.append(column)
    return _measured_first(matrix, shown)


def tables(matrix: Matrix) -> list[str]:
    """Numbers of the paper's tables with values among the published rows; other reports have no columns."""
    found = {cell.table for row in matrix.rows for cell in row.cells.values() if cell.table.isdigit()}
    return sorted(found, key=int)


def table_columns(matrix: Matrix, number: str) -> list[Column]:
    """Columns that a table of the paper has values in, and what was measured here of the same."""
    cells = (item for row in matrix.rows for item in row.cells.items())
    printed = {(column.task, column.metric) for column, cell in cells if cell.table == number}
    held = {c for row in matrix.rows for c, cell in row.cells.items() if cell.table == number or cell.run}
    return _measured_first(matrix, [c for c in matrix.columns if c in held and (c.task, c.metric) in printed])


def _measured_first(matrix: Matrix, columns: Sequence[Column]) -> list[Column]:
    """Columns by task, those with values measured here first within each."""
    tasks = list(matrix.infos)
    return sorted(columns, key=lambda c: (tasks.index(c.task), c not in matrix.measured))
