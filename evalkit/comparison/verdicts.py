"""Thresholds that the user sets, and a verdict for every metric of a comparison: does it fail the gate?"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from evalkit import registry
from evalkit.comparison.runs import Key
from evalkit.errors import UsageError
from evalkit.pipeline.comparison_options import Undecided
from evalkit.statistics import Difference, SampleSize, holm, needed


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Largest drops by metric pattern (`METRIC`, `TASK:METRIC`, `TASK@SPLIT:METRIC`; globs), in its unit.

    Attributes:
        max_drop: a significant drop larger than this fails.
        margin: fails unless a drop larger than this is excluded.
    """

    max_drop: Mapping[str, float] = field(default_factory=dict)
    margin: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.max_drop or self.margin)

    def of(self, key: Key, metric: str) -> tuple[float | None, float | None]:
        """max_drop and margin of a metric; the last matching pattern counts."""
        return _find(self.max_drop, key, metric), _find(self.margin, key, metric)

    def check(self, known: Iterable[tuple[Key, str]]) -> None:
        """Raises UsageError for a pattern that names no metric of the comparison."""
        pairs = list(known)
        for flag, patterns in (("--max-drop", self.max_drop), ("--margin", self.margin)):
            for pattern in patterns:
                if not any(_matches(pattern, key, metric) for key, metric in pairs):
                    names = dict.fromkeys(metric for _, metric in pairs)
                    hint = registry.nearest(pattern, [*names, *(f"{key.task}:{m}" for key, m in pairs)])
                    raise UsageError(
                        f"{flag} {pattern}: no such metric here{hint}; there are {', '.join(names)}"
                    )


def _matches(pattern: str, key: Key, metric: str) -> bool:
    names = (metric, f"{key.task}:{metric}", f"{key}:{metric}")
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _find(patterns: Mapping[str, float], key: Key, metric: str) -> float | None:
    found = [value for pattern, value in patterns.items() if _matches(pattern, key, metric)]
    return found[-1] if found else None


Verdict = Literal["improved", "regressed", "no_evidence"]
GateVerdict = Literal["pass", "regression", "undecided"]

#: Thresholds are met up to rounding.
_ROUNDING = 1e-9


class Judged(Protocol):
    """What a gate rests on: a metric, or a task."""

    @property
    def failure(self) -> str | None:
        """Why it fails the gate, or None."""
        ...

    @property
    def undecided(self) -> str | None:
        """Why the data cannot tell, or None."""
        ...


def gate_verdict(judged: Sequence[Judged]) -> GateVerdict:
    """Whether one fails, or one cannot be told."""
    if any(each.failure for each in judged):
        return "regression"
    return "undecided" if any(each.undecided for each in judged) else "pass"


def gate_status(verdict: GateVerdict, undecided: Undecided | None) -> int:
    """Status of the command line: 0 pass, 1 regression, 5 undecided, or what `undecided` makes of it."""
    if verdict == "undecided":
        return {"pass": 0, "fail": 1, None: 5}[undecided]
    return int(verdict == "regression")


def exceeds(drop: float, limit: float) -> bool:
    """Whether a drop is larger than a threshold, up to rounding."""
    return drop > limit + _ROUNDING


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric of one task in a comparison.

    Attributes:
        difference: both values, with their interval and tests.
        health: whether it counts what went wrong (errors, unparsed, truncated) or is speed; such a metric
            is always judged.
        judged: whether the gate rests on it. p_adjusted: Holm's, over the metrics judged (of a metric that
            is not judged: over all but the variants, of a variant over all).
        detectable: the smallest drop that would have been called regressed with 80% power.
        max_drop, margin: thresholds that the user set.
        failure: why it fails the gate, or None. undecided: why the data cannot tell, and what would, or None.
        notes: what must be read with the verdict.
    """

    key: Key
    difference: Difference
    health: bool = False
    judged: bool = True
    p_adjusted: float | None = None
    verdict: Verdict = "no_evidence"
    detectable: float | None = None
    max_drop: float | None = None
    margin: float | None = None
    failure: str | None = None
    undecided: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.difference.metric.name


def decide(
    differences: Sequence[tuple[Key, Difference, bool]],
    thresholds: Thresholds,
    alpha: float,
    same: Collection[Key] = (),
) -> list[MetricResult]:
    """Judge all metrics of a comparison together.

    Where thresholds are given, the gate rests on the metrics they name and on those of health, otherwise on
    all but variants. Holm's family are the judged metrics that differ at all: one that is the same in every
    sample cannot be rejected, so that leaving it out keeps the level (Tarone 1990).

    Args:
        differences: with key, and whether it is a metric of health.
        same: keys of which one run was compared with itself; nothing about them is open.

    Raises:
        UsageError: a threshold names no metric here.
    """
    thresholds.check((key, difference.metric.name) for key, difference, _ in differences)
    results = []
    for key, difference, health in differences:
        max_drop, margin = thresholds.of(key, difference.metric.name)
        named = max_drop is not None or margin is not None
        judged = health or named or not (thresholds or difference.metric.variant)
        results.append(MetricResult(key, difference, health, judged, max_drop=max_drop, margin=margin))
    gated = _adjust([result for result in results if result.judged])
    usual = _adjust([result for result in results if not result.difference.metric.variant])
    everything = _adjust(results)

    def family(result: MetricResult) -> tuple[dict[tuple[Key, str], float], int]:
        if result.judged:
            return gated
        return everything if result.difference.metric.variant else usual

    return [_decide(result, *family(result), alpha, result.key in same) for result in results]


def _adjust(results: Sequence[MetricResult]) -> tuple[dict[tuple[Key, str], float], int]:
    """Adjusted p values by key and name, and the size of the family."""
    family = [(result, p) for result in results if (p := _tested(result.difference)) is not None]
    adjusted = holm([p for _, p in family])
    return {(r.key, r.name): p for (r, _), p in zip(family, adjusted, strict=True)}, len(family)


def _tested(difference: Difference) -> float | None:
    """The p value, or None where there is none or nothing differs."""
    return difference.p if difference.se or (difference.p or 1.0) < 1.0 else None


def _decide(
    result: MetricResult, adjusted: dict[tuple[Key, str], float], family: int, alpha: float, same: bool
) -> MetricResult:
    difference = result.difference
    p = adjusted.get((result.key, result.name), difference.p)
    gain = difference.gain
    verdict: Verdict = "no_evidence"
    if p is not None and gain is not None and p <= alpha:
        verdict = "improved" if gain > 0 else "regressed"
    detectable = difference.detectable(alpha / max(1, family))
    decided = dataclasses.replace(result, p_adjusted=p, verdict=verdict, detectable=detectable)
    failure = _failure(decided)
    undecided = None if failure or same or not decided.judged else _undecided(decided, alpha)
    return dataclasses.replace(decided, failure=failure, undecided=undecided, notes=_notes(decided, alpha))


def _failure(result: MetricResult) -> str | None:
    """Why a judged metric fails the gate, or None."""
    gain, best = result.difference.gain, result.difference.best_gain
    if not result.judged:
        return None
    if result.margin is not None and best is not None and exceeds(-best, result.margin):
        return f"a drop larger than {result.margin:g} is shown"
    if gain is None or result.verdict != "regressed":
        return None
    if result.max_drop is not None:
        large = exceeds(-gain, result.max_drop)
        return f"significant drop, larger than {result.max_drop:g}" if large else None
    return "significant drop" if result.margin is None else None


def _undecided(result: MetricResult, alpha: float) -> str | None:
    """Why the data cannot tell whether a metric that a threshold names holds it, or None where they can."""
    difference, worst = result.difference, result.difference.worst_gain
    if result.margin is not None and (worst is None or exceeds(-worst, result.margin)):
        if worst is None:
            return (
                f"cannot be judged: {difference.reason or 'no interval'}{more_clusters(difference.clusters)}"
            )
        shown = f"not shown: a drop larger than {result.margin:g} is not excluded"
        return f"{shown}; {remedy(difference.needed_for_margin(result.margin, alpha))}"
    if result.max_drop is None:
        return None
    if difference.p is None:
        return f"cannot be judged: {difference.reason}{more_clusters(difference.clusters)}"
    return too_little(result)


def too_little(result: MetricResult) -> str | None:
    """That not even the largest possible drop would have been called, or None."""
    if result.verdict != "no_evidence" or result.detectable is not None or not result.difference.se:
        return None
    spread = result.difference.spread
    need = needed(result.difference.room / 2, spread) if spread and result.difference.room > 0 else None
    if need is None:
        return None
    half = f"a drop by half takes about {need.samples:,} samples ({need.clusters:,} clusters)"
    return f"too little data to show any drop; {half}"


def more_clusters(clusters: int) -> str:
    """What would decide where there is one cluster."""
    return "; samples of at least 2 clusters, better 30, decide it" if clusters == 1 else ""


def remedy(need: SampleSize | None) -> str:
    """What would decide a margin."""
    if need is None:
        return "no number of samples shows a margin of 0"
    return f"about {need.samples:,} samples ({need.clusters:,} clusters) show it where nothing is lost"


def _notes(result: MetricResult, alpha: float) -> tuple[str, ...]:
    difference = result.difference
    notes = [difference.reason] if difference.reason else []
    exact = difference.mcnemar
    if exact is not None and difference.p is not None and (exact.p <= alpha) != (difference.p <= alpha):
        cause = (
            "the samples are dependent within clusters, which it cannot know; the interval decides"
            if difference.clusters < difference.n
            else "the interval decides"
        )
        notes.append(f"McNemar's test disagrees (p {exact.p:.2g}): {cause}")
    return tuple(notes)
