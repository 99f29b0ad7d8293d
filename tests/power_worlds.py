"""An invented task with six metrics like RSVQA's, of which a new model loses the same share everywhere.

Questions of four kinds about images; some answers change by chance, the drop comes on top of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evalkit.comparison.runs import Key
from evalkit.comparison.verdicts import MetricResult, Thresholds, decide
from evalkit.metrics.base import Accuracy, macro_mean
from evalkit.statistics import Difference, Resampler, needed
from evalkit.statistics.changes import spread
from evalkit.statistics.functional import standard_error
from evalkit.statistics.paired import between
from evalkit.statistics.power import Spread
from evalkit.statistics.resampling import Clusters, effective_clusters
from evalkit.statistics.swaps import PairedSums, swap

KEY = Key("invented", "test")
KINDS = ("presence", "compare", "count", "rural_urban")
#: Shares of the kinds among the questions of an image.
SHARES = (0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class PowerWorld:
    """How answers come about.

    Attributes:
        questions: of each image, or with `unequal` the most (log-uniform from 1).
        right: share right. icc: correlation within an image.
        churn: share of all answers that become wrong by chance; as many become right.
        metrics: 6, or 1 for the pooled accuracy alone.
    """

    questions: int
    right: float = 0.8
    icc: float = 0.0
    churn: float = 0.03
    metrics: int = 6
    unequal: bool = False

    def draw(self, rng: np.random.Generator, images: int, drop: float) -> tuple[np.ndarray, ...]:
        """Outcomes of base and new, kinds and images of so many images' questions, [n] each."""
        sizes = np.full(images, self.questions)
        if self.unequal:
            sizes = np.exp(rng.uniform(0, np.log(self.questions + 1), images)).astype(np.intp)
        owners = np.repeat(np.arange(images), sizes)
        n = len(owners)
        kinds = rng.choice(len(KINDS), n, p=SHARES)
        total = 1 / self.icc - 1 if self.icc else 0
        rates = (
            rng.beta(self.right * total, (1 - self.right) * total, images)
            if total
            else np.full(images, self.right)
        )
        base = rng.random(n) < rates[owners]
        draws = rng.random(n)
        lost = (self.churn + drop) / self.right
        won = self.churn / (1 - self.right)
        return base.astype(float), np.where(base, draws >= lost, draws < won).astype(float), kinds, owners

    def pooled(self, rng: np.random.Generator, images: int, drop: float, resampler: Resampler) -> Difference:
        """The difference of the pooled average alone."""
        base, new, _, owners = self.draw(rng, images, drop)
        return accuracy("average", base, new, Clusters(owners, images), resampler)

    def compare(
        self, rng: np.random.Generator, images: int, drop: float, resampler: Resampler
    ) -> list[Difference]:
        """Differences of the task's metrics, the pooled average first."""
        base, new, kinds, owners = self.draw(rng, images, drop)
        clusters = Clusters(owners, images)
        found = [accuracy("average", base, new, clusters, resampler)]
        if self.metrics > 1:
            for place, name in enumerate(KINDS):
                chosen = kinds == place
                found.append(accuracy(name, base[chosen], new[chosen], clusters.only(chosen), resampler))
            found.append(self._macro(base, new, kinds, clusters, resampler))
        return found

    def needed(self, drop: float, images: int, seed: int = 1) -> int:
        """Images planned for a drop, from two runs over many `images` that differ by chance alone."""
        seen = self.pooled(np.random.default_rng(seed), images, 0.0, Resampler(0, 100)).spread
        assert seen is not None
        planned = needed(100 * drop, seen, 0.05 / self.metrics)
        assert planned is not None
        return planned.clusters

    def _macro(
        self, base: np.ndarray, new: np.ndarray, kinds: np.ndarray, clusters: Clusters, resampler: Resampler
    ) -> Difference:
        metric = macro_mean("average_macro", [Accuracy(name) for name in KINDS])
        metric.statistics([])  # tells it the width of its parts
        sides = []
        for side in (base, new):
            blocks = [
                np.stack([np.where(kinds == kind, side, 0), kinds == kind], axis=1) for kind in range(4)
            ]
            sides.append(np.concatenate(blocks, axis=1).astype(float))
        return tested(PairedSums(metric, sides[0], sides[1]), clusters, resampler)


def tested(rows: PairedSums, clusters: Clusters, resampler: Resampler) -> Difference:
    """The test of a difference as `difference` makes it over many clusters, without intervals, which cost."""
    metric = rows.metric
    pair = PairedSums(metric, clusters.sums(rows.base), clusters.sums(rows.new))
    before, after = (float(metric.value(sums.sum(axis=0))) for sums in (pair.base, pair.new))
    p = swap(pair, after - before, resampler).p() if before != after else 1.0
    se = standard_error(pair.sums() @ pair.slope(resampler)(pair.sums().sum(axis=0)))
    freedom = effective_clusters(clusters.sizes()) - 1
    seen = Spread(se, freedom, clusters.count, len(rows.base))
    planned = spread(metric, rows.base, rows.new, clusters, seen)
    return Difference(
        metric,
        before,
        after,
        len(rows.base),
        clusters.count,
        p=p,
        se=se,
        freedom=clusters.count - 1,
        spread=planned,
    )


def accuracy(
    name: str, base: np.ndarray, new: np.ndarray, clusters: Clusters, resampler: Resampler
) -> Difference:
    """The difference of the accuracy of outcomes [n] each."""
    sides = [np.stack([side, np.ones(len(side))], axis=1) for side in (base, new)]
    return tested(PairedSums(Accuracy(name), sides[0], sides[1]), clusters, resampler)


def verdicts(found: list[Difference]) -> dict[str, MetricResult]:
    """The gate's results by metric."""
    judged = decide([(KEY, difference, False) for difference in found], Thresholds(), 0.05)
    return {result.name: result for result in judged}


def called(
    place: PowerWorld, images: int, drop: float, experiments: int, seed: int = 0, resamples: int = 1000
) -> float:
    """Share of experiments in which the pooled average is called regressed."""

    def hit(rng: np.random.Generator, resampler: Resampler) -> bool:
        return verdicts(place.compare(rng, images, drop, resampler))["average"].verdict == "regressed"

    return share_of(hit, experiments, seed, resamples)


def called_alone(
    place: PowerWorld, images: int, drop: float, experiments: int, seed: int = 0, resamples: int = 2000
) -> float:
    """Share of experiments in which the pooled average is called at the strictest of Holm's levels."""

    def hit(rng: np.random.Generator, resampler: Resampler) -> bool:
        found = place.pooled(rng, images, drop, resampler)
        assert found.p is not None and found.base is not None and found.new is not None
        return found.p <= 0.05 / place.metrics and found.new < found.base

    return share_of(hit, experiments, seed, resamples)


def share_of(
    hit: Callable[[np.random.Generator, Resampler], bool], experiments: int, seed: int, resamples: int
) -> float:
    """Share of experiments that hit; fifty have the same resamples."""
    rng, hits = np.random.default_rng(seed), 0
    for number in range(experiments):
        if number % 50 == 0:
            resampler = Resampler(number, resamples)
        hits += hit(rng, resampler)
    return hits / experiments


#: A world, and the drop that is planned for: the pooled average alone.
ALONE = (
    (PowerWorld(1, metrics=1), 0.04),
    (PowerWorld(4, 0.9, icc=0.1, churn=0.005, metrics=1), 0.02),
    (PowerWorld(4, 0.9, icc=0.1, churn=0.005), 0.02),
    (PowerWorld(4, icc=0.1, churn=0.1), 0.04),
    (PowerWorld(10, 0.9, icc=0.2, churn=0.005, metrics=1), 0.02),
    (PowerWorld(10, 0.9, icc=0.2, churn=0.005), 0.02),
    (PowerWorld(10, icc=0.2, metrics=1), 0.03),
    (PowerWorld(20, icc=0.1), 0.04),
    (PowerWorld(20, icc=0.3, metrics=1), 0.04),
    (PowerWorld(12, churn=0.03, unequal=True), 0.04),
    (PowerWorld(12, icc=0.1, churn=0.05, unequal=True), 0.08),
    (PowerWorld(30, 0.9, icc=0.1, churn=0.005, metrics=1, unequal=True), 0.02),
    (PowerWorld(30, 0.9, icc=0.1, churn=0.005, unequal=True), 0.02),
    (PowerWorld(30, 0.9, icc=0.1, churn=0.02, metrics=1, unequal=True), 0.03),
    (PowerWorld(30, 0.9, icc=0.1, churn=0.02, unequal=True), 0.03),
    (PowerWorld(30, 0.7, icc=0.3, churn=0.05, metrics=1, unequal=True), 0.04),
    (PowerWorld(30, 0.7, icc=0.3, churn=0.05, unequal=True), 0.04),
    (PowerWorld(100, 0.9, icc=0.2, churn=0.02, metrics=1, unequal=True), 0.025),
    (PowerWorld(100, icc=0.1, unequal=True), 0.04),
)
#: A world of six metrics under Holm's procedure, and the drop.
PLANNED = (
    (PowerWorld(1), 0.06),
    (PowerWorld(10, icc=0.2), 0.04),
    (PowerWorld(1, 0.97, churn=0.005), 0.02),
    (PowerWorld(30, 0.9, icc=0.1, churn=0.02, unequal=True), 0.03),
)
#: A threshold of one point, samples, and the true drop.
GATES = (
    ("max-drop", 4000, 0.0),
    ("max-drop", 4000, 0.01),
    ("max-drop", 4000, 0.015),
    ("max-drop", 1000, 0.02),
    ("margin", 4000, 0.0),
    ("margin", 4000, 0.01),
    ("margin", 4000, 0.015),
    ("margin", 1000, 0.02),
)


def one_pair(base: np.ndarray, new: np.ndarray, resampler: Resampler) -> Difference:
    """The difference of the accuracy of independent answers."""
    sides = [np.stack([side, np.ones(len(side))], axis=1) for side in (base, new)]
    rows = PairedSums(Accuracy("accuracy"), sides[0], sides[1])
    return between(rows, Clusters(np.arange(len(base)), len(base)), resampler)


def one_way(n: int, lost: float, won: float, experiments: int, resamples: int = 300) -> tuple[float, float]:
    """Share of intervals that hold the true difference, and of margins just below the drop that pass."""
    rng, resampler, held, passed = np.random.default_rng(5), Resampler(0, resamples), 0, 0
    drop = 100 * (lost - won)
    for _ in range(experiments):
        base, draws = rng.random(n) < 0.8, rng.random(n)
        new = np.where(base, draws >= lost / 0.8, draws < won / 0.2)
        found = one_pair(base.astype(float), new.astype(float), resampler)
        assert found.ci95 is not None
        held += found.ci95[0] - 1e-9 <= -drop <= found.ci95[1] + 1e-9
        passed += found.ci95[0] > -drop + 1e-9
    return held / experiments, passed / experiments


def gate(kind: str, n: int, drop: float, experiments: int) -> tuple[float, float]:
    """Shares of experiments in which a gate of one point passes and fails; 6% of the answers change anyway.

    Answers are independent, so that an experiment is the number of answers lost and won; each such pair is
    judged once.
    """
    limits = {"accuracy": 1.0}
    thresholds = Thresholds(max_drop=limits) if kind == "max-drop" else Thresholds(margin=limits)
    shares = [0.03 + drop, 0.03, 0.94 - drop]
    drawn = np.random.default_rng(9).multinomial(n, shares, experiments)[:, :2]
    outcomes, times = np.unique(drawn, axis=0, return_counts=True)
    resampler, passed, failed = Resampler(0, 1000), 0, 0
    for (lost, won), count in zip(outcomes.tolist(), times.tolist(), strict=True):
        base, new = np.arange(n) < 0.8 * n, np.arange(n) < 0.8 * n
        new[:lost], new[n - won :] = False, True
        sides = [np.stack([side, np.ones(n)], axis=1) for side in (base, new)]
        rows, clusters = PairedSums(Accuracy("accuracy"), sides[0], sides[1]), Clusters(np.arange(n), n)
        judge = tested if kind == "max-drop" else between
        (found,) = decide([(KEY, judge(rows, clusters, resampler), False)], thresholds, 0.05)
        failed += count * (found.failure is not None)
        passed += count * (found.failure is None and found.undecided is None)
    return passed / experiments, failed / experiments


#: Share right, images and questions of each: near 100%, clustered, few clusters.
TEN = ((0.97, 150, 1), (0.7, 60, 4), (0.8, 12, 10))


def falsely_failed(experiments: int, resamples: int = 1000) -> float:
    """Share of gates over ten unrelated metrics that fail though nothing differs."""
    rng, failed = np.random.default_rng(7), 0
    resampler = Resampler(0, resamples)
    for _ in range(experiments):
        found = []
        for place in range(10):
            right, images, questions = TEN[place % len(TEN)]
            rates = rng.beta(right * 5, (1 - right) * 5, images)
            sides = [rng.random((images, questions)) < rates[:, None] for _ in range(2)]
            rows = [np.stack([side.ravel(), np.ones(side.size)], axis=1).astype(float) for side in sides]
            clusters = Clusters(np.repeat(np.arange(images), questions), images)
            judge = tested if images >= 30 else between
            found.append(judge(PairedSums(Accuracy(f"m{place}"), rows[0], rows[1]), clusters, resampler))
        failed += any(result.failure is not None for result in verdicts(found).values())
    return failed / experiments
