"""A judge's mean rating, corrected by people's ratings of a few answers (prediction-powered inference).

The judge rates all answers, people a random few. The difference on those few is the judge's bias; what the
judge says of the others narrows the interval as far as it agrees with people (Angelopoulos et al. 2023,
Science 382, 669; with the weight of Angelopoulos, Duchi and Zrnic 2023, "PPI++", arXiv 2311.01453).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evalkit.metrics.base import FloatArray
from evalkit.statistics.functional import standard_error
from evalkit.statistics.intervals import Interval, cut, quantile
from evalkit.statistics.resampling import Clusters


@dataclass(frozen=True, slots=True)
class Corrected:
    """The mean that people would have given all answers.

    Attributes:
        weight: how far the judge is believed, 0 to 1. se: clustered standard error.
        labelled, n: answers that people rated, and all. judge: the judge's own mean.
    """

    value: float
    ci95: Interval | None
    se: float | None
    weight: float
    labelled: int
    n: int
    judge: float


def corrected_mean(judge: FloatArray, people: FloatArray, clusters: Clusters, bounds: Interval) -> Corrected:
    """People's mean over all answers, from their ratings of some.

    value = mean of people + w (mean of judge over the rest - mean of judge over the rated ones), with
    w = cov(people, judge) / ((1 + rated / rest) var(judge)), cut to 0 to 1. The interval is Student's, with
    the clusters that hold a rated answer less one as degrees of freedom; None with fewer than two.

    Args:
        judge: ratings, [n]. people: theirs, [n], NaN where they rated nothing; at least one is there.
        clusters: of the n answers.
    """
    rated = np.isfinite(people)
    count, rest = int(rated.sum()), int((~rated).sum())
    truth, said, others = people[rated], judge[rated], judge[~rated]
    weight = _weight(truth, said, judge, count / rest) if rest else 0.0
    shift = weight * (float(others.mean()) - float(said.mean())) if rest else 0.0
    value = float(truth.mean()) + shift
    influence = np.zeros(len(judge))
    influence[rated] = (truth - truth.mean() - weight * (said - said.mean())) / count
    if rest:
        influence[~rated] = weight * (others - others.mean()) / rest
    held = len(np.unique(clusters.codes[rated]))
    if held < 2:
        return Corrected(value, None, None, weight, count, len(judge), float(judge.mean()))
    se = standard_error(clusters.sums(influence[:, None])[:, 0])
    reach = quantile(0.975, held - 1) * se
    interval = cut((value - reach, value + reach), bounds, value)
    return Corrected(value, interval, se, weight, count, len(judge), float(judge.mean()))


def _weight(truth: FloatArray, said: FloatArray, judge: FloatArray, ratio: float) -> float:
    """How far the judge is believed: what makes the variance least."""
    spread = float(judge.var(ddof=1))
    if not spread:
        return 0.0
    together = float(((truth - truth.mean()) * (said - said.mean())).mean())
    best = together / ((1 + ratio) * spread)
    return min(1.0, max(0.0, best)) if math.isfinite(best) else 0.0
