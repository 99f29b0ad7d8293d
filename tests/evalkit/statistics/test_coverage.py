"""Do 95% intervals cover the truth 95 times in a hundred? Simulated, on clustered data of real size."""

from __future__ import annotations

import numpy as np
import pytest
from clustered_worlds import KINDS, World, world

from evalkit.statistics.estimate import interval
from evalkit.statistics.resampling import Resampler

pytestmark = pytest.mark.slow


def coverage(place: World, clusters: int, experiments: int, clustered: bool = True) -> float:
    """Share of experiments whose interval holds the population's figure."""
    rng = np.random.default_rng(1)
    draw = place.draw if clustered else place.draw_unclustered
    held = 0
    for number in range(experiments):
        if number % 50 == 0:
            resampler = Resampler(number, 800)
        found, _ = interval(draw(rng, clusters), resampler)
        assert found is not None
        held += found[0] <= place.truth <= found[1]
    return held / experiments


@pytest.mark.parametrize(
    ("kind", "clusters", "experiments"),
    [
        ("mean", 40, 1000),
        ("mean", 200, 600),
        ("ratio", 150, 600),
        ("rmse", 150, 600),
        ("cider", 150, 600),
    ],
)
def test_clustered_intervals_cover(kind: str, clusters: int, experiments: int) -> None:
    assert 0.93 <= coverage(world(kind), clusters, experiments) <= 0.97


@pytest.mark.parametrize("kind", list(KINDS))
def test_few_clusters_do_not_undercover(kind: str) -> None:
    experiments = 50 if kind == "composite" else 400
    assert coverage(world(kind), 8, experiments) >= 0.92


def test_unclustered_intervals_are_too_narrow() -> None:
    assert coverage(world("mean"), 150, 100, clustered=False) < 0.90
