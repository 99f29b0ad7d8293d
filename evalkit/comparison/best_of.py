"""Several runs against one base: which is best, and is it better than luck would have it?"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.comparison.history import usual_metric
from evalkit.comparison.runs import Key, LoadedRun, load_for_comparison, pair
from evalkit.comparison.verdicts import (
    GateVerdict,
    Thresholds,
    Verdict,
    exceeds,
    gate_status,
    gate_verdict,
    more_clusters,
    remedy,
)
from evalkit.contracts import Json, Record
from evalkit.errors import NotComparableError, UsageError
from evalkit.metrics.base import Metric
from evalkit.metrics.repeated import over_repeats
from evalkit.pipeline.comparison_options import RESAMPLES, Undecided, as_level
from evalkit.statistics import Resampler
from evalkit.statistics.best_of import BestOf, Contender, best_of


@dataclass(frozen=True, slots=True)
class BestOfTask:
    """The best of several runs on one task.

    Attributes:
        names, paths: of the runs, in the order of `found.contenders`.
        samples: which the base and all runs answered. failure: why the best fails the gate, or None.
        undecided: why the data cannot tell, or None.
    """

    key: Key
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    samples: int
    clusters: int
    found: BestOf
    alpha: float
    max_drop: float | None = None
    margin: float | None = None
    failure: str | None = None
    undecided: str | None = None

    @property
    def best(self) -> str | None:
        """The name of the best run."""
        return None if self.found.best is None else self.names[self.found.best]

    def verdict(self, contender: Contender) -> Verdict:
        """What is called of a run, over all of them."""
        gain = contender.difference.gain
        if contender.p is None or gain is None or contender.p > self.alpha:
            return "no_evidence"
        return "improved" if gain > 0 else "regressed"


@dataclass(frozen=True, slots=True)
class BestOfComparison:
    """The best of several runs, task by task.

    Attributes:
        base, new: names as given. reasons: why the gate fails or is undecided, and what readers must know.
    """

    base: str
    new: tuple[str, ...]
    alpha: float
    tasks: tuple[BestOfTask, ...]
    reasons: tuple[str, ...]
    undecided: Undecided | None = None

    @property
    def verdict(self) -> GateVerdict:
        """Of the best run of each task."""
        return gate_verdict(self.tasks)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 regression, 5 undecided, or what `undecided` makes of it."""
        return gate_status(self.verdict, self.undecided)


def compare_best_of(
    base: Mapping[Key, Path],
    new: Sequence[Mapping[Key, Path]],
    *,
    names: tuple[str, Sequence[str]],
    metric: str | None = None,
    thresholds: Thresholds | None = None,
    alpha: float = 0.05,
    allow: Collection[str] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
    undecided: Undecided | None = None,
) -> BestOfComparison:
    """Compare runs with one base by each task's headline, and judge the best of each task.

    Args:
        names: of the base and of the runs. metric: in place of the headlines.
        thresholds: of the metrics that the best is chosen by.

    Raises:
        NotComparableError: the runs do not measure the same thing, or cannot be read.
        UsageError: unknown metric, a threshold that names another one, or fewer than two runs.
    """
    as_level(alpha)
    if len(new) < 2:
        raise UsageError("--best-of: give several runs after BASE")
    if len(set(names[1])) < len(names[1]):
        raise UsageError("--best-of: the same run is given twice")
    for name, paths in zip(names[1], new, strict=True):
        if any(key in base and path.resolve() == base[key].resolve() for key, path in paths.items()):
            raise UsageError(f"--best-of {name}: this is BASE itself: leave it out")
    keys, left_out = common_keys((base, *new))
    if not keys:
        raise NotComparableError(f"no task in common: {names[0]} and {', '.join(names[1])}")
    limits = thresholds or Thresholds()
    resampler = Resampler(seed, resamples)
    family = _Family(tuple(names[1]), metric, allow, resampler, alpha, len(keys))
    tasks = [_task(key, base[key], [runs[key] for runs in new], family) for key in keys]
    limits.check((task.key, task.found.metric.name) for task in tasks)
    judged = tuple(_judged(task, limits) for task in tasks)
    reasons = [
        f"{task.key}: {task.failure or task.undecided}" for task in judged if task.failure or task.undecided
    ]
    reasons += left_out
    return BestOfComparison(names[0], tuple(names[1]), alpha, judged, tuple(reasons), undecided)


@dataclass(frozen=True, slots=True)
class _Family:
    """What the tasks of a comparison have in common; `tasks` is how many there are."""

    names: tuple[str, ...]
    metric: str | None
    allow: Collection[str]
    resampler: Resampler
    alpha: float
    tasks: int


def _task(key: Key, base: Path, runs: Sequence[Path], family: _Family) -> BestOfTask:
    first = load_for_comparison(base)
    loaded = [load_for_comparison(path) for path in runs]
    series = common_records(first, loaded, family.allow)
    if not series[0]:
        raise NotComparableError(f"{key}: no sample was answered by all runs")
    metric = choose_metric(first, family.metric, series)
    found = best_of(
        metric, series[0], series[1:], family.resampler, alpha=family.alpha, families=family.tasks
    )
    clusters = len({record.cluster for record in series[0]})
    return BestOfTask(key, family.names, tuple(runs), len(series[0]), clusters, found, family.alpha)


def common_keys(runs: Sequence[Mapping[Key, Path]]) -> tuple[list[Key], list[str]]:
    """The tasks that all runs have, and a line for each of the others."""
    keys = [key for key in runs[0] if all(key in each for each in runs)]
    every = dict.fromkeys(key for each in runs for key in each)
    return keys, [f"{key}: not every run has it: left out" for key in every if key not in keys]


def common_records(base: LoadedRun, runs: Sequence[LoadedRun], allow: Collection[str]) -> list[list[Record]]:
    """Records of the base and of each run, of the samples that all answered, in the same order.

    Raises:
        NotComparableError: a run does not measure what the base does.
    """
    pairs = [pair(base, run, allow).answered() for run in runs]
    shared = set.intersection(*({record.id for record in each.base} for each in pairs))
    order = [record.id for record in pairs[0].base if record.id in shared]
    sides = [pairs[0].base, *(each.new for each in pairs)]
    return [[by_id[name] for name in order] for by_id in ({r.id: r for r in side} for side in sides)]


def choose_metric(run: LoadedRun, wanted: str | None, series: Sequence[Sequence[Record]]) -> Metric:
    """The metric named, or the task's headline, or the first that all have.

    Raises:
        UsageError: there is none of that name.
    """
    known = {metric.name: metric for metric in over_repeats(run.task.metrics(), *series)}
    if wanted is not None and wanted not in known:
        raise UsageError(f"--metric {wanted}: {run.key.task} has {', '.join(known)}")
    headline = run.task.headline or next(iter(known))

    def in_all(name: str) -> bool:
        return all(known[name].reason(records) is None for records in series)

    return known[wanted or usual_metric(list(known), headline, in_all)]


def _judged(task: BestOfTask, limits: Thresholds) -> BestOfTask:
    """The gate's answer for the best run."""
    name = task.found.metric.name
    max_drop, margin = limits.of(task.key, name)
    task = dataclasses.replace(task, max_drop=max_drop, margin=margin)
    if task.found.best is None:
        return dataclasses.replace(task, undecided=f"{name}: no run has a value")
    best = task.found.contenders[task.found.best]
    failure, undecided = _gate(task, best)
    said = f"{name}, {task.best}: "
    return dataclasses.replace(
        task, failure=failure and said + failure, undecided=undecided and said + undecided
    )


def _gate(task: BestOfTask, best: Contender) -> tuple[str | None, str | None]:
    gain, margin = best.difference.gain or 0.0, task.margin
    if best.p is None or (margin is not None and best.worst_gain is None):
        reason = f"{best.difference.reason or 'no interval'}{more_clusters(best.difference.clusters)}"
        return None, f"cannot be judged: {reason}"
    if margin is not None:
        if exceeds(-(best.best_gain or 0.0), margin):
            return f"a drop larger than {margin:g} is shown", None
        if exceeds(-(best.worst_gain or 0.0), margin):
            need = best.difference.needed_for_margin(margin, task.alpha / len(task.names))
            return None, f"not shown: a drop larger than {margin:g} is not excluded; {remedy(need)}"
        return None, None
    if task.verdict(best) == "regressed" and exceeds(-gain, task.max_drop or 0.0):
        return "significant drop, though it is the best", None
    return None, None


def best_of_json(comparison: BestOfComparison) -> dict[str, Json]:
    """Verdict, every run's metric, the best of each task, reasons; full precision."""
    return {
        "verdict": comparison.verdict,
        "base": comparison.base,
        "new": list(comparison.new),
        "alpha": comparison.alpha,
        "metrics": [
            _contender_json(task, place) for task in comparison.tasks for place in range(len(task.names))
        ],
        "best_of": [_best_json(task) for task in comparison.tasks],
        "flips": {},
        "reasons": list(comparison.reasons),
    }


def _contender_json(task: BestOfTask, place: int) -> dict[str, Json]:
    contender = task.found.contenders[place]
    difference = contender.difference
    chosen = place == task.found.best
    return {
        "task": task.key.task,
        "split": task.key.split,
        "metric": difference.metric.name,
        "unit": difference.metric.unit,
        "higher_is_better": difference.metric.higher_is_better,
        "run": str(task.paths[place]),
        "name": task.names[place],
        "best": chosen,
        "base": difference.base,
        "new": difference.new,
        "difference": difference.difference,
        "ci95": list(contender.ci95) if contender.ci95 else None,
        "p": difference.p,
        "p_adjusted": contender.p,
        "verdict": task.verdict(contender),
        "detectable": difference.detectable(task.alpha / len(task.names)),
        "n": difference.n,
        "clusters": difference.clusters,
        "judged": chosen,
        "max_drop": task.max_drop if chosen else None,
        "margin": task.margin if chosen else None,
        "failure": task.failure if chosen else None,
        "undecided": task.undecided if chosen else None,
        "notes": [difference.reason] if difference.reason else [],
    }


def _best_json(task: BestOfTask) -> dict[str, Json]:
    found = task.found
    best = None if found.best is None else found.contenders[found.best]
    return {
        "task": task.key.task,
        "split": task.key.split,
        "metric": found.metric.name,
        "runs": len(task.names),
        "best": task.best,
        "run": None if found.best is None else str(task.paths[found.best]),
        "gain": best.difference.gain if best else None,
        "p_adjusted": best.p if best else None,
        "verdict": task.verdict(best) if best else "no_evidence",
        "luck": found.luck,
        "shrinkage": found.shrinkage,
        "expected_gain": found.expected_gain,
        "samples": task.samples,
        "clusters": task.clusters,
    }
