"""Scores over checkpoints and curves of training logs, as the app and an export show them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from evalkit.comparison.history import usual_metric
from evalkit.text import one_line
from evalkit_leaderboard import logs
from evalkit_leaderboard.comparing import side
from evalkit_leaderboard.matrix import Matrix
from evalkit_leaderboard.runs import Run

#: Runs whose values are shown; below: what the names of checkpoints begin with, where that says nothing more.
WHOLE = ("complete", "excerpt", "partial")
_CHECKPOINT = re.compile(r"@(step|checkpoint|epoch|iter)$")
VALIDATION = "validation_loss"
#: Rows of a series in a table, less one.
_ROWS = 12


def plain(name: str) -> str:
    """A name on a line."""
    return one_line(name, 80)


def labels(names: Sequence[str]) -> dict[str, str]:
    """Series as they are shown: without `@step`, where that tells none apart."""
    short = {name: plain(_CHECKPOINT.sub("", name)) for name in names}
    counts = Counter(short.values())
    return {name: label if counts[label] == 1 else plain(name) for name, label in short.items()}


def series(runs: Mapping[str, Run]) -> dict[str, dict[str, list[Run]]]:
    """By task and split, then by series: the newest run of each checkpoint, in order of steps."""
    found: dict[str, dict[str, dict[tuple[str, str], Run]]] = {}
    for run in sorted(runs.values(), key=lambda run: run.created):
        if run.metrics and run.status in WHOLE:
            target = found.setdefault(f"{run.task}@{run.split}", {})
            target.setdefault(run.series, {})[run.model, run.weights] = run
    several = {
        target: {
            name: sorted(by_weights.values(), key=lambda run: (run.step is None, run.step or 0, run.created))
            for name, by_weights in lines.items()
            if len(by_weights) > 1
        }
        for target, lines in sorted(found.items())
    }
    return {target: lines for target, lines in several.items() if lines}


def has(run: Run, metric: str) -> bool:
    """Whether a run has a value of the metric."""
    cell = run.metrics.get(metric)
    return cell is not None and cell.value is not None


def frame(
    lines: Mapping[str, Sequence[Run]], metric: str, labels: Mapping[str, str]
) -> tuple[pd.DataFrame, bool]:
    """Values over steps, and whether these are steps of training or only places in a row.

    The first run of a series may be the base, which has no step of its own.
    """
    by_step = all(run.step is not None for runs in lines.values() for run in runs[1:])
    rows = []
    for name, runs in lines.items():
        for place, run in enumerate(runs):
            cell = run.metrics.get(metric)
            if cell is not None and cell.value is not None:
                step = (run.step or 0) if by_step else place
                low = cell.value if cell.low is None else cell.low
                high = cell.value if cell.high is None else cell.high
                rows.append((labels[name], step, cell.value, low, high))
    return pd.DataFrame(rows, columns=["series", "step", "value", "low", "high"]), by_step


def dated(runs: Mapping[str, Run], target: str, series: str) -> list[Run]:
    """Every run of a series on a task and split, oldest first."""
    found = [run for run in runs.values() if run.series == series and f"{run.task}@{run.split}" == target]
    return sorted((run for run in found if run.status in WHOLE), key=lambda run: run.created)


def by_date(lines: Mapping[str, Sequence[Run]], metric: str, labels: Mapping[str, str]) -> pd.DataFrame:
    """As `frame`, with the time that each run began; runs without one are left out."""
    rows = []
    for name, runs in lines.items():
        for run in runs:
            when, cell = pd.to_datetime(run.created, errors="coerce", utc=True), run.metrics.get(metric)
            if cell is not None and cell.value is not None and not pd.isna(when):
                low, high = (cell.value if end is None else end for end in (cell.low, cell.high))
                rows.append((labels[name], when, cell.value, low, high))
    return pd.DataFrame(rows, columns=["series", "step", "value", "low", "high"])


def curve(name: str, log: logs.TrainingLog, value: str, words: str = "") -> pd.DataFrame:
    """The value over steps, thinned to means of equal stretches where there are very many."""
    found = pd.DataFrame({"step": log.steps, "value": log.values.get(value, [float("nan")] * len(log.steps))})
    found = found.dropna()
    if len(found) > logs.POINTS:
        stretch = -(-len(found) // logs.POINTS)
        found = found.groupby(pd.RangeIndex(len(found)) // stretch).mean()
    return found.assign(series=plain(name) + words)


def losses(read: Mapping[str, logs.TrainingLog], value: str) -> pd.DataFrame:
    """A value of training logs over steps; beside the loss stands the validation loss where a log has it."""
    curves = [curve(name, log, value) for name, log in read.items()]
    if value == "loss":
        held_out = [(name, log) for name, log in read.items() if VALIDATION in log.values]
        curves += [curve(name, log, VALIDATION, " · validation") for name, log in held_out]
    return pd.concat(curves)


def values(read: Mapping[str, logs.TrainingLog]) -> tuple[list[str], str]:
    """Names of what the logs hold, and the one to show first."""
    names = list(dict.fromkeys(name for log in read.values() for name in log.values))
    return names, next((name for name in names if "loss" in name.lower()), next(iter(names), ""))


def length(name: str, log: logs.TrainingLog) -> str:
    """How much of a log there is, in words."""
    last = f"step {log.steps[-1]:g}" if log.steps else "no step yet"
    broken = f"; {log.broken} broken lines left out" if log.broken else ""
    return f"{plain(name)}: {len(log.steps):,} lines, {last}{broken}"


def rows(points: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Series, step and value of a chart's table: the first and last points of each and some between."""
    found = []
    for name, own in points.groupby("series", sort=False):
        places = sorted({round(i * (len(own) - 1) / _ROWS) for i in range(_ROWS + 1)})
        for step, value in own[["step", "value"]].iloc[places].itertuples(index=False):
            where = str(step)[:16] if hasattr(step, "isoformat") else f"{step:g}"
            found.append((str(name), where, f"{value:.4g}"))
    return found


def bases(
    board: Matrix, runs: Mapping[str, Run], target: str, lines: Mapping[str, Sequence[Run]]
) -> tuple[dict[str, Run], str]:
    """What may stand as step 0 of a task and split, by its row's key; and the usual one, of their name."""
    inside = {run.path for own in lines.values() for run in own}
    found = {
        row.key: run
        for row in board.rows
        if not row.published
        for key, run in side(row, runs).items()
        if str(key) == target and run.path not in inside and run.status in WHOLE
    }
    names = {name.partition("@")[0] for name in lines}
    return found, next((key for key, run in found.items() if run.model in names), "")


def metrics(board: Matrix, target: str, lines: Mapping[str, Sequence[Run]]) -> tuple[list[str], str, str]:
    """Metrics of a task and split, the one to show first, and the headline."""
    measured = [run for own in lines.values() for run in own]
    names = list(dict.fromkeys(name for run in measured for name in run.metrics))
    info = board.infos.get(target.partition("@")[0])
    headline = info.headline if info is not None else ""
    return (
        names,
        usual_metric(names, headline, lambda name: all(has(run, name) for run in measured)),
        headline,
    )
