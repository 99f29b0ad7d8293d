"""Intervals of single figures: shape, edges and what is said about them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Failure, Record
from evalkit.metrics.base import Accuracy, Mean, RootMeanSquare, macro_mean
from evalkit.statistics import ClusterSums, Resampler, estimate, estimate_all
from evalkit.statistics.functional import metric_gradient, replicate, slope_of


def answers(outcomes: list[list[float]], name: str = "accuracy") -> list[Record]:
    """Records of clusters of outcomes."""
    return [
        Record(f"{cluster}-{place}", f"c{cluster}", "", None, None, {name: outcome})
        for cluster, members in enumerate(outcomes)
        for place, outcome in enumerate(members)
    ]


def mixed(clusters: int, seed: int = 0, share: float = 0.6) -> list[Record]:
    rng = np.random.default_rng(seed)
    return answers([list((rng.random(5) < rng.beta(3, 2)).astype(float)) for _ in range(clusters)])


def test_value_is_the_metrics_own() -> None:
    records = mixed(40)
    found = estimate(Accuracy("accuracy"), records)
    assert found.value == pytest.approx(100 * np.mean([record.scores["accuracy"] for record in records]))
    assert found.n == 200 and found.unit == "percent" and found.reason is None
    assert found.ci95 is not None and found.ci95[0] < found.value < found.ci95[1]


def test_same_seed_same_interval_and_the_order_of_records_is_no_matter() -> None:
    records = mixed(400)
    first = estimate(Accuracy("accuracy"), records, seed=3)
    assert first == estimate(Accuracy("accuracy"), records, seed=3)
    assert first.ci95 != estimate(Accuracy("accuracy"), records, seed=4).ci95, "resampled"
    assert estimate(Accuracy("accuracy"), records[::-1], seed=3).ci95 == pytest.approx(first.ci95)


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    records = answers([[float(rng.random() < 0.5)] * 6 for _ in range(60)])
    alone = [dataclasses.replace(record, cluster=record.id) for record in records]
    clustered, single = (estimate(Accuracy("accuracy"), side).ci95 for side in (records, alone))
    assert clustered is not None and single is not None
    assert clustered[1] - clustered[0] > 2 * (single[1] - single[0])


def test_bounded_figures_stay_within_their_bounds() -> None:
    rng = np.random.default_rng(0)
    for share in (0.03, 0.97):
        records = answers([list((rng.random(4) < share).astype(float)) for _ in range(50)])
        found = estimate(Accuracy("accuracy"), records)
        assert found.value is not None and found.ci95 is not None
        assert 0.0 <= found.ci95[0] < found.value < found.ci95[1] <= 100.0
    errors = answers([[abs(float(rng.standard_cauchy()))] for _ in range(35)], "error")
    root = estimate(RootMeanSquare("rmse", "error", unit="m/s"), errors)
    assert root.ci95 is not None and root.ci95[0] >= 0.0


@pytest.mark.parametrize(("outcome", "clusters"), [(1.0, 50), (0.0, 50), (1.0, 5)])
def test_all_right_and_all_wrong_are_not_certain(outcome: float, clusters: int) -> None:
    found = estimate(Accuracy("accuracy"), answers([[outcome] * 3] * clusters))
    assert found.value == 100 * outcome and found.ci95 is not None
    reach = 100 * (1 - 0.025 ** (1 / clusters))
    expected = (100 - reach, 100.0) if outcome else (0.0, reach)
    assert found.ci95 == pytest.approx(expected)


def test_all_right_in_clusters_of_unequal_sizes_is_an_interval_near_the_top() -> None:
    found = estimate(Accuracy("accuracy"), answers([[1.0]] * 5 + [[1.0, 1.0]] * 55))
    assert found.ci95 is not None and found.ci95[0] > 90


def test_an_unbounded_figure_alike_everywhere_has_no_interval() -> None:
    found = estimate(RootMeanSquare("rmse", "error", unit="m/s"), answers([[0.5, 0.5]] * 40, "error"))
    assert found.value == pytest.approx(0.5) and found.ci95 is None
    assert found.reason == "all clusters alike: no interval"


def test_one_failure_among_many_keeps_its_upper_tail() -> None:
    """One wrong answer in 200 clusters: the share of wrong answers may well be 2%."""
    found = estimate(Accuracy("accuracy"), answers([[1.0]] * 199 + [[0.0]]))
    assert found.ci95 is not None and found.ci95[0] < 97.5 and found.ci95[1] > 99.9


def test_one_failure_in_one_part_of_an_average_keeps_its_lower_tail() -> None:
    """80 human questions with one wrong answer, 80 augmented ones without."""
    human = answers([[1.0]] * 79 + [[0.0]], "human")
    augmented = [
        dataclasses.replace(r, id=f"a{r.id}", cluster=f"a{r.cluster}")
        for r in answers([[1.0]] * 80, "augmented")
    ]
    parts = [Accuracy("human"), Accuracy("augmented")]
    average = macro_mean("average", parts)
    records = [*human, *augmented]
    found = estimate(average, records)
    low = {part.name: interval[0] for part in parts if (interval := estimate(part, records).ci95)}
    expected = 99.375 - math.hypot((98.75 - low["human"]) / 2, (100 - low["augmented"]) / 2)
    assert found.value == pytest.approx(99.375) and found.ci95 is not None
    assert found.ci95[0] == pytest.approx(expected) and found.ci95[1] == 100.0


def test_one_cluster_has_no_interval() -> None:
    found = estimate(Accuracy("accuracy"), answers([[1.0, 0.0, 1.0]]))
    assert found.ci95 is None and found.reason == "one cluster: no interval"
    assert found.value == pytest.approx(200 / 3)


def test_few_clusters_say_so_and_widen() -> None:
    many = estimate(Accuracy("accuracy"), mixed(120))
    few = [estimate(Accuracy("accuracy"), mixed(6, seed)) for seed in range(20)]
    assert many.note is None and many.ci95 is not None
    assert {found.reason for found in few} == {None}
    assert {found.note for found in few} == {"only 6 clusters: the interval is widened and rough"}
    widths = [found.ci95[1] - found.ci95[0] for found in few if found.ci95]
    normal = (many.ci95[1] - many.ci95[0]) * math.sqrt(120 / 6)
    assert np.mean(widths) > normal


def test_a_composite_is_as_thin_as_its_thinnest_part() -> None:
    records = mixed(50)
    rare = [dataclasses.replace(r, scores={"rare": 1.0}) if r.cluster == "c7" else r for r in records]
    figure = macro_mean("average", [Accuracy("accuracy"), Accuracy("rare")])
    assert estimate(figure, rare).reason == "one cluster: no interval"


def test_errors_enter_nothing_and_nothing_selected_has_a_reason() -> None:
    failure = Failure("image", "gone")
    failed = [dataclasses.replace(r, error=failure, flags=("error",), scores={}) for r in mixed(3)]
    found = estimate(Accuracy("accuracy"), failed)
    assert (found.value, found.ci95, found.n) == (None, None, 0)
    assert found.reason == "no answered sample of this kind"
    assert estimate(Accuracy("accuracy"), []).reason == "no answered sample of this kind"


def test_metrics_of_a_report_share_their_weights() -> None:
    records = [dataclasses.replace(r, scores={**r.scores, "b": r.scores["accuracy"]}) for r in mixed(40)]
    found = estimate_all([Accuracy("accuracy"), Mean("b")], records)
    assert found["b"].ci95 is not None
    assert found["accuracy"].ci95 == found["b"].ci95


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    records = mixed(40)
    whole = estimate(Accuracy("accuracy"), records)
    monkeypatch.setattr("evalkit.statistics.resampling.CHUNK_CELLS", 40 * 7)
    assert estimate(Accuracy("accuracy"), records).ci95 == pytest.approx(whole.ci95)


def test_weights_are_multinomial() -> None:
    weights = np.concatenate(list(Resampler(0, 4000).weights(10)))
    assert weights.shape == (4000, 10)
    assert (weights.sum(axis=1) == 10).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(10), abs=0.06)
    assert weights.var(axis=0) == pytest.approx(np.full(10, 0.9), abs=0.1)


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        Resampler(0, 99)


def test_the_error_of_a_mean_is_the_textbook_one() -> None:
    records = answers([[float(value)] for value in np.random.default_rng(0).normal(size=50)], "x")
    metric = Mean("x", scale=1.0, unit="score")
    rows = ClusterSums.of(metric, records).rows

    found = replicate(metric.value, slope_of(metric.value, rows), rows, Resampler(0, 500))
    values = rows[:, 0]
    assert found.se == pytest.approx(values.std(ddof=1) / math.sqrt(50), rel=1e-6)
    assert found.values.std() == pytest.approx(values.std() / math.sqrt(50), rel=0.1)


def test_the_chain_rule_agrees_with_plain_differences() -> None:
    records = [dataclasses.replace(r, scores={**r.scores, "x": 1.0 + len(r.id)}) for r in mixed(12)]
    parts = [Accuracy("accuracy"), RootMeanSquare("x", "x", unit="percent")]
    figure = macro_mean("both", [parts[0], macro_mean("inner", parts)])
    sums = ClusterSums.of(figure, records).rows
    at = np.stack([sums.sum(axis=0), sums[:5].sum(axis=0)])
    assert metric_gradient(figure, at, sums) == pytest.approx(slope_of(figure.value, sums)(at), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=4), min_size=1, max_size=45))
def test_any_outcomes_give_a_sane_interval(outcomes: list[list[float]]) -> None:
    found = estimate(Accuracy("accuracy"), answers(outcomes), resamples=200)
    assert found.value is not None
    if len(outcomes) == 1:
        assert found.ci95 is None and found.reason
        return
    assert found.ci95 is not None
    low, high = found.ci95
    assert 0.0 <= low <= found.value + 1e-9 and found.value - 1e-9 <= high <= 100.0 and low < high
