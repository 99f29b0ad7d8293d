"""One metric over a model's checkpoints: intervals, trend, the first significant change."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.comparison.baselines import complete_runs, model_folder, model_names
from evalkit.comparison.runs import Key, LoadedRun, Pairs, key_of, load_for_comparison, pair
from evalkit.contracts import Json, MetricValue, Record
from evalkit.errors import NotComparableError, UsageError
from evalkit.metrics.base import FloatArray, Metric
from evalkit.metrics.repeated import over_repeats
from evalkit.statistics import Difference, Resampler, Trend, difference, estimate, holm, trend
from evalkit.statistics.best_of import BestOf, best_of
from evalkit.store import StoredRun

_STEP = re.compile(r"(\d+)(?!.*\d)")


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint.

    Attributes:
        label: the checkpoint's folder, or the model's revision or fingerprint. created: when it was run.
        value: the metric with its interval. change: against the first checkpoint, None for that itself.
        p_adjusted: Holm's over all changes. significant: whether it is at most alpha.
    """

    path: Path
    label: str
    created: str
    value: MetricValue
    change: Difference | None = None
    p_adjusted: float | None = None
    significant: bool = False

    def to_json(self) -> dict[str, Json]:
        """Field names to values."""
        change = self.change
        return {
            "run": str(self.path),
            "checkpoint": self.label,
            "created": self.created,
            "value": self.value.value,
            "reason": self.value.reason,
            "ci95": list(self.value.ci95) if self.value.ci95 else None,
            "change": None if change is None else change.difference,
            "change_ci95": list(change.ci95) if change is not None and change.ci95 else None,
            "p_adjusted": self.p_adjusted,
            "significant": self.significant,
        }


@dataclass(frozen=True, slots=True)
class History:
    """A metric over checkpoints, oldest first.

    Attributes:
        by_step: whether the trend is per training step (numbers in the labels) or per checkpoint.
        first_change: the first point whose change from the first checkpoint is significant.
        left_out: runs that are not comparable with the first, with the reason.
        stands_in: the headline in whose place the metric is followed, and why; None for the metric asked for.
        best: the checkpoints after the first, judged together; None with fewer than two.
    """

    key: Key
    metric: Metric
    points: tuple[Point, ...]
    trend: Trend | None
    by_step: bool
    left_out: tuple[str, ...]
    stands_in: tuple[str, str] | None = None
    best: BestOf | None = None
    alpha: float = 0.05

    @property
    def best_point(self) -> Point | None:
        """The checkpoint with the largest gain over the first."""
        if self.best is None or self.best.best is None:
            return None
        return self.points[1 + self.best.best]

    def best_json(self) -> dict[str, Json] | None:
        """The best checkpoint, over all of them, and what luck alone would show."""
        if self.best is None or self.best.best is None:
            return None
        chosen = self.best.contenders[self.best.best]
        gain = chosen.difference.gain
        shown = chosen.p is not None and chosen.p <= self.alpha and gain is not None
        return {
            "checkpoint": self.points[1 + self.best.best].label,
            "gain": gain,
            "p_adjusted": chosen.p,
            "verdict": ("improved" if (gain or 0.0) > 0 else "regressed") if shown else "no_evidence",
            "luck": self.best.luck,
            "expected_gain": self.best.expected_gain,
        }

    @property
    def first_change(self) -> Point | None:
        """The earliest significant one."""
        return next((point for point in self.points if point.significant), None)

    def to_json(self) -> dict[str, Json]:
        """The document of `history --json`."""
        first, slope = self.first_change, self.trend
        return {
            "task": self.key.task,
            "split": self.key.split,
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "stands_in_for": None
            if self.stands_in is None
            else {"metric": self.stands_in[0], "reason": self.stands_in[1]},
            "points": [point.to_json() for point in self.points],
            "trend": None
            if slope is None
            else {
                "per": "step" if self.by_step else "checkpoint",
                "slope": slope.slope,
                "ci95": list(slope.ci95) if slope.ci95 else None,
            },
            "best": self.best_json(),
            "first_significant_change": None if first is None else first.label,
            "left_out": list(self.left_out),
        }


def find_series(models: Sequence[str], task: str, split: str | None, output: Path) -> list[StoredRun]:
    """The latest complete run of each checkpoint, by training step where they have one, else oldest first.

    Args:
        models: names or globs of model folders.

    Raises:
        UsageError: no such model, or no complete run of the task.
    """
    folders = [folder for name in models for folder in _folders(name, output)]
    runs = [
        run for folder in folders for run in complete_runs(folder, limited=True) if key_of(run).task == task
    ]
    splits = list(dict.fromkeys(key_of(run).split for run in runs))
    chosen = split or (splits[0] if splits else None)
    latest: dict[str, StoredRun] = {}
    for run in sorted((run for run in runs if key_of(run).split == chosen), key=_created):
        latest[_identity(run)] = run
    if not latest:
        where = ", ".join(models)
        raise UsageError(f"{where}: no complete run of {task}{f'@{split}' if split else ''} in {output}")
    if split is None and len(splits) > 1:
        raise UsageError(f"{task}: runs of several splits; choose one with --split ({', '.join(splits)})")
    found = sorted(latest.values(), key=_created)
    places, _ = _places([label(run) for run in found])
    return [found[place] for place in np.argsort(places, kind="stable")]


def history(
    runs: Sequence[StoredRun],
    metric: str | None = None,
    *,
    alpha: float = 0.05,
    allow: Collection[str] = (),
    resamples: int = 2000,
) -> History:
    """Follow a metric over runs; all are compared with the first of them.

    Without `metric` it is the task's headline. Where a run has no value of the headline, it is the first
    metric of which all runs have a value.

    Raises:
        UsageError: unknown metric. NotComparableError: the first run cannot be read.
    """
    first = load_for_comparison(runs[0].path)
    pairs, left_out = _comparable(first, runs[1:], allow)
    kept = [runs[0], *(run for run, _ in pairs)]
    series: list[Sequence[Record]] = [first.records, *(found.new for _, found in pairs)]
    chosen, values, stands_in = _choose(first, metric, series)
    resampler = Resampler(resamples=resamples)
    changes = [difference(chosen, each.base, each.new, resampler, alpha=alpha) for _, each in pairs]
    points = [
        Point(run.path, label(run), str(run.manifest.get("created", "")), value, change)
        for run, value, change in zip(kept, values, [None, *changes], strict=True)
    ]
    places, by_step = _places([point.label for point in points])
    slope = trend(chosen, _common(series), places, resampler) if len(points) > 2 else None
    adjusted = tuple(_adjust(points, alpha))
    common = _common(series)
    best = best_of(chosen, common[0], common[1:], resampler, alpha=alpha) if len(common) > 2 else None
    return History(first.key, chosen, adjusted, slope, by_step, tuple(left_out), stands_in, best, alpha)


def usual_metric(names: Sequence[str], headline: str, in_all: Callable[[str], bool]) -> str:
    """The headline if all runs have it, else the first metric that all runs have, else the headline.

    Args:
        names: the task's metrics in its order. in_all: whether all runs have a value of a metric.
    """
    usual = headline if headline in names else names[0]
    return next((name for name in (usual, *names) if in_all(name)), usual)


def _folders(name: str, output: Path) -> Iterable[Path]:
    if (folder := model_folder(output, name)) is not None:
        return [folder]
    found = [output / known for known in model_names(output) if fnmatch.fnmatchcase(known, name)]
    if not found:
        from evalkit.registry import nearest

        raise UsageError(f"{name}: no runs of such a model in {output}{nearest(name, model_names(output))}")
    return found


def _created(run: StoredRun) -> tuple[str, str]:
    return str(run.manifest.get("created", "")), run.path.name


def _model(run: StoredRun) -> dict[str, object]:
    model = run.manifest.get("model")
    return model if isinstance(model, dict) else {}


def _identity(run: StoredRun) -> str:
    """What makes two runs the same checkpoint: the weights, or whatever was asked for."""
    return str(_model(run).get("fingerprint") or run.manifest.get("identity") or run.path)


def label(run: StoredRun) -> str:
    """The checkpoint as people call it."""
    settings = run.manifest.get("settings")
    checkpoint = settings.get("checkpoint") if isinstance(settings, dict) else None
    model = _model(run)
    if checkpoint:
        return Path(str(checkpoint)).name
    short = str(model.get("fingerprint") or run.path.name)[:8]
    return f"{model.get('name', '')}@{model.get('revision') or short}"


def _comparable(
    first: LoadedRun, runs: Sequence[StoredRun], allow: Collection[str]
) -> tuple[list[tuple[StoredRun, Pairs]], list[str]]:
    """Runs with their samples beside the first run's, and why others have none."""
    found, left_out = [], []
    for run in runs:
        try:
            pairs = pair(first, load_for_comparison(run.path), allow).answered()
        except NotComparableError as error:
            left_out.append(str(error))
            continue
        found.append((run, pairs))
    return found, left_out


def _choose(
    side: LoadedRun, name: str | None, series: Sequence[Sequence[Record]]
) -> tuple[Metric, list[MetricValue], tuple[str, str] | None]:
    """The metric to follow, its values, and the headline that it stands in for, with the reason."""
    known = {metric.name: metric for metric in over_repeats(side.task.metrics(), *series)}
    if name is not None and name not in known:
        raise UsageError(f"--metric {name}: {side.key.task} has {', '.join(known)}")

    @functools.cache
    def values(metric: str) -> list[MetricValue]:
        return [estimate(known[metric], records) for records in series]

    if name is not None:
        return known[name], values(name), None
    headline = side.task.headline or next(iter(known))
    usual = usual_metric(list(known), headline, lambda each: all(v.value is not None for v in values(each)))
    if usual == headline:
        return known[usual], values(usual), None
    missing = [value for value in values(headline) if value.value is None]
    reason = f"no value in {len(missing)} of {len(series)} runs: {missing[0].reason}"
    return known[usual], values(usual), (headline, reason)


def _common(series: Sequence[Sequence[Record]]) -> list[list[Record]]:
    """Records of the samples that all checkpoints answered, in the same order."""
    shared = set.intersection(*({r.id for r in records if not r.failed} for records in series))
    order = [record.id for record in series[0] if record.id in shared]
    return [[by_id[name] for name in order] for by_id in ({r.id: r for r in records} for records in series)]


def _places(labels: Sequence[str]) -> tuple[FloatArray, bool]:
    """Training steps where every label ends in a different number, otherwise 0, 1, 2 ..."""
    steps = [_STEP.search(label) for label in labels]
    numbers = [float(step.group(1)) for step in steps if step and len(step.group(1)) < 16]
    if len(numbers) == len(labels) == len(set(numbers)) and all("@" not in label for label in labels):
        return np.array(numbers), True
    return np.arange(len(labels), dtype=np.float64), False


def _adjust(points: Sequence[Point], alpha: float) -> list[Point]:
    tested = [point for point in points if point.change is not None and point.change.p is not None]
    adjusted = holm([point.change.p for point in tested if point.change and point.change.p is not None])
    by_path = dict(zip((point.path for point in tested), adjusted, strict=True))
    return [
        Point(
            point.path, point.label, point.created, point.value, point.change,
            by_path.get(point.path), by_path.get(point.path, 1.0) <= alpha,
        )
        for point in points
    ]  # fmt: skip
