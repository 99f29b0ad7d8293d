"""Exact methods against fixed values of independent implementations (statsmodels 0.15.0, or by hand)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evalkit.statistics import Spread, holm, mcnemar
from evalkit.statistics.changes import bonett_price
from evalkit.statistics.intervals import exact_share


@pytest.mark.parametrize(
    ("hits", "n", "expected"),
    [
        (3.0, 100.0, (0.006229971538306395, 0.08517605297428003)),
        (47.5, 60.0, (0.667341927409546, 0.8857535666429409)),  # an effective size need not be whole
        (0.0, 20.0, (0.0, 0.16843347098308534)),
    ],
)
def test_clopper_pearson(hits: float, n: float, expected: tuple[float, float]) -> None:
    """statsmodels.stats.proportion.proportion_confint(hits, n, method="beta")."""
    assert exact_share(hits / n, n) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_exact() -> None:
    """statsmodels.stats.contingency_tables.mcnemar([[30, 12], [5, 20]], exact=True)."""
    base = np.array([1.0] * 42 + [0.0] * 25)
    new = np.array([1.0] * 30 + [0.0] * 12 + [1.0] * 5 + [0.0] * 20)
    assert mcnemar(base, new).p == pytest.approx(0.143463134765625)


def test_holm() -> None:
    """statsmodels.stats.multitest.multipletests(..., method="holm")."""
    assert holm([0.012, 0.04, 0.003, 0.2]) == pytest.approx([0.036, 0.08, 0.012, 0.2])


@pytest.mark.parametrize(("n", "ratio"), [(5, 3.761059816267204), (31, 2.8953576854272596)])
def test_power_of_students_test(n: int, ratio: float) -> None:
    """statsmodels.stats.power.TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8) * sqrt(n)."""
    assert Spread(1.0, n - 1, n, n).detectable() == pytest.approx(ratio, rel=1e-3)


def test_bonett_price() -> None:
    """300 pairs, 0 lost and 3 won: [-0.45, 2.44] points (Bonett and Price 2012, equation 5)."""
    middle, error = bonett_price(3, 0, 300)
    ends = [100 * (middle + sign * 1.959964 * error) for sign in (-1, 1)]
    assert ends == pytest.approx([-0.45, 2.44], abs=0.005)
    assert bonett_price(0, 0, 20)[1] == pytest.approx(math.sqrt(2 / 22 / 22))
