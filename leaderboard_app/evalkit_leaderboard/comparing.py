"""Two sides compared over every task that both have, as `evalkit compare` does it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evalkit.comparison import Comparison, Key, MetricResult, Thresholds, compare_runs
from evalkit.comparison.alike import refusal
from evalkit.comparison.compare import TaskPart
from evalkit.comparison.runs import LoadedRun, load_for_comparison, pair
from evalkit.comparison.shared import Shared
from evalkit.comparison.verdicts import exceeds
from evalkit.pipeline.comparison_options import ComparisonOptions
from evalkit.reports import wording
from evalkit_leaderboard.catalogue import TaskInfo
from evalkit_leaderboard.matrix import Row
from evalkit_leaderboard.runs import Run, or_reason, stamp

#: A side's run of each task and split.
Runs = Mapping[Key, Run]
Fate = Literal["gained", "kept", "forgotten", "undecided"]
#: Of a comparison over every task that both sides have.
ALL = "all tasks"
#: Records of runs that are held for the next comparison.
_MOST_RECORDS = 300_000
FATES: tuple[Fate, ...] = ("forgotten", "gained", "kept", "undecided")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line takes: level, thresholds by metric, fields that may differ."""

    alpha: float = 0.05
    margin: tuple[str, ...] = ()
    max_drop: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()

    def options(self) -> ComparisonOptions:
        """As the command line has them. Raises UsageError for values that cannot be."""
        options = ComparisonOptions(
            alpha=self.alpha, margin=self.margin, max_drop=self.max_drop, allow=self.allow
        )
        options.check()
        return options


@dataclass(frozen=True, slots=True)
class Outcome:
    """A comparison of what may be compared, None where nothing may; and why the rest may not."""

    comparison: Comparison | None
    refused: Mapping[Key, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Side:
    """A model with its run of each task, or one run."""

    name: str
    runs: Runs

    @property
    def created(self) -> str:
        """When the newest of its runs began."""
        return max(run.created for run in self.runs.values())


def side(row: Row, runs: Mapping[str, Run]) -> Runs:
    """The runs that the values of a row come from, by task and split."""
    cells = ((column, runs.get(cell.run)) for column, cell in row.cells.items())
    return {Key(column.task, column.split): run for column, run in cells if run is not None}


def headline(infos: Mapping[str, TaskInfo], comparison: Comparison, key: Key) -> MetricResult | None:
    """The task's headline, or the first metric after it with a difference."""
    mine = [r for r in comparison.metrics if r.key == key and not r.health]
    usable = [result for result in mine if result.difference.difference is not None]
    info = infos.get(key.task)
    wanted = info.headline if info is not None else ""
    return next((r for r in usable if r.name == wanted), next(iter(usable), None))


def stamps(runs: Runs) -> str:
    """Changes with the runs' contents."""
    return " ".join(f"{key} {run.path} {stamp(run.path)}" for key, run in sorted(runs.items()))


def shared(base: Runs, new: Runs) -> list[Key]:
    """Tasks of which both have a run, not the same one."""
    return [key for key, run in base.items() if key in new and new[key].path != run.path]


def comparable(base: Runs, new: Runs) -> list[Key]:
    """Those of them that nothing stands against, as far as the runs say of themselves."""
    return [key for key in shared(base, new) if refusal(base[key].measured, new[key].measured) is None]


def compare_over(
    base: Runs,
    new: Runs,
    names: tuple[str, str],
    settings: Settings,
    work: Shared[TaskPart] | None = None,
) -> Outcome:
    """Compare all tasks that both have at once, in one family of tests.

    Args:
        work: with other comparisons of these runs; it reads runs by `load`.

    Raises:
        UsageError: a threshold names no metric here, or a setting cannot be.
    """
    options = settings.options()
    left_out: dict[Key, str] = {}
    kept: list[Key] = []
    for key in shared(base, new):
        why = refused(base[key], new[key], settings.allow)
        if why is None:
            kept.append(key)
        else:
            left_out[key] = why.replace(base[key].path, "the base").replace(new[key].path, "the new run")
    if not kept:
        return Outcome(None, left_out)
    comparison = compare_runs(
        {key: base[key].folder for key in kept},
        {key: new[key].folder for key in kept},
        names=names,
        thresholds=Thresholds(options.largest_drops, options.margins),
        alpha=settings.alpha,
        allow=settings.allow,
        shared=work or Shared(load),
    )
    return Outcome(comparison, left_out)


def refused(base: Run, new: Run, allow: tuple[str, ...]) -> str | None:
    """Why the two must not be compared, samples included; None where they may."""
    if why := refusal(base.measured, new.measured, allow):
        return why
    pairs = or_reason(lambda: pair(load(base.folder), load(new.folder), allow))
    if isinstance(pairs, str):
        return pairs
    return None if pairs.answered().base else "no sample was answered by both"


def fate(result: MetricResult) -> Fate:
    """What became of a metric: `kept` is shown, by a margin or by samples that are all the same."""
    if result.failure or (result.verdict == "regressed" and result.max_drop is None):
        return "forgotten"
    if result.verdict == "improved":
        return "gained"
    difference = result.difference
    worst = difference.worst_gain
    if result.margin is not None and worst is not None and not exceeds(-worst, result.margin):
        return "kept"
    if result.max_drop is not None and result.verdict == "regressed":
        return "kept"
    same = difference.p is not None and not difference.se and not difference.difference
    return "kept" if same else "undecided"


def said(comparison: Comparison, heads: Mapping[Key, MetricResult | None] | None = None) -> str:
    """Whether the gate passes, and what was gained, kept and forgotten, in a line.

    Args:
        heads: headlines by task; of several tasks only these are named, and whatever else was forgotten.
    """
    several = len(comparison.tasks) > 1
    by_fate: dict[Fate, list[str]] = {name: [] for name in FATES}
    for result in comparison.metrics:
        became = fate(result)
        lost = became == "forgotten" and not result.difference.metric.variant
        if result.health or not (result.judged or lost):
            continue
        if not (several and heads) or result is heads.get(result.key) or lost:
            name = f"{result.key} {result.name}" if several else result.name
            by_fate[became].append(name if result.judged else f"{name} (not judged)")
    words = [f"{name.capitalize()}: {_listed(by_fate[name])}" for name in FATES if by_fate[name]]
    return f"{wording.conclusion(comparison)}. {'. '.join(words)}."


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


class _LoadedRuns:
    """Runs as comparisons read them, by path and stamp: the last used, for all threads."""

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[Path, str], LoadedRun] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path) -> LoadedRun:
        """The run, read where it is not held as it is now. Raises NotComparableError."""
        key = (path, stamp(str(path)))
        with self._lock:
            if key in self._runs:
                self._runs.move_to_end(key)
                return self._runs[key]
        run = load_for_comparison(path)
        with self._lock:
            self._runs[key] = run
            while (
                len(self._runs) > 1 and sum(len(one.records) for one in self._runs.values()) > _MOST_RECORDS
            ):
                self._runs.popitem(last=False)
        return run


load = _LoadedRuns().get
