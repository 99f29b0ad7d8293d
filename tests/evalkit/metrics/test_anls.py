"""ANLS against the published formula written out plainly, its edges, and absurd answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics.anls import anls


def plain_anls(prediction: str, references: list[str]) -> float:
    """DocVQA's scorer: distance on normalised texts over the longer of the raw, upper-cased ones."""
    costs = []
    for reference in references:
        expected = " ".join(reference.strip().lower().split())
        given_answer = " ".join(prediction.strip().lower().split())
        row = list(range(len(given_answer) + 1))
        for i, a in enumerate(expected):
            previous, row[0] = row[0], i + 1
            for j, b in enumerate(given_answer):
                previous, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, previous + (a != b))
        longest = max(len(reference.upper()), len(prediction.upper()))
        costs.append(0.0 if longest == 0 else row[-1] / longest)
    score = 1 - min(costs)
    return score if score >= 0.5 else 0.0


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ("cat", "car", 2 / 3),
        ("cat", "car   ", 5 / 6),
        ("cat   ", "car", 5 / 6),
        ("ab", "a", 0.5),
        ("", "x", 0.0),
        ("x", "", 0.0),
        ("", "", 1.0),
        ("Page 2", "page  2", 1.0),
        ("CAT", "cat", 1.0),
        ("abc", "a", 0.0),
        ("straße", "STRASSE", 5 / 7),
    ],
)
def test_edges(reference: str, prediction: str, expected: float) -> None:
    assert anls(prediction, [reference]) == pytest.approx(expected, abs=1e-12)


def test_best_reference_counts() -> None:
    assert anls("page 2", ["2", "page 2"]) == 1.0
    assert anls("page 2", ["zzz", "page 3"]) == pytest.approx(5 / 6)


_text = st.text(alphabet="aAbB1 \t\nßİé", max_size=12)


@settings(max_examples=300, deadline=None)
@given(_text, st.lists(_text, min_size=1, max_size=3))
def test_equals_the_plain_formula(prediction: str, references: list[str]) -> None:
    assert anls(prediction, references) == pytest.approx(plain_anls(prediction, references), abs=1e-9)


@pytest.mark.parametrize(("unit", "expected"), [("a b ", 0.0), ("ab", 0.0), (" ", 1 - 3 / 20_000_000)])
@pytest.mark.timeout(120)
def test_a_huge_answer_ends(unit: str, expected: float) -> None:
    huge = unit * (20_000_000 // len(unit))
    assert anls(huge, ["a b", "cat"]) == pytest.approx(expected, abs=1e-12)


def test_padding_of_a_huge_answer_is_scored_exactly() -> None:
    padded = "cat" + " " * 1_000_000
    assert anls(padded, ["cat"]) == 1.0
    assert anls(padded, ["car"]) == pytest.approx(1 - 1 / 1_000_003, abs=1e-12)
