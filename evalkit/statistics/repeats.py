"""What repeats of the same questions show: variance within and between questions, pass@k, majority vote."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import MetricValue, Record
from evalkit.metrics.base import FloatArray, Mean, Metric
from evalkit.metrics.repeated import rounds
from evalkit.statistics.estimate import estimate


@dataclass(frozen=True, slots=True)
class Variances:
    """Variance of a score by where it comes from, in the metric's unit squared.

    Attributes:
        between: of the questions' true means. within: of an answer about its question's mean.
        judge: of a rating about the mean rating of its answer; None with one rating an answer.
        se_judge: the judge's part of the value's standard error, in the unit.
    """

    between: float
    within: float | None
    judge: float | None = None
    se_judge: float | None = None


def outcome_table(metric: Metric, records: Sequence[Record]) -> FloatArray | None:
    """Outcomes in the metric's unit, [repeats, n], of the records that have one in every repeat.

    None for a metric that is no plain mean over samples.
    """
    if metric.mean_range is None or metric.reason(rounds(records)[0]) is not None:
        return None
    found = [metric.outcomes(each) for each in rounds(records)]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    scale = float(metric.value(np.array([1.0, 1.0])))
    chosen = np.all([metric.selected(each) for each in rounds(records)], axis=0)
    return scale * np.where(chosen, np.array(known), np.nan)


def variances(table: FloatArray, judgements: int = 1) -> Variances | None:
    """Components of variance of outcomes [repeats, n]; None for fewer than two samples.

    Those of a one-way (with a judge: nested) random-effects model by the method of moments: the mean of
    squares at each level, less what the level below adds to it (Miller 2024, section 4.1).

    Args:
        judgements: how often each answer was judged; `repeats` holds those of an answer side by side.
    """
    table = table[:, ~np.isnan(table).any(axis=0)]
    n = table.shape[1]
    if n < 2:
        return None
    nested = table.reshape(-1, judgements, n)
    answers = nested.mean(axis=1)
    count = len(answers)
    judge = float(nested.var(axis=1, ddof=1).mean()) if judgements > 1 else None
    noise = (judge or 0.0) / judgements
    within = max(0.0, float(answers.var(axis=0, ddof=1).mean()) - noise) if count > 1 else None
    below = ((within or 0.0) + noise) / count
    between = max(0.0, float(answers.mean(axis=0).var(ddof=1)) - below)
    se = None if judge is None else math.sqrt(judge / (judgements * count * n))
    return Variances(between, within, judge, se)


def pass_at(k: int, right: FloatArray, repeats: int) -> FloatArray:
    """The chance [n] that one of k answers is right, of `right` [n] of `repeats` that were.

    1 - C(repeats - right, k) / C(repeats, k), without bias (Chen et al. 2021).
    """
    from scipy.special import comb

    chance: FloatArray = 1 - comb(repeats - right, k, exact=False) / comb(repeats, k, exact=False)
    return chance


def majority(table: FloatArray, predictions: Sequence[Sequence[Hashable]]) -> FloatArray | None:
    """The outcome [n] of the commonest prediction; of equally common ones the mean.

    Args:
        table: outcomes, [repeats, n]. predictions: [n] of the repeats' predictions.

    Returns:
        None where equal predictions have different outcomes: the score does not hang on the answer alone.
    """
    result = np.empty(table.shape[1])
    for place, said in enumerate(predictions):
        outcome: dict[Hashable, float] = {}
        for name, value in zip(said, table[:, place], strict=True):
            if outcome.setdefault(name, value) != value:
                return None
        counts = Counter(said)
        most = max(counts.values())
        result[place] = np.mean([outcome[name] for name, count in counts.items() if count == most])
    return result


def mean_estimate(metric: Metric, values: FloatArray, records: Sequence[Record]) -> MetricValue:
    """The mean of values [n] in the metric's unit, with the interval that any mean of these samples has."""
    scored = [
        Record(record.id, record.cluster, "", None, None, {"value": float(value)})
        for record, value in zip(records, values, strict=True)
    ]
    mean = Mean("value", scale=1.0, unit=metric.unit, bounds=metric.bounds)
    return estimate(mean, scored)
