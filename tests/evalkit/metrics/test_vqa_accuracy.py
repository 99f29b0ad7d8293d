"""VQA accuracy against the published evaluators' steps written out plainly."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics.vqa_accuracy import textvqa_accuracy, textvqa_process, vqa_accuracy, vqa_process

NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
#: A part of the published table, of every shape it has.
CONTRACTIONS = {
    "aint": "ain't", "dont": "don't", "couldn'tve": "couldn't've", "couldnt've": "couldn't've", "hes": "he's",
    "hed've": "he'd've", "he'dve": "he'd've", "itll": "it'll", "maam": "ma'am", "oclock": "o'clock",
    "ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at", "somebody'd": "somebodyd",
    "somebodyd've": "somebody'd've", "somethingd've": "something'd've", "therere": "there're",
    "twas": "'twas", "wont": "won't", "yall": "y'all", "yall'll": "y'all'll", "y'allll": "y'all'll",
    "yall'd've": "y'all'd've", "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've", "youve": "you've",
}  # fmt: skip


MISSPELT = r"(?!<=\d)(\.)(?!\d)"


def plain_process(text: str, period: str = r"(?<!\d)\.(?!\d)") -> str:
    text = text.replace("\n", " ").replace("\t", " ").strip()
    out = text
    for mark in [*';/[]"{}()=+\\_-><@`,?!']:
        if mark + " " in text or " " + mark in text or re.search(r"(\d)(,)(\d)", text):
            out = out.replace(mark, "")
        else:
            out = out.replace(mark, " ")
    out = re.sub(period, "", out, count=32)
    words = [NUMBERS.get(word, word) for word in out.lower().split()]
    words = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(CONTRACTIONS.get(word, word) for word in words)


def plain_textvqa_process(text: str) -> str:
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return plain_process(text, MISSPELT)


def plain_accuracy(answer: str, references: list[str]) -> float:
    scores = []
    for left_out in range(len(references)):
        others = [text for place, text in enumerate(references) if place != left_out]
        scores.append(min(1, sum(text == answer for text in others) / 3))
    return sum(scores) / len(scores)


_pieces = ["The", "a", "dog", "two", "none", "1,000", "3.5", "end.", "dont", "he's", "it's", "-", "x-y",
           "(ok)", "y'allll", "ow's'at", "?", ",", "\n", "...", "o'clock", "U.S.", "10", "ten"]  # fmt: skip
_texts = st.one_of(
    st.lists(st.sampled_from(_pieces), max_size=6).map(" ".join),
    st.lists(st.sampled_from(_pieces), max_size=4).map("".join),
    st.text(alphabet="aT1,.-?!' \n;", max_size=15),
)


@settings(max_examples=400, deadline=None)
@given(_texts)
def test_processing_equals_the_published_steps(text: str) -> None:
    assert vqa_process(text) == plain_process(text)
    assert textvqa_process(text) == plain_textvqa_process(text)


@settings(max_examples=200, deadline=None)
@given(_texts, st.lists(st.sampled_from(["dog", "a dog", "two", "2", "Dog.", ""]), min_size=10, max_size=10))
def test_accuracy_equals_the_published_formula(text: str, references: list[str]) -> None:
    expected = plain_accuracy(plain_textvqa_process(text), [plain_textvqa_process(r) for r in references])
    assert textvqa_accuracy(text, references) == pytest.approx(expected, abs=1e-9)
    expected = plain_accuracy(plain_process(text), [plain_process(r) for r in references])
    assert vqa_accuracy(text, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("contracted", "full"), CONTRACTIONS.items())
def test_contractions(contracted: str, full: str) -> None:
    assert vqa_process(contracted) == full


@pytest.mark.parametrize(
    ("agreeing", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_agreement_of_ten(agreeing: int, expected: float) -> None:
    references = ["yes"] * agreeing + [f"other {i}" for i in range(10 - agreeing)]
    assert textvqa_accuracy("Yes", references) == pytest.approx(expected, abs=1e-12)


def test_the_evaluators_differ() -> None:
    assert textvqa_process("Joe's") == "joe 's"
    assert vqa_process("Joe's") == "joe's"
    assert (textvqa_process("5."), vqa_process("5.")) == ("5", "5.")


def test_only_the_first_periods_are_dropped() -> None:
    assert vqa_process("." * 40) == "." * 8


@pytest.mark.parametrize("unit", ["the ", "ab ", "x", "1,2 "])
@pytest.mark.timeout(120)
def test_a_huge_answer_ends(unit: str) -> None:
    assert textvqa_accuracy(unit * (2_000_000 // len(unit)), ["yes"] * 10) == 0
