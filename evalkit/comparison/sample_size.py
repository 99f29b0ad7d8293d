"""How much data it takes to see a change, from the variances of stored runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit import registry
from evalkit.comparison.baselines import complete_runs, resolve
from evalkit.comparison.runs import LoadedRun, key_of, load_for_comparison, pair
from evalkit.contracts import Json
from evalkit.errors import UsageError
from evalkit.metrics.base import Metric
from evalkit.metrics.repeated import over_repeats
from evalkit.statistics import ClusterSums, Difference, Resampler, SampleSize, Spread, difference, needed
from evalkit.statistics.functional import jackknife_error
from evalkit.statistics.resampling import effective_clusters
from evalkit.suite import Target

#: A point in each unit; other units have none, and a change is then in the unit itself.
_POINT = {"percent": 1.0, "fraction": 0.01}


@dataclass(frozen=True, slots=True)
class MetricSampleSize:
    """The data that a metric needs.

    Attributes:
        change: the drop to be seen, or the margin to be shown, in the metric's unit.
        clusters, samples: what the stored run has under the metric. now: the smallest drop that it shows, or
            the smallest margin.
        spread: of the difference of two runs of this size.
        needed: None, with `reason`, where it cannot be said.
    """

    metric: Metric
    change: float
    clusters: int
    samples: int
    spread: Spread | None = None
    now: float | None = None
    needed: SampleSize | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Json]:
        """Field names to values."""
        return {
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "detect": self.change,
            "clusters": None if self.needed is None else self.needed.clusters,
            "samples": None if self.needed is None else self.needed.samples,
            "stored": {
                "clusters": self.clusters,
                "samples": self.samples,
                "se": None if self.spread is None else self.spread.se,
                "detectable": self.now,
            },
            "reason": self.reason,
        }


def plan(
    paths: Sequence[Path],
    change: float | Mapping[str, float],
    *,
    metrics: Sequence[str] = (),
    correlation: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
    margin: bool = False,
) -> list[MetricSampleSize]:
    """Clusters and samples that a drop of `change` takes to be called with probability `power`.

    The test is that of a comparison: Holm's over the metrics planned for, which are judged together, so that
    each needs alpha over their number.

    Two runs give the variance of their difference. One run gives its own variance v; the difference of two
    runs like it has 2 v (1 - correlation), where 0 is the safe side: answers of related models agree.

    Args:
        paths: one run or two comparable ones.
        change: points of every metric (percentage points; of a metric that is not a share, its unit); or by
            metric in its unit, as `evalkit compare --margin METRIC=X` has it.
        metrics: names; by default all that a comparison judges.
        margin: plan for showing that no more than `change` is lost, where nothing is.

    Raises:
        UsageError: unknown metric, or numbers out of range. NotComparableError: runs that cannot be read.
    """
    flag = "--margin" if margin else "--detect"
    wanted = change.values() if isinstance(change, Mapping) else (change,)
    if not all(value > 0 and math.isfinite(value) for value in wanted):
        raise UsageError(f"{flag}: write a number larger than 0, in points, or METRIC=X in the metric's unit")
    if not (0 < alpha < 1 and 0 < power < 1):
        raise UsageError("--alpha and --power: write numbers between 0 and 1")
    if not 0 <= correlation < 1:
        raise UsageError("--correlation: write a number from 0 to less than 1")
    if len(paths) > 2:
        raise UsageError("--run: give one run or two")
    sides = [load_for_comparison(path) for path in paths]
    if isinstance(change, Mapping) and metrics:
        raise UsageError(f"--metric: {flag} METRIC=X names the metrics")
    named = tuple(change) if isinstance(change, Mapping) else metrics
    chosen = _chosen(sides[0], named, flag if isinstance(change, Mapping) else "--metric")
    if len(sides) == 2:
        pairs = pair(sides[0], sides[1]).answered()
        resampler = Resampler(resamples=100)
        found = [_of_pair(difference(m, pairs.base, pairs.new, resampler), m, change) for m in chosen]
    else:
        found = [_of_one(m, sides[0], change, correlation) for m in chosen]
    tested = sum(item.spread is not None and item.spread.se > 0 for item in found)
    level = alpha if margin else alpha / max(1, tested)
    return [_complete(item, level, power, margin) for item in found]


def _chosen(side: LoadedRun, names: Sequence[str], flag: str) -> list[Metric]:
    known = {metric.name: metric for metric in over_repeats(side.task.metrics(), side.records)}
    for name in names:
        if name not in known:
            hint = registry.nearest(name, known)
            raise UsageError(f"{flag} {name}: no such metric{hint}; {side.key.task} has {', '.join(known)}")
    return [known[name] for name in names] or [metric for metric in known.values() if not metric.variant]


def _in_unit(metric: Metric, change: float | Mapping[str, float]) -> float:
    if isinstance(change, Mapping):
        return change[metric.name]
    return change * _POINT.get(metric.unit, 1.0)


def _of_one(
    metric: Metric, side: LoadedRun, wanted: float | Mapping[str, float], correlation: float
) -> MetricSampleSize:
    change = _in_unit(metric, wanted)
    if (reason := metric.reason(side.records)) is not None:
        return MetricSampleSize(metric, change, 0, 0, reason=reason)
    sums = ClusterSums.of(metric, side.records)
    if sums.clusters < 2:
        return MetricSampleSize(metric, change, sums.clusters, sums.n, reason="one cluster: no variance")
    se = jackknife_error(metric.value, sums.rows) * math.sqrt(2 * (1 - correlation))
    freedom = max(1.0, effective_clusters(sums.sizes) - 1)
    return MetricSampleSize(metric, change, sums.clusters, sums.n, Spread(se, freedom, sums.clusters, sums.n))


def _of_pair(found: Difference, metric: Metric, change: float | Mapping[str, float]) -> MetricSampleSize:
    size = MetricSampleSize(metric, _in_unit(metric, change), found.clusters, found.n, found.spread)
    return dataclasses.replace(size, reason=found.reason) if found.spread is None else size


def _complete(item: MetricSampleSize, alpha: float, power: float, margin: bool) -> MetricSampleSize:
    spread = item.spread
    if spread is None:
        return item
    if not (spread.se > 0 or (spread.unseen if margin else spread.added)):
        return dataclasses.replace(item, reason="all clusters alike: no variance to plan with")
    if item.change > spread.width:
        return dataclasses.replace(item, reason=f"its whole range is {spread.width:g}: plan for less")
    now: float | None = (spread.shown_margin if margin else spread.detectable)(alpha, power)
    if now is not None and now > spread.width:
        now = None  # not even the largest possible drop
    need = needed(item.change, spread, alpha, power, margin=margin)
    return dataclasses.replace(item, now=now, needed=need)


def choose_runs(task: str, runs: Sequence[Path], output: Path) -> list[Path]:
    """The runs given, or the latest complete run of the task below `output`.

    Args:
        task: `task` or `task@split`.

    Raises:
        UsageError: unknown task, a run of another task, or no run at all.
    """
    target = Target.parse(task)
    registry.task(target.task)
    if not runs:
        known = [
            run
            for run in complete_runs(output)
            if key_of(run).task == target.task and target.split in (None, key_of(run).split)
        ]
        if not known:
            raise UsageError(
                f"no complete run of {task} in {output} to take variances from; run it on what data "
                "there is, or name a run with --run"
            )
        return [max(known, key=lambda run: run.path.name).path]
    for path in runs:
        key = next(iter(resolve(str(path), output)))
        if key.task != target.task or target.split not in (None, key.split):
            raise UsageError(f"--run {path}: a run of {key}, not of {task}")
    return list(runs)
