"""Scores of a sweep's points, each set against the first, with intervals.

The points answer the same samples, so differences are paired. A point that was trained with several seeds is
judged as a recipe: the error of the samples, plus that of the seeds. Holm's correction is over every point
and task together.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.comparison.best_of import choose_metric, common_keys, common_records
from evalkit.comparison.runs import Key, load_for_comparison
from evalkit.contracts import Record
from evalkit.errors import NotComparableError
from evalkit.metrics.base import Metric
from evalkit.statistics import Resampler, difference, estimate, holm
from evalkit.statistics.intervals import Interval
from evalkit.statistics.recipe import recipe_difference, recipe_value
from mini_internvl_train.errors import TrainingError
from mini_internvl_train.evaluation import EVALUATED
from mini_internvl_train.log import LOG, read_log
from mini_internvl_train.recipe import Recipe

ALPHA = 0.05
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class PointScore:
    """A task's headline metric at one point.

    Attributes:
        value, ci95: the mean over seeds, with the error of samples and seeds. runs: of each seed.
        difference, difference_ci95, p: against the first point; None at the first, or with a reason.
        p_adjusted: Holm's, over all points and tasks. verdict: improved, regressed or no_evidence.
        reason: why something is missing.
    """

    label: str
    value: float | None
    ci95: Interval | None
    runs: tuple[float | None, ...]
    difference: float | None = None
    difference_ci95: Interval | None = None
    p: float | None = None
    p_adjusted: float | None = None
    verdict: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One task's headline metric at every point.

    Attributes:
        n, clusters: samples that all trainings answered.
    """

    key: Key
    metric: str
    unit: str
    higher_is_better: bool
    n: int
    clusters: int
    points: tuple[PointScore, ...]

    def to_json(self) -> dict[str, Any]:
        """An element of `scores` in `sweep.json`."""
        return {
            "task": self.key.task,
            "split": self.key.split,
            "metric": self.metric,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "n": self.n,
            "clusters": self.clusters,
            "points": [dataclasses.asdict(point) for point in self.points],
        }


def evaluated_runs(output: Path) -> dict[Key, Path]:
    """The run folders of a training's final model, by task and split; none if it was not evaluated.

    The final model is the best checkpoint where `validation.best` chooses, else the last.

    Raises:
        TrainingError: the file that names them is damaged.
    """
    _, runs = _final(output)
    return {load_for_comparison(run).key: run for run in runs.values()}


def unevaluated(recipe: Recipe) -> str | None:
    """Why a finished training's final model lacks scores that its recipe asks for; None where it has all."""
    output = Path(recipe.output)
    step, runs = _final(output)
    lacking = [task for task in recipe.evaluation.tasks if task not in runs]
    if not lacking:
        return None
    told = [line["evaluation_failed"] for line in read_log(output / LOG) if "evaluation_failed" in line]
    why = f": {told[-1]}" if told else ""
    return f"{output}: step {step} has no scores of {', '.join(lacking)}{why}; the same command evaluates it"


def _final(output: Path) -> tuple[int, dict[str, Path]]:
    """The step of the final model, and its run folders by task."""
    path = output / EVALUATED
    log = read_log(output / LOG)
    last = max((line["step"] for line in log if "loss" in line), default=0)
    step = [last, *(line["final_step"] for line in log if "final_step" in line)][-1]
    if not path.is_file():
        return step, {}
    try:
        steps: Mapping[str, Mapping[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        return step, {task: Path(run) for task, run in steps.get(str(step), {}).items()}
    except Exception as error:
        raise TrainingError(
            f"{path}: cannot be read ({error}); remove it and give the command again"
        ) from None


def compare_points(
    points: Sequence[tuple[str, Sequence[Mapping[Key, Path]]]], *, allow: Collection[str] = ()
) -> tuple[list[TaskScores], list[str]]:
    """Every task's headline metric at every point, and what readers must know.

    Args:
        points: label, and the runs of each seed; the first is what the others are set against.
        allow: fields of the runs' signatures that the sweep varies.

    Raises:
        NotComparableError: two runs do not measure the same.
    """
    runs = [run for _, own in points for run in own]
    if not any(runs):
        return [], []
    keys, notes = common_keys(runs)
    found = _adjusted([_task(key, points, allow) for key in keys])
    if len(points) > 1 and any(len(own) == 1 for _, own in points):
        notes.append(
            "intervals of a point that was trained once are of its samples alone: another seed may differ; "
            "`--vary seed=1,2,3` repeats every point"
        )
    return found, notes


def _task(
    key: Key, points: Sequence[tuple[str, Sequence[Mapping[Key, Path]]]], allow: Collection[str]
) -> TaskScores:
    first, *others = [load_for_comparison(run[key]) for _, own in points for run in own]
    series = common_records(first, others, allow) if others else [list(first.records)]
    if not series[0]:
        raise NotComparableError(f"{key}: no sample was answered by all trainings")
    metric = choose_metric(first, None, series)
    resampler = Resampler(0, RESAMPLES)
    places = iter(series)
    sides = [[next(places) for _ in own] for _, own in points]
    scores = [_valued(metric, label, side) for (label, _), side in zip(points, sides, strict=True)]
    scores[1:] = [
        _against(metric, score, sides[0], side, resampler)
        for score, side in zip(scores[1:], sides[1:], strict=True)
    ]
    clusters = len({record.cluster for record in series[0]})
    return TaskScores(
        key, metric.name, metric.unit, metric.higher_is_better, len(series[0]), clusters, tuple(scores)
    )


def _valued(metric: Metric, label: str, side: Sequence[Sequence[Record]]) -> PointScore:
    each = [estimate(metric, records, resamples=RESAMPLES) for records in side]
    whole = each[0] if len(each) == 1 else recipe_value(metric, side, resamples=RESAMPLES)
    return PointScore(label, whole.value, whole.ci95, tuple(one.value for one in each), reason=whole.reason)


def _against(
    metric: Metric,
    score: PointScore,
    base: Sequence[Sequence[Record]],
    new: Sequence[Sequence[Record]],
    resampler: Resampler,
) -> PointScore:
    if len(base) == len(new) == 1:
        single = difference(metric, base[0], new[0], resampler, alpha=ALPHA)
        change, ci95, p, reason = single.difference, single.ci95, single.p, single.reason
    else:
        several = recipe_difference(metric, base, new, resampler, alpha=ALPHA)
        change, ci95, p, reason = several.difference, several.ci95, several.p, several.reason
    return dataclasses.replace(
        score, difference=change, difference_ci95=ci95, p=p, reason=score.reason or reason
    )


def _adjusted(found: Sequence[TaskScores]) -> list[TaskScores]:
    """With Holm's p values over every point and task, and the verdicts by them."""
    ps = [point.p for task in found for point in task.points if point.p is not None]
    adjusted = iter(holm(ps))
    return [
        dataclasses.replace(
            task,
            points=tuple(
                point if point.p is None else _judged(point, next(adjusted), task.higher_is_better)
                for point in task.points
            ),
        )
        for task in found
    ]


def _judged(point: PointScore, p: float, higher_is_better: bool) -> PointScore:
    change = point.difference or 0.0
    better = (change > 0) == higher_is_better
    verdict = "no_evidence" if p > ALPHA or not change else "improved" if better else "regressed"
    return dataclasses.replace(point, p_adjusted=p, verdict=verdict)
