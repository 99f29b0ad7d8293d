"""How often a difference is called: at most alpha where there is none, as promised where there is one."""

from __future__ import annotations

import numpy as np
import pytest
from clustered_worlds import KINDS, world

from evalkit.comparison.runs import Key
from evalkit.comparison.verdicts import Thresholds, decide
from evalkit.metrics.base import Accuracy, FloatArray
from evalkit.statistics import Difference, Resampler, Spread, needed
from evalkit.statistics.intervals import freedom
from evalkit.statistics.paired import Judgement, judge, judge_few
from evalkit.statistics.swaps import PairedSums

pytestmark = pytest.mark.slow

KEY = Key("invented", "test")


def result(pair: PairedSums, found: Judgement, samples: int) -> Difference:
    """A judged pair as the comparison sees it."""
    values = [float(pair.metric.value(sums.sum(axis=0))) for sums in (pair.base, pair.new)]
    return Difference(
        pair.metric, values[0], values[1], samples, len(pair.base),
        found.ci95, found.interval, found.p, found.se, found.freedom,
    )  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
def test_under_the_null_a_metric_is_called_at_most_alpha(kind: str) -> None:
    rng, experiments = np.random.default_rng(2), 100 if kind == "composite" else 1000
    fired = outside = 0
    for number in range(experiments):
        if number % 50 == 0:
            resampler = Resampler(number, 400)
        found = judge(world(kind).draw_pair(rng, 60), resampler, 0.05)
        assert found.p is not None and found.ci95 is not None
        fired += found.p <= 0.05
        outside += not found.ci95[0] <= 0 <= found.ci95[1]
    slack = 2 * np.sqrt(0.05 * 0.95 / experiments)
    assert fired / experiments <= 0.05 + slack
    assert outside / experiments <= 0.05 + slack
    assert fired / experiments >= 0.02


def test_under_the_null_at_most_alpha_of_gates_fail() -> None:
    """All kinds of metrics judged together; Holm holds the chance that any of them fails the gate."""
    rng, experiments, failed = np.random.default_rng(3), 300, 0
    kinds = [kind for kind in KINDS if kind != "composite"]
    for number in range(experiments):
        if number % 50 == 0:
            resampler = Resampler(number, 400)
        pairs = [world(kind).draw_pair(rng, 60) for kind in kinds]
        found = [(KEY, result(pair, judge(pair, resampler, 0.05), 480), False) for pair in pairs]
        failed += any(verdict.failure for verdict in decide(found, Thresholds(), 0.05))
    assert failed / experiments <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / experiments)


@pytest.mark.parametrize("clusters", [4, 8, 20])
def test_few_clusters_hold_the_level(clusters: int) -> None:
    rng, experiments, fired = np.random.default_rng(4), 600, 0
    place = world("mean")
    for number in range(experiments):
        if number % 50 == 0:
            resampler = Resampler(number, 400)
        pair = place.draw_pair(rng, clusters)
        rows = PairedSums(pair.metric, *(_samples(sums, rng) for sums in (pair.base, pair.new)))
        found = judge_few(pair, rows, freedom(pair.base[:, 1].astype(np.intp), clusters), resampler, 0.05)
        fired += (found.p or 0.0) <= 0.05
    assert fired / experiments <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / experiments)


def _samples(sums: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Rows of samples with these cluster sums of [right, 1]."""
    rows = [rng.permutation(np.arange(int(count)) < right) for right, count in sums]
    outcomes = np.concatenate(rows).astype(np.float64)
    return np.stack([outcomes, np.ones(len(outcomes))], axis=1)


def drop(rng: np.random.Generator, clusters: int, lost: float) -> PairedSums:
    """Two runs, 80% right in dependent clusters; the new one loses a share `lost` and flips some besides."""
    sizes = 4 + rng.poisson(6.0, clusters)
    ability = rng.beta(8.0, 2.0, clusters)
    right = rng.binomial(sizes, ability)
    away = rng.binomial(right, 0.05 + lost / 0.8 * rng.beta(2.0, 2.0, clusters) * 2)
    back = rng.binomial(sizes - right, 0.2)
    base = np.stack([right, sizes], axis=1).astype(np.float64)
    new = np.stack([right - away + back, sizes], axis=1).astype(np.float64)
    return PairedSums(Accuracy("accuracy"), base, new)


def test_a_planted_drop_is_found_at_the_promised_rate() -> None:
    """`detectable` promises a size, `plan` a number of clusters; both are kept."""
    rng = np.random.default_rng(5)
    pilot = drop(rng, 20_000, 0.02)
    planted = -float(pilot.difference(pilot.sums().sum(axis=0)))
    assert 1.5 < planted < 2.5
    resampler = Resampler(0, 1000)
    small = drop(rng, 150, 0.02)
    seen = judge(small, resampler, 0.05)
    need = needed(planted, Spread(judge(pilot, Resampler(0, 100), 0.05).se, 19_999, 20_000, 200_000))
    assert need is not None and 100 < need.clusters < 2000 and need.samples == 10 * need.clusters
    grown = Spread(seen.se, 149, 150, 1500).times(need.clusters / 150)
    assert grown.detectable() == pytest.approx(planted, rel=0.3)
    found = 0
    for number in range(300):
        result = judge(drop(rng, need.clusters, 0.02), Resampler(number, 400), 0.05)
        assert result.p is not None and result.ci95 is not None
        found += result.p <= 0.05 and result.ci95[1] < 0
    assert 0.74 <= found / 300 <= 0.87
