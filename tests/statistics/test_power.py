"""Whether planned power is kept, and the level of the gate, in simulated tasks of several metrics."""

from __future__ import annotations

import numpy as np
import pytest
from power_worlds import (
    ALONE,
    PLANNED,
    PowerWorld,
    called,
    called_alone,
    falsely_failed,
    gate,
    verdicts,
)
from scipy.stats import binom

from evalkit.metrics.base import Accuracy
from evalkit.statistics import Resampler, Spread, needed
from evalkit.statistics.paired import between
from evalkit.statistics.resampling import Clusters
from evalkit.statistics.swaps import PairedSums


def noise(share: float, experiments: int) -> float:
    """Twice the Monte Carlo error of a share."""
    return 2 * float(np.sqrt(share * (1 - share) / experiments))


@pytest.mark.parametrize("churn", [0.0, 0.001, 0.005, 0.02, 0.1])
@pytest.mark.parametrize("drop", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("metrics", [1, 6])
def test_a_drop_among_single_questions_is_called_as_promised(churn: float, drop: float, metrics: int) -> None:
    """McNemar's test by scipy, exact below 30 changes and mid-p above, in 20,000 experiments."""
    level, n = 0.05 / metrics, 10_000
    seen = Spread(100 * float(np.sqrt(2 * churn / n)), n - 1, n, n, 1 / n, 100.0)
    need = needed(100 * drop, seen, level)
    assert need is not None
    shares = [churn + drop, churn, 1 - 2 * churn - drop]
    lost, won, _ = np.random.default_rng(0).multinomial(need.samples, shares, 20_000).T
    mid = np.where(lost + won >= 30, binom.pmf(lost, lost + won, 0.5), 0.0)
    p = 2 * binom.sf(lost - 1, lost + won, 0.5) - mid
    assert 0.78 <= np.mean((p <= level) & (lost > won)) <= 0.84


@pytest.mark.parametrize(("place", "drop"), ALONE[1::4], ids=str)
def test_a_drop_among_clusters_is_called_as_promised(place: PowerWorld, drop: float) -> None:
    """78 to 84% where 80% are promised, equal and unequal clusters."""
    experiments = 300
    found = called_alone(place, place.needed(drop, 20_000), drop, experiments, resamples=1000)
    assert 0.78 - noise(0.78, experiments) <= found <= 0.84 + noise(0.84, experiments)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "drop"), [PLANNED[1]], ids=str)
def test_a_drop_among_six_metrics_is_called_as_often_as_promised(place: PowerWorld, drop: float) -> None:
    """As above, by the gate's own verdicts."""
    experiments = 150
    found = called(place, place.needed(drop, 20_000), drop, experiments)
    assert 0.78 - noise(0.78, experiments) <= found <= 0.84 + noise(0.84, experiments)


@pytest.mark.slow
@pytest.mark.parametrize("place", [PowerWorld(8, icc=0.2)], ids=str)
def test_a_gate_over_six_dependent_metrics_keeps_its_level(place: PowerWorld) -> None:
    """Any false call, up or down, at most in 5%."""
    rng, experiments, false = np.random.default_rng(6), 120, 0
    resampler = Resampler(0, 1000)
    for _ in range(experiments):
        found = verdicts(place.compare(rng, 400 // place.questions, 0.0, resampler))
        false += any(result.verdict != "no_evidence" for result in found.values())
    assert false / experiments <= 0.05 + noise(0.05, experiments)


@pytest.mark.slow
def test_a_gate_over_ten_metrics_keeps_its_level() -> None:
    """Ten unrelated metrics, among them some near 100% and some with few clusters."""
    experiments = 100
    assert falsely_failed(experiments) <= 0.05 + noise(0.05, experiments)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
@pytest.mark.parametrize("se", [0.0, 0.4, 3.0])
def test_the_drop_that_is_detectable_is_the_least_that_is_called(se: float, alpha: float) -> None:
    spread = Spread(se, 120.0, 121, 500, added=1 / 300, width=100.0)
    found = spread.detectable(alpha)
    assert spread.power(found * (1 - 2e-6), alpha) < 0.8 <= spread.power(found, alpha)


def test_a_margin_planned_for_is_shown_as_often_as_promised() -> None:
    """Nothing is lost; the interval's end stays within the margin four times in five."""
    rng, place, experiments = np.random.default_rng(8), PowerWorld(1, metrics=1), 200

    def pair(n: int) -> tuple[PairedSums, Clusters]:
        base, new, _, owners = place.draw(rng, n, 0.0)
        sides = [np.stack([side, np.ones(n)], axis=1) for side in (base, new)]
        return PairedSums(Accuracy("accuracy"), sides[0], sides[1]), Clusters(owners, n)

    pilot = between(*pair(10_000), Resampler(0, 100))
    need = pilot.needed_for_margin(3.0, 0.05)
    assert need is not None
    resampler = Resampler(0, 500)
    ends = [between(*pair(need.clusters), resampler).worst_gain for _ in range(experiments)]
    shown = np.mean([end is not None and end >= -3.0 for end in ends])
    assert 0.76 - noise(0.76, experiments) <= shown <= 0.84 + noise(0.84, experiments)


def test_a_margin_just_lost_is_seldom_passed() -> None:
    """2.5%, plus twice the Monte Carlo error."""
    passed, _ = gate("margin", 1000, 0.01, 100)
    assert passed <= 0.025 + noise(0.025, 100)
