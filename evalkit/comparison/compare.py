"""Two results, task by task: the same samples, one verdict; and the JSON document of it."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evalkit import registry
from evalkit.comparison.flips import Flips, find_flips
from evalkit.comparison.forgetting import SuiteChange, forgetting, headline
from evalkit.comparison.health import answer_health, errors, speed
from evalkit.comparison.runs import Key, LoadedRun, Pairs, pair, timed
from evalkit.comparison.shared import Shared
from evalkit.comparison.verdicts import (
    GateVerdict,
    MetricResult,
    Thresholds,
    decide,
    gate_status,
    gate_verdict,
    more_clusters,
    too_little,
)
from evalkit.contracts import Json
from evalkit.errors import NotComparableError
from evalkit.metrics.base import Metric, once
from evalkit.metrics.repeated import over_repeats
from evalkit.pipeline.comparison_options import RESAMPLES, ComparisonOptions, Undecided
from evalkit.pipeline.summary import groups
from evalkit.statistics import Difference, difference
from evalkit.task import Task

log = logging.getLogger(__name__)

#: A small level over many metrics takes more resamples, up to these; beyond them tails are computed.
_MOST_RESAMPLES = 40_000
#: Resamples for each task over the level, some ten for each of its metrics.
_RESAMPLES_A_TAIL = 100
Groups = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Json]]]]


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """One task's part of a comparison.

    Attributes:
        base, new: the run folders. samples: paired ones; answered: by both sides.
        base_groups, new_groups: values by tag, as in a summary.
        tags: tags that reports are split by. undecided: why nothing of the task could be judged, or None.
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
    undecided: str | None = None


#: What is said of a task, and its differences, each with whether it is one of health.
TaskPart = tuple[TaskComparison, list[tuple[Key, Difference, bool]]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything `evalkit compare` has to say.

    Attributes:
        metrics: every metric of every task, then errors, unparsed, truncated and speed.
        forgetting: mean change by suite, general first; empty unless general and domain tasks are compared.
        reasons: why the gate fails or is undecided, and what the reader must know.
        undecided: whether the answer "undecided" passes or fails; None leaves it open (exit status 5).
    """

    base: str
    new: str
    alpha: float
    tasks: tuple[TaskComparison, ...]
    metrics: tuple[MetricResult, ...]
    forgetting: tuple[SuiteChange, ...]
    reasons: tuple[str, ...]
    undecided: Undecided | None = None

    @property
    def verdict(self) -> GateVerdict:
        """Whether the gate fails, or the data cannot tell."""
        found = gate_verdict(self.metrics)
        return "undecided" if found == "pass" and any(task.undecided for task in self.tasks) else found

    @property
    def exit_code(self) -> int:
        """Status of the command line: 0 pass, 1 regression, 5 undecided, or what `undecided` makes of it."""
        return gate_status(self.verdict, self.undecided)


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
    undecided: Undecided | None = None,
    shared: Shared[TaskPart] | None = None,
) -> Comparison:
    """Compare runs of the same tasks and splits.

    Args:
        names: of both sides, for reports.
        allow: fields of the signature that may differ (see `pair`).
        with_speed: also judge the mean model time a sample.
        undecided: see `Comparison`.
        shared: with other comparisons of these runs.

    Raises:
        NotComparableError: the runs do not measure the same thing, or cannot be read.
        UsageError: a threshold that names no metric here, or alpha out of range.
    """
    both = [key for key in base if key in new]
    if not both:
        listed = [", ".join(map(str, side)) or "nothing" for side in (base, new)]
        raise NotComparableError(f"no task in common: {names[0]} has {listed[0]}, {names[1]} has {listed[1]}")
    resamples = max(resamples, min(_MOST_RESAMPLES, math.ceil(_RESAMPLES_A_TAIL * len(both) / alpha)))
    shared = Shared() if shared is None else shared
    how = _How(tuple(sorted(allow)), seed, resamples, alpha, with_speed)
    parts = [_part(shared, base[key], new[key], how) for key in both]
    differences = [item for _, found in parts for item in found]
    same = [key for key in both if base[key].resolve() == new[key].resolve()]
    metrics = decide(differences, thresholds or Thresholds(), alpha, same)
    by_key = {key: [r for r in metrics if r.key == key and not r.health] for key in both}
    headlines = [headline(registry.task(key.task), by_key[key]) for key in both]
    tasks = tuple(
        task if task.key in same else dataclasses.replace(task, undecided=nothing_judged(by_key[task.key]))
        for task, _ in parts
    )
    missing = [f"{key} is only in {names[0]}: not compared" for key in base if key not in new]
    missing += [f"{key} is only in {names[1]}: not compared" for key in new if key not in base]
    reasons = [f"{result.key} {result.name}: {result.failure}" for result in metrics if result.failure]
    reasons += [f"{r.key} {r.name}: {r.undecided}" for r in metrics if r.undecided]
    reasons += [f"{task.key}: {task.undecided}" for task in tasks if task.undecided]
    reasons += [f"{key}: the run is compared with itself: no difference is possible" for key in same]
    reasons += [f"{task.key}: {note}" for task in tasks for note in task.notes]
    return Comparison(
        *names,
        alpha,
        tasks,
        tuple(metrics),
        tuple(forgetting([result for result in headlines if result])),
        (*reasons, *missing),
        undecided,
    )


def settings(options: ComparisonOptions) -> dict[str, Any]:
    """Keywords of `compare_runs`. Raises UsageError for values that cannot be."""
    options.check()
    return {
        "thresholds": Thresholds(options.largest_drops, options.margins),
        "alpha": options.alpha,
        "allow": options.allowed,
        "with_speed": options.speed,
        "seed": options.seed,
        "resamples": options.resamples,
        "undecided": options.undecided,
    }


def nothing_judged(results: Sequence[MetricResult]) -> str | None:
    """Why no metric of a task can be judged, or None where one can or where thresholds name none of them."""
    judged = [result for result in results if result.judged and not result.failure]
    if not judged or len(judged) < sum(result.judged for result in results):
        return None
    reasons = [
        f"{result.difference.reason or 'not computed'}{more_clusters(result.difference.clusters)}"
        if result.difference.p is None
        else too_little(result)
        for result in judged
    ]
    if any(result.undecided for result in judged) or not all(reasons):
        return None
    return f"nothing can be judged: {'; '.join(dict.fromkeys(r for r in reasons if r))}"


class _How(NamedTuple):
    """What is asked of two runs of a task."""

    allow: tuple[str, ...]
    seed: int
    resamples: int
    alpha: float
    with_speed: bool


def _part(shared: Shared[TaskPart], base: Path, new: Path, how: _How) -> TaskPart:
    mine, theirs = shared.load(base), shared.load(new)
    return shared.part(mine, theirs, how, lambda: _compare_task(mine, theirs, shared, how))


def _compare_task(base: LoadedRun, new: LoadedRun, shared: Shared[TaskPart], how: _How) -> TaskPart:
    pairs = pair(base, new, how.allow)
    answered = pairs.answered()
    if not answered.base:
        raise NotComparableError(f"{base.path} and {new.path}: no sample was answered by both")
    log.info("%s: %d pairs", base.key, len(answered.base))
    plain = shared.metrics(base.task)
    metrics = over_repeats(plain, answered.base, answered.new)
    resampler = shared.resampler(how.seed, how.resamples)

    def differ(metric: Metric, on: Pairs, health: bool) -> tuple[Key, Difference, bool]:
        (over,) = over_repeats([metric], on.base, on.new)
        return base.key, difference(over, on.base, on.new, resampler, alpha=how.alpha), health

    found = [differ(metric, answered, False) for metric in plain]
    found.append(differ(errors(), pairs, True))
    found += [differ(metric, answered, True) for metric in answer_health()]
    if how.with_speed:
        found.append(differ(speed(), timed(answered, base, new), True))
    return _describe(base, new, pairs, answered, base.task, metrics), found


def _describe(
    base: LoadedRun, new: LoadedRun, pairs: Pairs, answered: Pairs, task: Task, metrics: Sequence[Metric]
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
        base_groups=once(answered.base, groups, lambda: groups(task, answered.base)),
        new_groups=once(answered.new, groups, lambda: groups(task, answered.new)),
        tags=task.group_by,
        notes=tuple(notes),
    )


def comparison_json(comparison: Comparison) -> dict[str, Json]:
    """Verdict, metrics, flips by task, reasons; full precision, no NaN or Infinity."""
    return {
        "verdict": comparison.verdict,
        "base": comparison.base,
        "new": comparison.new,
        "alpha": comparison.alpha,
        "metrics": [metric_json(result) for result in comparison.metrics],
        "flips": {str(task.key): task.flips.to_json(task.tags) for task in comparison.tasks},
        "tasks": [_task_json(task) for task in comparison.tasks],
        "forgetting": [change.to_json() for change in comparison.forgetting],
        "reasons": list(comparison.reasons),
    }


def refusal_json(reason: str) -> dict[str, Json]:
    """The document of runs that cannot be compared."""
    return {"verdict": "not_comparable", "metrics": [], "flips": {}, "reasons": [reason]}


def metric_json(result: MetricResult) -> dict[str, Json]:
    """One element of `metrics`."""
    difference = result.difference
    exact = difference.mcnemar
    return {
        "task": result.key.task,
        "split": result.key.split,
        "metric": result.name,
        "unit": difference.metric.unit,
        "higher_is_better": difference.metric.higher_is_better,
        "base": _finite(difference.base),
        "new": _finite(difference.new),
        "difference": _finite(difference.difference),
        "ci95": None if difference.ci95 is None else [_finite(end) for end in difference.ci95],
        "p": _finite(difference.p),
        "p_adjusted": _finite(result.p_adjusted),
        "verdict": result.verdict,
        "detectable": _finite(result.detectable),
        "n": difference.n,
        "clusters": difference.clusters,
        "judged": result.judged,
        "max_drop": result.max_drop,
        "margin": result.margin,
        "failure": result.failure,
        "undecided": result.undecided,
        "mcnemar": None
        if exact is None
        else {"right_to_wrong": exact.right_to_wrong, "wrong_to_right": exact.wrong_to_right, "p": exact.p},
        "notes": list(result.notes),
    }


def _task_json(task: TaskComparison) -> dict[str, Json]:
    return {
        "task": task.key.task,
        "split": task.key.split,
        "base": str(task.base),
        "new": str(task.new),
        "samples": task.samples,
        "answered": task.answered,
        "clusters": task.clusters,
        "groups": group_rows(task),
    }


def group_rows(task: TaskComparison) -> list[dict[str, Any]]:
    """The per-tag table: a row for each tag value and metric, with the flips in it."""
    counts = task.flips.by_tag(task.tags)
    rows = []
    for tag, values in task.base_groups.items():
        for value, metrics in values.items():
            lost, won = counts.get(tag, {}).get(value, (0, 0))
            for name, before in metrics.items():
                after = task.new_groups.get(tag, {}).get(value, {}).get(name, {})
                base, new = before.get("value"), after.get("value")
                rows.append(
                    {
                        "tag": tag,
                        "value": value,
                        "metric": name,
                        "n": before.get("n"),
                        "base": base,
                        "new": new,
                        "difference": None if base is None or new is None else new - base,
                        "right_to_wrong": lost,
                        "wrong_to_right": won,
                    }
                )
    return rows


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
