"""Control signals: reading numbers, thresholds, RMSE."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Record
from evalkit.metrics.base import Metric
from evalkit.metrics.control import (
    CURVATURE,
    TAUS,
    SignalRmse,
    ThresholdAccuracy,
    first_number,
    gives_curvature,
    read_signal,
    threshold_scores,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.42", 1.42),
        ("about 3 m/s", 3.0),
        ("+4", 4.0),
        ("-0.5 degrees", -0.5),
        ("- 1.5", 1.5),
        (".5", 0.5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("3.3.3", 3.3),
        ("1,000", 1.0),
        ("1e5", 1.0),
        ("Speed: 2 then 3", 2.0),
        ("v2", 2.0),
        ("", None),
        ("fast", None),
        ("nan", None),
        ("inf", None),
        (". - +", None),
        ("9" * 400, None),
    ],
)
def test_first_number(text: str, number: float | None) -> None:
    assert first_number(text) == number


@pytest.mark.parametrize(
    ("text", "speed", "angle"),
    [
        ("Speed: 1.42 Course: -3.2", 1.42, -3.2),
        ("Course: -3.2 Speed: 1.42", 1.42, -3.2),
        ("speed 1.42, course -3.2", 1.42, -3.2),
        ("Speed: 1.42 m/s\nTurning angle: -3.2", 1.42, -3.2),
        ("Speed: unknown Course: -3.2", None, -3.2),
        ("Speed: 1.42 Course: straight", 1.42, None),
        ("Speed: 1.42 Curvature: 0.03", 1.42, None),
        ("Speed: 1.42 Curvature: 0.03 Course: -3.2", 1.42, -3.2),
        ("Speed: 1.42", 1.42, None),
        ("1.42 -3.2", None, None),
        ("", None, None),
    ],
)
def test_both_signals_follow_their_labels(text: str, speed: float | None, angle: float | None) -> None:
    assert read_signal(text, "speed", both=True) == speed
    assert read_signal(text, "angle", both=True) == angle


def test_a_question_for_one_signal_takes_the_first_number_unless_both_are_marked() -> None:
    assert read_signal("The angle will be 2.5", "angle") == 2.5
    assert read_signal("Of course, the speed is 3", "angle") == 3.0
    assert read_signal("Speed: 7", "angle") == read_signal("Course: 7", "speed") == 7.0
    assert read_signal("Speed: 7 Course: 1.5", "angle") == 1.5
    assert read_signal("Course: 1.5 Speed: 7", "speed") == 7.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Speed: 1.42 Curvature: 0.03", True),
        ("Speed: 1.42 Course: 0.03", False),
        ("Curvature: 1 Course: 2", False),
        ("3.2", False),
    ],
)
def test_gives_curvature(text: str, expected: bool) -> None:
    assert gives_curvature(text) is expected


def test_thresholds_are_strict_and_a_miss_has_no_error() -> None:
    assert threshold_scores("speed", 1.5, 1.0)["speed_a_0.5"] == 0.0
    assert threshold_scores("speed", 1.25, 1.0)["speed_a_0.5"] == 1.0
    assert threshold_scores("angle", None, 1.0) == {f"angle_a_{tau}": 0.0 for tau in TAUS}


VALUES = st.one_of(st.none(), st.floats(-200, 200).map(lambda value: round(value, 3)))


@given(st.lists(st.tuples(VALUES, st.floats(-200, 200).map(lambda v: round(v, 3))), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_figures_are_the_plain_formulas(pairs: list[tuple[float | None, float]]) -> None:
    records = [
        Record(str(i), str(i), "", given, target, threshold_scores("angle", given, target))
        for i, (given, target) in enumerate(pairs)
    ]
    read = [(given, target) for given, target in pairs if given is not None]
    for tau in TAUS:
        metric = ThresholdAccuracy("angle", tau)
        expected = 100 * sum(abs(target - given) < tau for given, target in read) / len(pairs)
        assert _value(metric, records) == pytest.approx(expected, abs=1e-9)
        assert int(metric.selected(records).sum()) == len(pairs)
    rmse = SignalRmse("angle")
    if read:
        expected = math.sqrt(sum((target - given) ** 2 for given, target in read) / len(read))
        assert _value(rmse, records) == pytest.approx(expected, abs=1e-9)
        assert int(rmse.selected(records).sum()) == len(read)
    else:
        assert rmse.reason(records) == "no answer holds a readable number"


def _value(metric: Metric, records: list[Record]) -> float:
    return float(metric.value(metric.statistics(records).sum(axis=0)))


def test_units_and_directions() -> None:
    assert [SignalRmse(signal).unit for signal in ("speed", "angle")] == ["m/s", "degrees"]
    assert not SignalRmse("speed").higher_is_better
    assert ThresholdAccuracy("speed", 1.0).name == "speed_a_1.0"
    assert ThresholdAccuracy("speed", 1.0).binary


def test_curvature_gives_no_angle() -> None:
    record = Record("a", "a", "", {}, {}, threshold_scores("speed", 1.0, 1.0), data={CURVATURE: True})
    for metric in (SignalRmse("angle"), ThresholdAccuracy("angle", 1.0)):
        assert metric.reason([record]) == (
            "the data label the second signal Curvature, which gives no turning angle"
        )
    assert SignalRmse("speed").reason([record]) is None


@pytest.mark.parametrize("unit", ["speed ", "a", "-+.", "Course: "])
@pytest.mark.timeout(120)
def test_long_answers_end(unit: str) -> None:
    text = unit * (4_000_000 // len(unit))
    assert read_signal(text, "speed") is None
    assert read_signal(text, "angle", both=True) is None
