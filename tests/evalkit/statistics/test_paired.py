"""Differences of two runs: identical, planted, few changes, few clusters, what cannot be computed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy, Mean, Metric, RootMeanSquare
from evalkit.metrics.captions import Cider
from evalkit.statistics import Resampler, difference, holm, mcnemar

ACCURACY = Accuracy("accuracy")


def run(outcomes: np.ndarray, per_cluster: int = 5, name: str = "accuracy") -> list[Record]:
    """Records in clusters of `per_cluster`."""
    return [
        Record(str(place), f"c{place // per_cluster}", "", None, "", {name: float(outcome)})
        for place, outcome in enumerate(outcomes)
    ]


def compare(base: list[Record], new: list[Record], metric: Metric = ACCURACY, alpha: float = 0.05):  # type: ignore[no-untyped-def]
    return difference(metric, base, new, Resampler(0, 1000), alpha=alpha)


def test_identical_runs_give_no_difference_at_all() -> None:
    records = run(np.random.default_rng(0).random(400) < 0.7)
    found = compare(records, list(records))
    assert found.difference == 0.0 and found.p == 1.0 and found.se == 0.0
    assert found.ci95 is not None and -3.0 < found.ci95[0] < 0.0 < found.ci95[1] < 3.0
    assert found.mcnemar is not None and found.mcnemar.p == 1.0
    assert found.detectable(0.05) == pytest.approx(100 * 2.8**2 / (400 + 2.8**2), rel=0.3)


def test_a_clear_drop_and_its_direction() -> None:
    rng = np.random.default_rng(1)
    base = rng.random(1000) < 0.8
    new = base & (rng.random(1000) < 0.9)
    found = compare(run(base), run(new))
    assert found.p is not None and found.p < 0.01
    assert found.ci95 is not None and found.ci95[1] < 0
    assert found.gain == found.difference == pytest.approx(100 * (new.mean() - base.mean()))
    assert found.worst_gain == found.interval[0]
    assert found.n == 1000 and found.clusters == 200 and found.reason is None
    back = compare(run(new), run(base))
    assert back.difference == pytest.approx(-found.difference) and back.ci95[0] > 0


def test_every_sample_shifted_alike() -> None:
    base = np.random.default_rng(6).random(400)
    found = compare(run(base, name="x"), run(base + 0.5, name="x"), Mean("x", scale=1.0, unit="s"))
    assert found.p < 0.01 and found.ci95 == pytest.approx((0.5, 0.5))


def test_smaller_is_better_for_errors() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=600)
    metric = RootMeanSquare("rmse", "error", unit="m/s")
    found = compare(run(base, name="error"), run(base * 1.2, name="error"), metric)
    assert found.difference > 0 and found.gain == -found.difference and found.worst_gain == -found.interval[1]


@pytest.mark.parametrize(("flips", "significant"), [(3, False), (5, False), (9, True)])
def test_a_few_flips_all_one_way(flips: int, significant: bool) -> None:
    """Resamples never see a flip the other way; the swap test knows that it could have been."""
    base = np.ones(300)
    new = base.copy()
    new[: flips * 5 : 5] = 0
    found = compare(run(base), run(new))
    assert (found.p <= 0.05) is significant
    assert (found.ci95[0] <= 0.0 <= found.ci95[1]) is not significant
    exact = binomtest(0, flips).pvalue
    assert found.mcnemar.p == pytest.approx(exact)
    assert found.p >= 0.6 * exact


def test_few_clusters_use_students_t_and_say_so() -> None:
    rng = np.random.default_rng(3)
    base = rng.random(400) < 0.85
    new = base & (rng.random(400) < 0.7)
    found = compare(run(base, 100), run(new, 100))
    assert found.clusters == 4 and found.reason == "only 4 clusters: the interval is widened and rough"
    assert found.p is not None and found.p < 0.05
    wide, narrow = found.ci95, compare(run(base, 5), run(new, 5)).ci95
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_few_clusters_all_wrong_after_all_right() -> None:
    found = compare(run(np.ones(40), 10), run(np.zeros(40), 10))
    assert found.difference == -100.0 and found.p < 0.01 and found.ci95 == (-100.0, -100.0)


def test_few_clusters_with_one_flip_each_are_no_evidence() -> None:
    """Every cluster lost the same, so the spread between them is 0; but three flips are three flips."""
    new = np.ones(30)
    new[::10] = 0
    found = compare(run(np.ones(30), 10), run(new, 10))
    assert found.p > 0.05 and found.ci95[0] <= 0.0 <= found.ci95[1]


def test_one_cluster_cannot_be_judged() -> None:
    found = compare(run(np.ones(5)), run(np.zeros(5)))
    assert found.p is None and found.ci95 is None and found.difference == -100.0
    assert found.reason == "one cluster: no interval and no test"
    assert found.detectable(0.05) is None


def test_what_one_side_lacks_is_said() -> None:
    records = run(np.ones(40))
    bare = [dataclasses.replace(record, scores={}) for record in records]
    found = compare(records, bare)
    assert (found.base, found.new, found.difference) == (100.0, None, None)
    assert found.reason == "new: no answered sample of this kind" and found.p is None


def test_corpus_metrics_are_compared_like_any_other() -> None:
    rng = np.random.default_rng(4)
    words = np.array(["car", "van", "sign", "light", "left", "right", "is", "moving", "parked", "the"])
    targets = [" ".join(rng.choice(words, 8)) for _ in range(240)]

    def said(kept: float) -> list[Record]:
        texts = [
            " ".join(word if rng.random() < kept else str(rng.choice(words)) for word in target.split())
            for target in targets
        ]
        return [
            Record(str(i), f"c{i // 4}", "", text, target)
            for i, (text, target) in enumerate(zip(texts, targets, strict=True))
        ]

    found = compare(said(0.8), said(0.6), Cider("cider"))
    assert found.difference < 0 and found.p < 0.01 and found.mcnemar is None


def test_the_level_asked_for_widens_the_interval() -> None:
    rng = np.random.default_rng(5)
    base, new = (run(rng.random(400) < 0.7) for _ in range(2))
    found = compare(base, new, alpha=0.01)
    assert found.interval[0] < found.ci95[0] and found.interval[1] > found.ci95[1]


def test_detectable_is_none_where_no_drop_is_that_large() -> None:
    found = compare(run(np.array([1.0, 0, 0, 1]), 2), run(np.array([0.0, 0, 1, 1]), 2))
    assert found.detectable(0.05) is None


def test_mcnemar_against_the_binomial_test() -> None:
    base = np.array([1.0] * 12 + [0.0] * 5 + [1.0] * 30 + [np.nan])
    new = np.array([0.0] * 12 + [1.0] * 5 + [1.0] * 30 + [1.0])
    found = mcnemar(base, new)
    assert (found.right_to_wrong, found.wrong_to_right) == (12, 5)
    assert found.p == pytest.approx(binomtest(5, 17).pvalue)


def test_holm_against_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=120), st.integers(1, 4))
def test_verdict_and_interval_agree(outcomes: list[tuple[bool, bool]], per_cluster: int) -> None:
    """p is at most 5% exactly where the interval leaves 0 out."""
    base, new = (run(np.array(side, dtype=float), per_cluster) for side in zip(*outcomes, strict=True))
    found = difference(Mean("accuracy"), base, new, Resampler(0, 400))
    if found.p is None:
        return
    assert found.ci95 is not None and np.isfinite(found.ci95).all()
    assert found.ci95[0] - 1e-9 <= found.difference <= found.ci95[1] + 1e-9
    if abs(found.p - 0.05) > 0.01:
        assert (found.ci95[0] <= 0.0 <= found.ci95[1]) == (found.p > 0.05)
