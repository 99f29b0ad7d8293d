"""Intervals at their ends: shares of none and of all, clusters that are all alike."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from evalkit.statistics.intervals import alike, cut, exact_share, freedom, join


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (1, 20), (7, 20), (20, 20)])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_an_exact_share_is_clopper_and_pearsons(hits: int, n: int, alpha: float) -> None:
    expected = binomtest(hits, n).proportion_ci(1 - alpha, method="exact")
    assert exact_share(hits / n, n, alpha) == pytest.approx((expected.low, expected.high))


def test_clusters_all_alike_leave_room_for_the_rare_other_one() -> None:
    # three in ten: (1 - q)^10 = 0.025 for q = 0.3085
    assert alike(100.0, 10, (0.0, 100.0)) == pytest.approx((69.15, 100.0), abs=0.01)
    assert alike(0.25, 10, (0.0, 1.0)) == pytest.approx((0.1729, 0.4814), abs=1e-4)
    assert alike(5.0, 10, (0.0, math.inf)) is None
    assert alike(5.0, 10, (-math.inf, 9.0)) is None
    assert alike(101.0, 10, (0.0, 100.0)) is None


def test_ends_of_intervals() -> None:
    assert cut((-3.0, 104.0), (0.0, 100.0), 90.0) == (0.0, 100.0)
    assert cut((-3.0, 104.0), (0.0, 100.0), 101.0) == (-3.0, 104.0), "a value outside has no such bounds"
    assert join((1.0, 3.0), (2.0, 4.0)) == (1.0, 4.0)


def test_unequal_clusters_count_for_less() -> None:
    import numpy as np

    assert freedom(np.array([5] * 12), 12) == pytest.approx(11.0)
    assert freedom(np.array([50, 1, 1, 1]), 4) == 1.0, "never below one"
    assert freedom(np.array([5] * 12), 6) == pytest.approx(5.0)
    assert freedom(np.array([8, 4, 4, 4]), 4) == pytest.approx(20**2 / 112 - 1)
