"""Whether the best of several runs, and recipes, are called at their level, in simulated worlds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy, BoolArray, FloatArray
from evalkit.statistics import Resampler
from evalkit.statistics.max_t import MaxT, max_t
from evalkit.statistics.recipe import recipe_difference
from evalkit.statistics.swaps import PairedSums

METRIC = Accuracy("accuracy")
SHARE, CHURN = 0.7, 0.06


def checkpoint(rng: np.random.Generator, base: FloatArray, gain: float = 0.0) -> FloatArray:
    """Flips a share of the base's answers each way, and wins `gain` more."""
    draws = rng.random(len(base))
    lost, won = (CHURN - gain / 2) / SHARE, (CHURN + gain / 2) / (1 - SHARE)
    return np.where(base == 1, draws >= lost, draws < won).astype(float)


def sums(right: FloatArray, per_cluster: int) -> FloatArray:
    """Statistics by cluster, [clusters, 2]."""
    rows = np.stack([right, np.ones(len(right))], axis=1)
    return rows.reshape(-1, per_cluster, 2).sum(axis=1)


def together(rng: np.random.Generator, n: int, gains: FloatArray, per_cluster: int = 1) -> MaxT:
    base = (rng.random(n) < SHARE).astype(float)
    first = sums(base, per_cluster)
    pairs = [PairedSums(METRIC, first, sums(checkpoint(rng, base, gain), per_cluster)) for gain in gains]
    return max_t(pairs, Resampler(0, 200))


@pytest.mark.parametrize(("n", "runs", "per_cluster"), [(300, 10, 1), (300, 20, 1), (400, 10, 10)])
def test_the_best_of_equal_checkpoints_is_called_at_most_at_the_level(
    n: int, runs: int, per_cluster: int
) -> None:
    """5% for any difference, plus twice the Monte Carlo error; the naive test calls 20 to 36% improved."""
    rng, experiments, called, naive = np.random.default_rng(2), 200, 0, 0
    luck, shown = [], []
    for _ in range(experiments):
        found = together(rng, n, np.zeros(runs), per_cluster)
        called += (found.p() <= 0.05).any()
        naive += found.observed[found.values.argmax()] > 1.96
        luck.append(found.luck(1.0))
        shown.append(found.values.max())
    assert called / experiments <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / experiments)
    assert naive / experiments > 0.1
    assert np.mean(luck) == pytest.approx(np.mean(shown), rel=0.1)  # the honest line is right


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.03])
def test_the_winner_is_worth_what_is_expected_of_it(spread: float) -> None:
    """True gains scatter by `spread`; the bias of the best one's shown gain is mostly gone."""
    rng = np.random.default_rng(3)
    raw, left = [], []
    for _ in range(120):
        gains = np.clip(rng.normal(0, spread, 10), -0.1, 0.1)
        found = together(rng, 500, gains)
        best = int(found.values.argmax())
        raw.append(found.values[best] - 100 * gains[best])
        left.append(raw[-1] - found.shrinkage(1.0))
    error = np.std(left) / np.sqrt(len(left))
    assert abs(np.mean(left)) <= 0.4 + 2 * error
    assert np.mean(raw) > 0.5


class Outcomes(Accuracy):
    """Accuracy of records that are all scored, without looking at each."""

    def selected(self, records: list[Record]) -> BoolArray:  # type: ignore[override]
        return np.ones(len(records), dtype=np.bool_)

    def statistics(self, records: list[Record]) -> FloatArray:  # type: ignore[override]
        return np.array([[record.scores["accuracy"], 1.0] for record in records])


@pytest.mark.parametrize(
    ("base_runs", "new_runs", "seeds"), [(2, 2, 2.0), (3, 3, 0.0), (3, 3, 1.0), (5, 5, 2.0), (1, 4, 2.0)]
)
def test_equal_recipes_are_called_at_most_at_the_level(base_runs: int, new_runs: int, seeds: float) -> None:
    """Training seeds move a run by `seeds` points: its checkpoints differ, its recipe does not."""
    rng, experiments, n, called, these = np.random.default_rng(4), 100, 300, 0, 0
    metric = Outcomes("accuracy")
    for _ in range(experiments):
        skill = rng.normal(0.9, 1.5, n)

        def run(skill: FloatArray = skill) -> list[Record]:
            shift = rng.normal(0, seeds / 21)  # about 21 points for a shift of one
            right = (skill + shift + rng.normal(0, 0.7, n) > 0).astype(float)
            return [
                Record(str(place), f"c{place // 3}", "", None, "", {"accuracy": value})
                for place, value in enumerate(right.tolist())
            ]

        sides = [run() for _ in range(base_runs)], [run() for _ in range(new_runs)]
        found = recipe_difference(metric, *sides, Resampler(0, 200))
        assert found.p is not None and found.p_runs is not None and found.sd_seeds is not None
        called += found.p <= 0.05
        these += found.p_runs <= 0.05
    assert called / experiments <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / experiments)
    if seeds == 2.0:
        assert these / experiments > 0.1  # single checkpoints would be called


def test_the_two_variances_are_told_apart() -> None:
    """Seeds move a run by 3 points; 2,000 samples leave an error of about one."""
    rng, found, errors = np.random.default_rng(5), [], []
    metric = Outcomes("accuracy")
    skill = rng.normal(0.9, 1.5, 2000)
    for _ in range(30):

        def run() -> list[Record]:
            right = (skill + rng.normal(0, 3 / 21) + rng.normal(0, 0.7, 2000) > 0).astype(float)
            return [
                Record(str(place), str(place), "", None, "", {"accuracy": value})
                for place, value in enumerate(right.tolist())
            ]

        sides = [run() for _ in range(4)], [run() for _ in range(4)]
        result = recipe_difference(metric, *sides, Resampler(0, 100))
        assert result.sd_seeds is not None and result.se_samples is not None
        found += [result.sd_seeds[0] ** 2, result.sd_seeds[1] ** 2]
        errors.append(result.se_samples)
    assert np.sqrt(np.mean(found)) == pytest.approx(3.0, rel=0.25)
    assert np.mean(errors) < 1.0


@pytest.mark.parametrize(("base_runs", "new_runs"), [(2, 5), (3, 2), (1, 3)])
def test_freedom_is_satterthwaites_of_both_sides(base_runs: int, new_runs: int) -> None:
    """From the answers themselves, [runs, samples], each sample a cluster."""
    rng, n = np.random.default_rng(6), 400
    skill = rng.normal(0.9, 1.5, n)
    shape = base_runs + new_runs, n
    right = 100.0 * (skill + rng.normal(0, 0.4, (shape[0], 1)) + rng.normal(0, 0.7, shape) > 0)
    sides = right[:base_runs], right[base_runs:]
    records = [
        [Record(str(i), str(i), "", None, "", {"accuracy": one / 100}) for i, one in enumerate(row)]
        for row in right.tolist()
    ]
    found = recipe_difference(
        Outcomes("accuracy"), records[:base_runs], records[base_runs:], Resampler(0, 100)
    )
    of_samples = (sides[1].mean(axis=0) - sides[0].mean(axis=0)).var(ddof=1) / n
    several = [side for side in sides if len(side) > 1]
    seeds, parts = 0.0, []
    for side in sides:
        known = side if len(side) > 1 else several[0]  # a single run is taken to spread as the other side
        between = known.mean(axis=1).var(ddof=1)
        # what a run's mean owes to its own answers to the samples, apart from its seed
        own = (known - known.mean(axis=1, keepdims=True)).var(axis=0, ddof=1).sum() / (n * (n - 1))
        seeds += max(0.0, between - own) / len(side)
        parts.append((between / len(side), len(known) - 1))
    below = of_samples**2 / (n - 1)
    if len(several) == 2:
        below += sum(part**2 / freedom for part, freedom in parts)
    else:
        below += sum(part for part, _ in parts) ** 2 / parts[0][1]
    assert found.se == pytest.approx(np.sqrt(of_samples + seeds), rel=1e-9)
    assert found.freedom == pytest.approx((of_samples + seeds) ** 2 / below, rel=1e-9)


def test_the_p_value_of_these_very_runs_knows_unequal_clusters() -> None:
    """One cluster holds most samples: Student's p value with few degrees of freedom is the larger one."""
    sizes = [40, *[2] * 12]
    names = [f"c{number}" for number, size in enumerate(sizes) for _ in range(size)]

    def records(right: float) -> list[Record]:
        rng = np.random.default_rng(3)
        return [
            Record(str(place), name, "", None, None, {"accuracy": float(rng.random() < right)})
            for place, name in enumerate(names)
        ]

    found = recipe_difference(Accuracy("accuracy"), [records(0.5)], [records(0.9)], Resampler(0, 2000))
    assert found.se_samples and found.difference
    freedom = sum(sizes) ** 2 / sum(size**2 for size in sizes) - 1
    expected = 2 * stats.t.sf(abs(found.difference) / found.se_samples, freedom)
    assert found.p_runs == pytest.approx(expected, rel=1e-6)
