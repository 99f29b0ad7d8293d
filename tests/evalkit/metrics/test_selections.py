"""Questions with several right letters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics.multiple_choice import chosen_letters, precision_recall

LETTERS = frozenset("ABCDE")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("AC", "AC"),
        ("A, C", "AC"),
        ("A and C", "AC"),
        ("(A) and (C).", "AC"),
        ("A;C/E", "ACE"),
        ("The answers are B and D", "BD"),
        ("E", "E"),
        ("a, c", ""),
        ("AA", ""),
        ("AX", ""),
        ("None of them", ""),
        ("", ""),
    ],
)
def test_chosen_letters(text: str, chosen: str) -> None:
    assert chosen_letters(text, LETTERS) == frozenset(chosen)


SETS = st.frozensets(st.sampled_from("ABCDE"))


@given(SETS, SETS.filter(bool))
@settings(max_examples=200, deadline=None)
def test_precision_and_recall(chosen: frozenset[str], right: frozenset[str]) -> None:
    both = sum(letter in right for letter in chosen)
    expected = (both / len(chosen), both / len(right)) if chosen else (0.0, 0.0)
    assert precision_recall(chosen, right) == pytest.approx(expected, abs=1e-9)


def test_one_letter_of_a_larger_set() -> None:
    assert precision_recall({"A"}, {"A", "C", "D"}) == (1.0, pytest.approx(1 / 3))
