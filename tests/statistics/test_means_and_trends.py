"""Means over tasks and slopes over checkpoints: intervals that know on how little they rest."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evalkit.comparison.forgetting import _change
from evalkit.comparison.runs import Key
from evalkit.comparison.verdicts import MetricResult
from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy
from evalkit.statistics import Difference, Resampler, trend


def result(gain: float, se: float, freedom: float) -> MetricResult:
    """The headline of a task."""
    found = Difference(Accuracy("accuracy"), 50.0, 50.0 + gain, 100, 4, se=se, freedom=freedom)
    return MetricResult(Key("invented", "test"), found)


@pytest.mark.parametrize(
    ("tasks", "freedom", "quantile"),
    [(1, 3.0, 3.182446), (3, 8.0, 2.063899), (2, 1e6, 1.959964)],  # t with 3, 24 and ever so many degrees
)
def test_the_forgetting_report_uses_t_by_the_clusters_it_rests_on(
    tasks: int, freedom: float, quantile: float
) -> None:
    change = _change("general", tuple(result(-2.0, 3.0, freedom) for _ in range(tasks)))
    assert change.ci95 is not None
    assert change.ci95[1] - change.change == pytest.approx(quantile * 3.0 / math.sqrt(tasks), rel=1e-5)


def test_the_forgetting_report_covers_with_four_clusters() -> None:
    """1.96 covers 84% here."""
    rng, held, experiments = np.random.default_rng(0), 0, 2000
    for _ in range(experiments):
        four = rng.normal(-1.0, 2.0, 4)
        ends = _change("general", (result(four.mean(), four.std(ddof=1) / 2, 3.0),)).ci95
        assert ends is not None
        held += ends[0] <= -1.0 <= ends[1]
    assert 0.935 <= held / experiments <= 0.965


@pytest.mark.parametrize("n", [400, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_trend_knows_the_noise_between_checkpoints(n: int) -> None:
    """Checkpoints that scatter by a point and have no trend: a slope is called in at most 5%."""
    rng, experiments, called = np.random.default_rng(1), 40, 0
    metric, resampler, places = Accuracy("accuracy"), Resampler(0, 200), np.arange(5.0)
    for _ in range(experiments):
        series = []
        for share in 0.8 + 0.01 * rng.normal(size=5):
            right = rng.random(n) < share
            series.append(
                [Record(str(i), str(i), "", None, "", {"accuracy": float(x)}) for i, x in enumerate(right)]
            )
        found = trend(metric, series, places, resampler)
        assert found is not None and found.ci95 is not None
        called += not found.ci95[0] <= 0 <= found.ci95[1]
    assert called / experiments <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / experiments)
