"""Whether planned power is kept, and the level of the gate, in simulated tasks of several metrics."""

from __future__ import annotations

import numpy as np
import pytest
from power_worlds import PLANNED, PowerWorld, called, verdicts

from evalkit.metrics.base import Accuracy
from evalkit.statistics import Resampler, needed
from evalkit.statistics.paired import between
from evalkit.statistics.resampling import Clusters
from evalkit.statistics.swaps import PairedSums


def noise(share: float, experiments: int) -> float:
    """Twice the Monte Carlo error of a share."""
    return 2 * float(np.sqrt(share * (1 - share) / experiments))


@pytest.mark.slow
@pytest.mark.parametrize(("place", "drop"), PLANNED, ids=str)
def test_a_drop_planned_for_is_called_as_often_as_promised(place: PowerWorld, drop: float) -> None:
    """78 to 84% where 80% are promised: the variances come from two runs that differ by chance alone."""
    pilot = place.compare(np.random.default_rng(1), 10_000 // place.questions, 0.0, Resampler(0, 100))[0]
    assert pilot.spread is not None
    need = needed(100 * drop, pilot.spread, 0.05 / place.metrics)
    assert need is not None
    experiments = 250
    found = called(place, need.clusters, drop, experiments, resamples=2000)
    assert 0.78 - noise(0.78, experiments) <= found <= 0.84 + noise(0.84, experiments)


@pytest.mark.slow
@pytest.mark.parametrize("place", [PowerWorld(1), PowerWorld(8, icc=0.2)], ids=str)
def test_a_gate_over_six_dependent_metrics_keeps_its_level(place: PowerWorld) -> None:
    """Any false call, up or down, at most in 5%."""
    rng, experiments, false = np.random.default_rng(6), 200, 0
    resampler = Resampler(0, 1000)
    for _ in range(experiments):
        found = verdicts(place.compare(rng, 400 // place.questions, 0.0, resampler))
        false += any(result.verdict != "no_evidence" for result in found.values())
    assert false / experiments <= 0.05 + noise(0.05, experiments)


@pytest.mark.slow
def test_a_gate_over_ten_metrics_keeps_its_level() -> None:
    """Ten unrelated metrics, among them some near 100% and some with few clusters."""
    rng, experiments, failed = np.random.default_rng(7), 100, 0
    resampler = Resampler(0, 1000)
    for _ in range(experiments):
        found = []
        for place in range(10):
            right, images, questions = ((0.97, 150, 1), (0.7, 60, 4), (0.8, 12, 10))[place % 3]
            rates = rng.beta(right * 5, (1 - right) * 5, images)
            sides = [rng.random((images, questions)) < rates[:, None] for _ in range(2)]
            rows = [np.stack([side.ravel(), np.ones(side.size)], axis=1).astype(float) for side in sides]
            clusters = Clusters(np.repeat(np.arange(images), questions), images)
            found.append(between(PairedSums(Accuracy(f"m{place}"), rows[0], rows[1]), clusters, resampler))
        failed += any(result.failure is not None for result in verdicts(found).values())
    assert failed / experiments <= 0.05 + noise(0.05, experiments)


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
