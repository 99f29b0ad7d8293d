"""Invented answers of known truth, at the edges: hardly any wrong, few flips, unequal clusters, thin parts.

Cluster sizes: `indep` 1 each; `eq10`, `eq20` equal; `uneq` 1 to 100, log-uniform; `pareto` Pareto(0.8) plus
1, at most 100; `onebig` one cluster with half of all samples, the others 4 each. Rates by cluster are beta
with a given mean and intraclass correlation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evalkit.metrics.base import Accuracy, Mean, Metric, RootMeanSquare, macro_mean
from evalkit.statistics.estimate import interval
from evalkit.statistics.resampling import ClusterSums, Resampler

Draw = Callable[[np.random.Generator], ClusterSums]


def sizes(kind: str, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Samples in each cluster, [clusters]."""
    if kind == "indep":
        return np.ones(clusters, dtype=np.intp)
    if kind.startswith("eq"):
        return np.full(clusters, int(kind[2:]), dtype=np.intp)
    if kind == "uneq":
        return np.exp(rng.uniform(0, np.log(100), clusters)).astype(np.intp).clip(1, 100)
    if kind == "pareto":
        return np.floor(rng.pareto(0.8, clusters) + 1).clip(1, 100).astype(np.intp)
    assert kind == "onebig"
    return np.array([4 * (clusters - 1), *[4] * (clusters - 1)], dtype=np.intp)


def rates(count: int, mean: float, icc: float, rng: np.random.Generator) -> np.ndarray:
    """A rate for each cluster, [count]."""
    if not icc:
        return np.full(count, mean)
    total = 1 / icc - 1
    return rng.beta(mean * total, (1 - mean) * total, count)


def score(kind: str, right: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scores [n] of answers that are right or wrong, [n]."""
    count = len(right)
    if kind == "anls":  # right answers are 1, or somewhat off
        off = np.where(rng.random(count) < 0.85, 1.0, rng.uniform(0.5, 1.0, count))
        return np.asarray(right * off)
    if kind == "vqa":
        return np.asarray(right * rng.choice([0.3, 0.6, 0.9, 1.0], count, p=[0.1, 0.1, 0.2, 0.6]))
    if kind == "rest":  # wrong answers are anything up to 0.9
        return np.where(right > 0, 1.0, rng.uniform(0.0, 0.9, count))
    if kind == "seldom":  # wrong answers are nearly right, one in ten is not at all
        return np.where(right > 0, 1.0, np.where(rng.random(count) < 0.1, 0.0, 0.9))
    return right


#: Mean score of a right answer, and of a wrong one.
MEANS = {
    "acc": (1.0, 0.0),
    "anls": (0.85 + 0.15 * 0.75, 0.0),
    "vqa": (0.87, 0.0),
    "rest": (1.0, 0.45),
    "seldom": (1.0, 0.81),
}


def world(kind: str, form: str, clusters: int, mean: float, icc: float = 0.0) -> tuple[Draw, float]:
    """An experiment of a bounded mean, and its truth in percent."""
    metric: Metric = Accuracy("accuracy") if kind == "acc" else Mean("score")

    def draw(rng: np.random.Generator) -> ClusterSums:
        counts = sizes(form, clusters, rng)
        owners = np.repeat(np.arange(clusters), counts)
        right = (rng.random(len(owners)) < rates(clusters, mean, icc, rng)[owners]).astype(float)
        sums = np.bincount(owners, score(kind, right, rng), clusters)
        return ClusterSums(metric, np.stack([sums, counts], axis=1).astype(float), counts)

    high, low = MEANS[kind]
    return draw, 100 * (mean * high + (1 - mean) * low)


def macro_world(clusters: int, thin: int, size: int, icc: float) -> tuple[Draw, float]:
    """An experiment of the mean of two accuracies, the second over `thin` clusters alone, and its truth."""
    metric = macro_mean("macro", [Accuracy("thick"), Accuracy("thin")])
    metric.statistics([])  # tells it the width of its parts

    def draw(rng: np.random.Generator) -> ClusterSums:
        blocks, parts = [], []
        for part, (count, mean) in zip(metric.parts, ((clusters, 0.8), (thin, 0.6)), strict=True):
            rows = np.full((count, 2), float(size))
            rows[:, 0] = rng.binomial(size, rates(count, mean, icc, rng))
            parts.append(ClusterSums(part, rows, np.full(count, size, dtype=np.intp)))
            blocks.append(np.concatenate([rows, np.zeros((clusters - count, 2))]))
        sizes = np.sum([block[:, 1] for block in blocks], axis=0).astype(np.intp)
        return ClusterSums(metric, np.concatenate(blocks, axis=1), sizes, tuple(parts))

    return draw, 70.0


def error_world(kind: str, n: int) -> tuple[Draw, float]:
    """An experiment of the root mean square of n errors: normal, Student's t (5), or log-normal."""
    metric = RootMeanSquare("rmse", "error", unit="m/s")
    square = {"normal": 1.0, "t5": 5 / 3, "heavy": float(np.exp(2))}[kind]

    def draw(rng: np.random.Generator) -> ClusterSums:
        errors = rng.standard_t(5, n) if kind == "t5" else rng.normal(size=n)
        if kind == "heavy":
            errors = np.exp(errors)
        ones = np.ones(n)
        return ClusterSums(metric, np.stack([errors**2, ones], axis=1), ones.astype(np.intp))

    return draw, float(np.sqrt(square))


def coverage(draw: Draw, truth: float, experiments: int, resamples: int = 500) -> tuple[float, float]:
    """Share of experiments whose interval holds the truth, and the mean width."""
    rng, held, width = np.random.default_rng(11), 0, 0.0
    for number in range(experiments):
        if number % 50 == 0:
            resampler = Resampler(number, resamples)
        found, reason = interval(draw(rng), resampler)
        assert found is not None, reason
        held += found[0] - 1e-9 <= truth <= found[1] + 1e-9
        width += found[1] - found[0]
    return held / experiments, width / experiments


#: Score, cluster sizes, clusters, share right, intraclass correlation.
WORLDS: tuple[tuple[str, str, int, float, float], ...] = (
    ("acc", "uneq", 200, 0.99, 0.2),
    ("acc", "uneq", 50, 0.95, 0.2),
    ("anls", "uneq", 50, 0.95, 0.2),
    ("acc", "indep", 1000, 0.98, 0.0),
    ("acc", "eq20", 9, 0.7, 0.1),
    ("acc", "pareto", 40, 0.6, 0.2),
    ("acc", "uneq", 9, 0.7, 0.1),
    ("acc", "indep", 100, 0.99, 0.0),
    ("rest", "indep", 1000, 0.98, 0.0),
    ("acc", "onebig", 31, 0.6, 0.1),
    ("anls", "indep", 100, 0.02, 0.0),
    ("anls", "pareto", 100, 0.9, 0.0),
    ("anls", "indep", 300, 0.01, 0.0),
    ("vqa", "indep", 200, 0.02, 0.0),
    ("anls", "eq10", 50, 0.01, 0.3),
    ("rest", "indep", 300, 0.98, 0.0),
    ("seldom", "indep", 300, 0.95, 0.0),
    ("acc", "onebig", 31, 0.6, 0.0),
)


#: Clusters, of them with the thin part, samples of each, intraclass correlation.
MACRO_WORLDS = ((60, 12, 10, 0.0), (60, 12, 10, 0.2), (200, 5, 20, 0.1), (200, 40, 5, 0.1), (100, 20, 1, 0.0))
#: Kind of errors, and how many.
ERROR_WORLDS = (("normal", 200), ("t5", 500), ("heavy", 1000))
