"""Containment as OCRBench scores it, against its loop written out plainly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics.contains import contains_formula, contains_text


def plain(prediction: str, answers: list[str], formula: bool) -> float:
    for answer in answers:
        if formula:
            expected = answer.strip().replace("\n", " ").replace(" ", "")
            found = prediction.strip().replace("\n", " ").replace(" ", "")
        else:
            expected = answer.lower().strip().replace("\n", " ")
            found = prediction.lower().strip().replace("\n", " ")
        if expected in found:
            return 1.0
    return 0.0


@pytest.mark.parametrize(
    ("prediction", "answers", "text", "formula"),
    [
        ("The word is centre.", ["CENTRE"], 1, 0),
        ("CEN TRE", ["centre"], 0, 0),
        ("CEN TRE", ["CENTRE"], 0, 1),
        ("y_{2} = -1", ["y _ { 2 } = - 1\n", "y_2 = - 1\n"], 0, 1),
        ("Y_2=-1", ["y_2 = - 1"], 0, 0),
        ("one\ntwo", ["one two"], 1, 1),
        ("", ["x"], 0, 0),
        ("anything", [""], 1, 1),
    ],
)
def test_edges(prediction: str, answers: list[str], text: int, formula: int) -> None:
    assert contains_text(prediction, answers) == text
    assert contains_formula(prediction, answers) == formula


_text = st.text(alphabet="aAb \n{}", max_size=8)


@settings(max_examples=300, deadline=None)
@given(_text, st.lists(_text, min_size=1, max_size=3))
def test_equals_the_plain_loop(prediction: str, answers: list[str]) -> None:
    assert contains_text(prediction, answers) == plain(prediction, answers, formula=False)
    assert contains_formula(prediction, answers) == plain(prediction, answers, formula=True)
