"""Whole numbers and bins, against InternVL's rs_vqa/score.py written out plainly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics.counts import same_bin, square_metres, whole_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        (" 0 ", 0),
        ("+7", 7),
        ("1_0", 10),
        ("٣", 3),
        ("-3", -3),
        ("5.0", None),
        ("1,000", None),
        ("five", None),
        ("", None),
        ("9" * 100_000, None),
    ],
)
def test_whole_number_is_pythons(text: str, number: int | None) -> None:
    assert whole_number(text) == number


EDGES = [-5, -1, 0, 1, 50, 100, 101, 500, 1000, 1001, 10**9]


def plain(response: int, answer: int) -> bool:
    """is_correct_count of two integers."""
    if response == 0 and answer == 0:
        return True
    if 0 < response <= 100 and 0 < answer <= 100:
        return True
    if 100 < response <= 1000 and 100 < answer <= 1000:
        return True
    return response > 1000 and answer > 1000


@given(st.integers() | st.sampled_from(EDGES), st.integers() | st.sampled_from(EDGES))
@settings(max_examples=300, deadline=None)
def test_same_bin(one: int, other: int) -> None:
    assert same_bin(one, other) is plain(one, other)


@pytest.mark.parametrize(
    ("text", "quirk", "mended"),
    [
        ("9658m2", 9658, 9658),
        ("122m2", 1, 122),
        ("2m2", None, 2),
        ("22", None, 22),
        ("120", 120, 120),
        ("m2", None, None),
        ("0m2", 0, 0),
    ],
)
def test_square_metres(text: str, quirk: int | None, mended: int | None) -> None:
    assert square_metres(text, quirk=True) == quirk
    assert square_metres(text, quirk=False) == mended
