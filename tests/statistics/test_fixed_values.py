"""Exact methods against fixed values of independent implementations (statsmodels 0.15.0, or by hand)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binom

from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy, FloatArray, Mean
from evalkit.statistics import Resampler, Spread, estimate, holm, mcnemar
from evalkit.statistics.changes import bonett_price
from evalkit.statistics.intervals import exact_share, rare_share
from evalkit.statistics.max_t import max_t
from evalkit.statistics.swaps import PairedSums, swap


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


def test_a_paired_table_of_the_literature() -> None:
    """Cavo and others 2012: 16 lost, 6 won of 161, by the R package contingencytables.

    Wald_CI_BonettPrice_paired_2x2: -0.1195 to -0.0032; McNemar_exact_cond_test_paired_2x2: P = 0.052479;
    McNemar_midP_test_paired_2x2: P = 0.034690.
    """
    middle, error = bonett_price(6, 16, 161)
    ends = [middle + sign * 1.959964 * error for sign in (-1, 1)]
    assert ends == pytest.approx([-0.1195, -0.0032], abs=5e-5)
    base = np.array([1.0] * 75 + [0.0] * 86)
    new = np.array([1.0] * 59 + [0.0] * 16 + [1.0] * 6 + [0.0] * 80)
    assert mcnemar(base, new).p == pytest.approx(0.052479, abs=5e-7)
    assert binom.cdf(6, 22, 0.5) * 2 - binom.pmf(6, 22, 0.5) == pytest.approx(0.034690, abs=5e-7)


def test_korn_graubard() -> None:
    """40 clusters of 5, of which ten hold all 24 failures.

    statsmodels: OLS(right, 1).fit(cov_type="cluster") has the error 0.039092264301331135: the effective
    n is 0.88 * 0.12 / error^2 = 69.10067114093957; then proportion_confint(0.88 * n, n, method="beta").
    """
    failures = [5, 4, 3, 3, 2, 2, 2, 1, 1, 1] + [0] * 30
    records = [
        Record(f"{cluster}-{place}", f"c{cluster}", "", None, "", {"accuracy": float(place >= failed)})
        for cluster, failed in enumerate(failures)
        for place in range(5)
    ]
    found = estimate(Accuracy("accuracy"), records)
    assert found.ci95 == pytest.approx((77.94310058325263, 94.57869855136767), rel=1e-9)


@pytest.mark.parametrize(("lost", "won"), [(60, 35), (40, 28)])
def test_the_swap_test_of_single_answers_is_mcnemars_mid_p(lost: int, won: int) -> None:
    """The exact p less the probability of what was seen, from scipy.stats.binom."""
    base = np.array([1.0] * lost + [0.0] * won + [1.0] * (1000 - lost - won))
    new = np.array([0.0] * lost + [1.0] * (1000 - lost))
    sides = [np.stack([side, np.ones(1000)], axis=1) for side in (base, new)]
    found = swap(PairedSums(Accuracy("accuracy"), *sides), 0.1 * (won - lost), Resampler(0, 40_000)).p()
    expected = 2 * binom.cdf(won, lost + won, 0.5) - binom.pmf(won, lost + won, 0.5)
    assert found == pytest.approx(expected, abs=3 * math.sqrt(expected / 40_000))


def test_rare_share() -> None:
    """Singles are a Poisson count: 3 of 1000 from 0.62 to about 8.8 (chi-square, Garwood 1936)."""
    shares = np.full(1000, 1 / 1000)
    low, high = rare_share(np.where(np.arange(1000) < 3, shares, 0.0), shares)
    assert 1000 * low == pytest.approx(0.6186721, rel=1e-6)
    assert 7.2 < 1000 * high < 8.767273


#: Differences of three runs from one base on ten samples.
DIFFERENCES = np.array(
    [
        [1, 2, 0],
        [0, 1, 1],
        [2, 3, -1],
        [1, 0, 0],
        [-1, 1, 2],
        [0, 2, 1],
        [1, 1, -1],
        [2, 1, 0],
        [1, -1, 0],
        [0, 1, 1.0],
    ]
)


class EverySwap(Resampler):
    """All 2^n choices of clusters to be swapped."""

    def swaps(self, clusters: int) -> Iterator[FloatArray]:
        yield np.array(list(itertools.product((-1.0, 1.0), repeat=clusters)))


def test_max_t() -> None:
    """mne 1.13.2: mne.stats.permutation_t_test(DIFFERENCES, n_permutations="all", tail=0).

    It counts the flips that reach each T, each flip and its opposite once, and divides by 511.
    """
    ones = np.ones(len(DIFFERENCES))
    metric = Mean("mean", scale=1.0, unit="score")
    base = np.stack([0 * ones, ones], axis=1)
    pairs = [PairedSums(metric, base, np.stack([column, ones], axis=1)) for column in DIFFERENCES.T]
    found = max_t(pairs, EverySwap())
    assert found.observed == pytest.approx([2.3333333333333335, 3.160826741229801, 1.0])
    flips = np.array([0.14090019569471623, 0.07240704500978473, 0.7808219178082192]) * 511
    assert found.reached() == pytest.approx(2 * flips)


def test_the_gain_of_luck_and_what_is_left_of_the_best_gain() -> None:
    """Each of the 1024 flips by hand; the spread of the true gains is what exceeds that of the flips."""
    ones = np.ones(len(DIFFERENCES))
    base = np.stack([0 * ones, ones], axis=1)
    metric = Mean("mean", scale=1.0, unit="score")
    pairs = [PairedSums(metric, base, np.stack([column, ones], axis=1)) for column in DIFFERENCES.T]
    found = max_t(pairs, EverySwap())
    flipped = [
        [sum(f * d for f, d in zip(flips, column, strict=True)) / 10 for column in DIFFERENCES.T]
        for flips in itertools.product((-1.0, 1.0), repeat=10)
    ]
    for sign in (1.0, -1.0):
        assert found.luck(sign) == pytest.approx(sum(max(sign * e for e in row) for row in flipped) / 1024)
        gains = [sign * mean for mean in DIFFERENCES.mean(axis=0)]  # 0.7, 1.1 and 0.2
        middle = sum(gains) / 3
        spread = sum((gain - middle) ** 2 for gain in gains) / 2
        apart = [[e - sum(row) / 3 for e in row] for row in flipped]
        noise = sum(e**2 for row in apart for e in row) / 1024 / 2
        kept = 1 - noise / spread
        assert 0.1 < kept < 0.9
        truth = [middle + kept * (gain - middle) for gain in gains]
        chosen = [max(range(3), key=lambda run: truth[run] + sign * row[run]) for row in flipped]
        mean = sum(sign * row[run] for row, run in zip(flipped, chosen, strict=True)) / 1024
        assert mean > 0.01 and found.shrinkage(sign) == pytest.approx(mean)
    same = max_t([pairs[0], pairs[0]], EverySwap())
    assert same.shrinkage(1.0) == pytest.approx(0.0, abs=1e-12)
