"""Whether intervals and margins keep their promises at the edges, in simulated worlds of known truth."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from clustered_worlds import FEWER
from clustered_worlds import world as clustered_world
from edge_worlds import WORLDS, coverage, world

from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy
from evalkit.statistics import Resampler, difference


def records(right: np.ndarray, clusters: int, name: str = "accuracy") -> list[Record]:
    """Scored samples [n], spread evenly over clusters."""
    return [
        Record(str(i), f"c{i % clusters}", "", None, "", {name: float(score)})
        for i, score in enumerate(right.astype(float))
    ]


def flipped(
    rng: np.random.Generator, n: int, lost: float, won: float, name: str = "accuracy"
) -> tuple[list[Record], list[Record]]:
    """Two runs, the new one losing and winning shares of all samples; each sample is a cluster."""
    base = rng.random(n) < 0.8
    draws = rng.random(n)
    new = np.where(base, draws >= lost / 0.8, draws < won / 0.2)
    return records(base, n, name), records(new, n, name)


#: Unequal clusters of which a handful hold all failures: what Korn and Graubard's interval reaches.
BEST_KNOWN = {WORLDS[0]: 0.862, WORLDS[1]: 0.90}


@pytest.mark.parametrize("place", WORLDS, ids=str)
def test_intervals_cover_at_the_edges(place: tuple[str, str, int, float, float]) -> None:
    """93.5%, or what the best known method reaches, less twice the Monte Carlo error."""
    experiments, least = 100, BEST_KNOWN.get(place, 0.935)
    share, _ = coverage(*world(*place), experiments, resamples=300)
    assert share >= least - 2 * np.sqrt(least * (1 - least) / experiments)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "clusters"), [("bleu", 40), ("language", 66)], ids=str)
def test_intervals_of_corpus_metrics_cover(kind: str, clusters: int) -> None:
    """As `test_intervals_cover_at_the_edges`."""
    place, experiments = clustered_world(kind, FEWER), 100
    share, _ = coverage(partial(place.draw, clusters=clusters), place.truth, experiments, resamples=300)
    assert share >= 0.935 - 2 * np.sqrt(0.935 * 0.065 / experiments)


@pytest.mark.parametrize(
    ("n", "lost", "won", "margin"),
    [(50, 0.05, 0.0, 1.0), (100, 0.02, 0.0, 1.0), (50, 0.04, 0.01, 1.0), (300, 0.006, 0.001, 0.25)],
)
def test_a_margin_passes_wrongly_at_most_so_often(n: int, lost: float, won: float, margin: float) -> None:
    """The true drop is larger than the margin; 2.5% may pass by chance."""
    rng, experiments, passed, held = np.random.default_rng(5), 200, 0, 0
    metric, resampler = Accuracy("accuracy"), Resampler(0, 300)
    for _ in range(experiments):
        found = difference(metric, *flipped(rng, n, lost, won), resampler)
        assert found.worst_gain is not None and found.ci95 is not None
        passed += found.worst_gain >= -margin
        held += found.ci95[0] <= 100 * (won - lost) <= found.ci95[1]
    assert passed / experiments <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / experiments)
    assert held / experiments >= 0.935
