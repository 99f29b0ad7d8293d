"""Values, sizes, speeds and times as the pages print them."""

from __future__ import annotations

from collections import deque

import pytest

from evalkit_leaderboard import numbers
from evalkit_leaderboard.views.runs import _left, _speed


@pytest.mark.parametrize(
    ("value", "unit", "shown", "signed"),
    [
        (None, "percent", "–", "–"),
        (12.345, "percent", "12.35", "+12.35"),
        (-0.5, "percent", "-0.50", "−0.50"),
        (0.0, "percent", "0.00", "±0.00"),
        (0.12345, "fraction", "0.1235", "+0.1235"),
        (784.0, "score", "784", "+784"),
        (784.5, "score", "784.50", "+784.50"),
        (9_999_999.0, "score", "9999999", "+9999999"),
        (1e7, "score", "1e+07", "+1e+07"),
        (-1.234e8, "percent", "-1.23e+08", "−1.23e+08"),
    ],
)
def test_values(value: float | None, unit: str, shown: str, signed: str) -> None:
    assert (numbers.shown(value, unit), numbers.signed(value, unit)) == (shown, signed)


def test_intervals() -> None:
    assert numbers.interval(40.123, 51.3, "percent") == "[40.12, 51.30]"
    assert numbers.interval(-0.5, 0.0, "percent") == "[-0.50, 0.00]"
    assert numbers.interval(None, 1.0) == numbers.interval(1.0, None) == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, ""), (0, ""), (12, "12"), (999, "999"), (999.6, "1K"), (1000, "1K"), (999_499, "999K"),
     (999_500, "1M"), (2_812_345, "2.81M"), (1e6, "1M"), (1e9, "1B"), (76e9, "76B")],
)  # fmt: skip
def test_magnitudes(count: float | None, text: str) -> None:
    assert numbers.magnitude(count) == text


def test_memory() -> None:
    assert [numbers.memory(count) for count in (None, 0, 3 * 2**29)] == ["", "", "1.50 GiB"]


def test_the_speed_is_that_of_the_last_minute() -> None:
    looks: deque[tuple[float, int]] = deque()
    assert _speed(looks, 100.0, 5) == 0.0
    assert _speed(looks, 110.0, 25) == 2.0
    assert _speed(looks, 160.0, 25) == pytest.approx(20 / 60)  # a look exactly a minute old still counts
    assert _speed(looks, 165.0, 80) == 1.0
    assert list(looks) == [(110.0, 25), (160.0, 25), (165.0, 80)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "about 0 s"), (89.9, "about 90 s"), (90, "about 2 min"), (3600, "about 60 min")],
)
def test_the_time_left(seconds: float, text: str) -> None:
    assert _left(seconds) == text
