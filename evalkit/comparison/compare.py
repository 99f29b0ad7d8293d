"""Two results, task by task: the same samples, one verdict."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evalkit import registry
from evalkit.comparison.flips import Flips, find_flips
from evalkit.comparison.forgetting import SuiteChange, forgetting, headline
from evalkit.comparison.pairing import Pairs, pair, timed
from evalkit.comparison.runs import Key, Side, load_side
from evalkit.comparison.thresholds import Thresholds
from evalkit.comparison.verdicts import MetricResult, decide
from evalkit.comparison.vitals import answer_vitals, errors, speed
from evalkit.contracts import Json
from evalkit.errors import NotComparableError, UsageError
from evalkit.metrics.base import Metric
from evalkit.pipeline.summary import groups
from evalkit.statistics import Difference, Resampler, difference
from evalkit.task import Task

log = logging.getLogger(__name__)

RESAMPLES = 10_000
Groups = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Json]]]]


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """One task's part of a comparison.

    Attributes:
        base, new: the run folders. samples: paired ones; answered: by both sides.
        base_groups, new_groups: figures by tag, as in a summary.
        tags: tags that reports are split by.
    """

    key: Key
    base: Path
    new: Path
    samples: int
    answered: int
    clusters: int
    flips: Flips
    base_groups: Groups
    new_groups: Groups
    tags: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything `evalkit compare` has to say.

    Attributes:
        metrics: every metric of every task, then errors, unparsed, truncated and speed.
        forgetting: mean change by suite, general first; empty unless general and domain tasks are compared.
        reasons: why the gate fails, and what the reader must know.
    """

    base: str
    new: str
    alpha: float
    tasks: tuple[TaskComparison, ...]
    metrics: tuple[MetricResult, ...]
    forgetting: tuple[SuiteChange, ...]
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> Literal["pass", "regression"]:
        """Whether the gate fails."""
        return "regression" if any(result.failure for result in self.metrics) else "pass"

    @property
    def exit_code(self) -> int:
        """Status of the command line: 0 pass, 1 regression."""
        return int(self.verdict == "regression")


def compare_runs(
    base: Mapping[Key, Path],
    new: Mapping[Key, Path],
    *,
    names: tuple[str, str],
    thresholds: Thresholds | None = None,
    alpha: float = 0.05,
    allow: Collection[str] = (),
    with_speed: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare runs of the same tasks and splits.

    Args:
        names: of both sides, for reports.
        allow: fields of the signature that may differ (pairing.py).
        with_speed: also judge the mean model time a sample.

    Raises:
        NotComparableError: the runs do not measure the same thing, or cannot be read.
        UsageError: a threshold that names no metric here, or alpha out of range.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"--alpha {alpha:g}: write a level between 0 and 1, e.g. 0.05")
    shared = [key for key in base if key in new]
    if not shared:
        listed = [", ".join(map(str, side)) or "nothing" for side in (base, new)]
        raise NotComparableError(f"no task in common: {names[0]} has {listed[0]}, {names[1]} has {listed[1]}")
    resampler = Resampler(seed, resamples)
    parts = [_compare_task(base[key], new[key], allow, resampler, alpha, with_speed) for key in shared]
    differences = [item for _, found in parts for item in found]
    metrics = decide(differences, thresholds or Thresholds(), alpha)
    by_key = {key: [r for r in metrics if r.key == key and not r.vital] for key in shared}
    headlines = [headline(registry.task(key.task), by_key[key]) for key in shared]
    tasks = tuple(task for task, _ in parts)
    missing = [f"{key} is only in {names[0]}: not compared" for key in base if key not in new]
    missing += [f"{key} is only in {names[1]}: not compared" for key in new if key not in base]
    reasons = [f"{result.key} {result.name}: {result.failure}" for result in metrics if result.failure]
    reasons += [f"{task.key}: {note}" for task in tasks for note in task.notes]
    return Comparison(
        *names,
        alpha,
        tasks,
        tuple(metrics),
        tuple(forgetting([result for result in headlines if result])),
        (*reasons, *missing),
    )


def _compare_task(
    base_path: Path,
    new_path: Path,
    allow: Collection[str],
    resampler: Resampler,
    alpha: float,
    with_speed: bool,
) -> tuple[TaskComparison, list[tuple[Key, Difference, bool]]]:
    base, new = load_side(base_path), load_side(new_path)
    pairs = pair(base, new, allow)
    answered = pairs.answered()
    if not answered.base:
        raise NotComparableError(f"{base_path} and {new_path}: no sample was answered by both")
    log.info("%s: %d pairs", base.key, len(answered.base))
    metrics = list(base.task.metrics())

    def differ(metric: Metric, on: Pairs, vital: bool) -> tuple[Key, Difference, bool]:
        return base.key, difference(metric, on.base, on.new, resampler, alpha=alpha), vital

    found = [differ(metric, answered, False) for metric in metrics]
    found.append(differ(errors(), pairs, True))
    found += [differ(metric, answered, True) for metric in answer_vitals()]
    if with_speed:
        found.append(differ(speed(), timed(answered, base, new), True))
    return _describe(base, new, pairs, answered, base.task, metrics), found


def _describe(
    base: Side, new: Side, pairs: Pairs, answered: Pairs, task: Task, metrics: Sequence[Metric]
) -> TaskComparison:
    notes = list(pairs.notes)
    if left := len(pairs.base) - len(answered.base):
        notes.append(f"{left} of {len(pairs.base)} samples have no answer on one side and enter errors alone")
    return TaskComparison(
        key=base.key,
        base=base.path,
        new=new.path,
        samples=len(pairs.base),
        answered=len(answered.base),
        clusters=len({record.cluster for record in answered.base}),
        flips=find_flips(metrics, answered.base, answered.new),
        base_groups=groups(task, answered.base),
        new_groups=groups(task, answered.new),
        tags=task.group_by,
        notes=tuple(notes),
    )
