"""Relaxed accuracy against each scorer's formula written out plainly, and every listed disagreement."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics.relaxed_accuracy import internvl_relaxed, lmms_relaxed, to_number, vlmevalkit_relaxed


def plain_relaxed(target: str, prediction: str) -> bool:
    """pix2struct's function with its declared argument order."""

    def number(text: str) -> float | None:
        try:
            return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
        except ValueError:
            return None

    p, t = number(prediction), number(target)
    if p is not None and t:
        return abs(p - t) / abs(t) <= 0.05
    return prediction.lower() == target.lower()


def plain_internvl(prediction: str, annotation: str) -> bool:
    """InternVL calls it with the prediction in the target's place."""
    return plain_relaxed(prediction.strip(), annotation)


def plain_vlmevalkit(prediction: str, annotation: str) -> bool:
    try:
        value = ast.literal_eval(annotation)
        answers = [str(item) for item in value] if isinstance(value, list) else [annotation]
    except (ValueError, SyntaxError, TypeError, MemoryError):
        answers = [annotation]
    return any(plain_relaxed(answer, prediction.strip()) for answer in answers)


# truth, prediction, InternVL, VLMEvalKit, lmms-eval
DISAGREEMENTS = [
    ("100", "105.2", 1, 0, 0),
    ("100", "95", 0, 1, 1),
    ("100", "95.1", 0, 1, 1),
    ("Yes", " yes ", 1, 1, 0),
    ("Yes", "yes\n", 1, 1, 0),
    ("[2012, 2013]", "2012", 0, 1, 0),
    ("[2012, 2013]", "[2012, 2013]", 1, 0, 1),
]
AGREEMENTS = [
    ("0", "0.0", 0),
    ("0", "0%", 0),
    (".5", "50%", 1),
    ("50", "50%", 0),
    ("2015", "1950", 1),
    ("2015", "2100", 1),
    ("1000", "1,000", 0),
    ("$5", "5", 0),
    ("Yes", "yes.", 0),
    ("nan", "nan", 0),
    ("", "", 1),
    ("5", "0", 0),
    ("1e3", "1000", 1),
]


@pytest.mark.parametrize(("truth", "prediction", "internvl", "vlmevalkit", "lmms"), DISAGREEMENTS)
def test_disagreements(truth: str, prediction: str, internvl: int, vlmevalkit: int, lmms: int) -> None:
    assert internvl_relaxed(prediction, [truth]) == internvl
    assert vlmevalkit_relaxed(prediction, [truth]) == vlmevalkit
    assert lmms_relaxed(prediction, [truth]) == lmms


@pytest.mark.parametrize(("truth", "prediction", "expected"), AGREEMENTS)
def test_agreements(truth: str, prediction: str, expected: int) -> None:
    for scorer in (internvl_relaxed, vlmevalkit_relaxed, lmms_relaxed):
        assert scorer(prediction, [truth]) == expected


def test_the_reference_is_not_stripped_but_the_prediction_is() -> None:
    assert internvl_relaxed(" yes ", ["yes "]) == 0
    assert internvl_relaxed("yes", [" yes"]) == 0


def test_the_best_of_several_references_counts() -> None:
    assert internvl_relaxed("b", ["a", "B"]) == 1


def test_words_in_brackets_are_no_list() -> None:
    assert vlmevalkit_relaxed("Cape Verde", ["[Cape Verde, United Kingdom]"]) == 0
    assert vlmevalkit_relaxed("[cape verde, united kingdom]", ["[Cape Verde, United Kingdom]"]) == 1
    assert vlmevalkit_relaxed("x", ["[" * 3000]) == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("1_000", 1000.0), (" 7 ", 7.0), ("5%", 0.05), ("5%%", 0.05), ("+1e2", 100.0), ("inf", float("inf"))],
)
def test_numbers_are_those_of_python(text: str, value: float) -> None:
    assert to_number(text) == value


@pytest.mark.parametrize("text", ["", "%", "1,000", "$5", "5 %x", "twelve", "0x10"])
def test_no_number(text: str) -> None:
    assert to_number(text) is None


def test_infinities_and_not_a_number() -> None:
    assert internvl_relaxed("inf", ["inf"]) == 0  # inf - inf is nan, and nan <= .05 is false
    assert internvl_relaxed("inf", ["5"]) == 0
    assert internvl_relaxed("5", ["nan"]) == 0


_numbers = st.one_of(
    st.floats(-200, 200).map(lambda x: f"{x:.3g}"),
    st.integers(-100, 2100).map(str),
    st.integers(0, 200).map(lambda x: f"{x}%"),
    st.sampled_from(["0", "0.0", "-0", "nan", "inf", "Yes", "no ", "", "[1, 2]", "['a', 2]", "[a]", "1_0"]),
)


@settings(max_examples=400, deadline=None)
@given(_numbers, _numbers, st.sampled_from(["", " ", "\n"]))
def test_equals_the_plain_formulas(truth: str, prediction: str, pad: str) -> None:
    given_answer = pad + prediction + pad
    assert internvl_relaxed(given_answer, [truth]) == plain_internvl(given_answer, truth)
    assert vlmevalkit_relaxed(given_answer, [truth]) == plain_vlmevalkit(given_answer, truth)
    assert lmms_relaxed(given_answer, [truth]) == plain_relaxed(truth, given_answer)


@pytest.mark.parametrize(
    "huge", ["9" * 20_000_000, "0." + "1" * 20_000_000, "%" * 20_000_000, "x " * 10_000_000]
)
@pytest.mark.timeout(120)
def test_a_huge_answer_ends(huge: str) -> None:
    for scorer in (internvl_relaxed, vlmevalkit_relaxed, lmms_relaxed):
        assert scorer(huge, ["14"]) == 0
