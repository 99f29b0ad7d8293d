"""Rules for options against each scorer's procedure written out plainly, and every listed disagreement."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics.multiple_choice import first_capital, internvl_choice, lmms_choice, vlmevalkit_choice
from evalkit.metrics.words import collapse_spaces, word_lists

ANIMALS = {"A": "cat", "B": "dog", "C": "catfish", "D": "bird"}


def plain_internvl(text: str, options: dict[str, str]) -> str:
    text = text.strip()
    if text == "" or len(text) == 1:
        return text
    if text[0] in options:
        return text[0]
    for letter in options:
        if options[letter] in text:
            return letter
    return text


def plain_vlmevalkit(text: str, options: dict[str, str]) -> str | None:
    letter = plain_vlmevalkit_letter(text, options)
    if letter is not None:
        return letter
    lowered = text.lower()
    if len(lowered) > 2 * sum(len(option) for option in options.values()):
        return None
    inside = [letter for letter in options if options[letter].lower() in lowered]
    return inside[0] if len(inside) == 1 else None


def plain_vlmevalkit_letter(text: str, options: dict[str, str]) -> str | None:
    if "Failed to obtain answer via API" in text:
        return None
    for refusal in (
        "Sorry, I can't help with images of people yet.",
        "I can't process this file.",
        "I'm sorry, but without the image provided",
        "Cannot determine the answer",
    ):
        if refusal in text:
            return "Z"
    cleaned = text
    for mark in ".()[],:;!*#{}":
        cleaned = cleaned.replace(mark, " ")
    tokens = cleaned.split()
    there = [letter for letter in options if letter in tokens]
    if len(there) == 1:
        if tokens.index(there[0]) >= len(tokens) - 4:
            return there[0]
    elif not there and "Z" in tokens:
        return "Z"
    said = re.search(r"(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", text)
    return said.group(1).upper() if said and said.group(1).upper() in options else None


def plain_lmms(text: str, options: dict[str, str]) -> str | None:
    text = text.strip()
    letter = plain_lmms_letter(text)
    if letter is not None:
        return letter
    lowered = text.lower()
    inside = [letter for letter in "ABCD" if options.get(letter, "nan").lower() in lowered]
    return inside[0] if len(inside) == 1 else None


def plain_lmms_letter(text: str) -> str | None:
    tokens = text.split()
    there = [letter for letter in "ABCDE" if letter in tokens]
    if len(there) == 1 and not (there == ["A"] and len(tokens) > 3):
        return there[0]
    for form in ("X.", "X,", "X:", "X)", "X).", "(X)", "(X).", ":X", ":X,", ":X.", ":X)", ":X)."):
        there = [letter for letter in "ABCDE" if form.replace("X", letter) in tokens]
        if len(there) == 1:
            return there[0]
    return None


# prediction, InternVL, VLMEvalKit, lmms-eval (None: unresolved)
DISAGREEMENTS = [
    ("Answer: B", "A", "B", "B"),
    ("The answer is B.", "The answer is B.", "B", "B"),
    ("Dog", "D", "B", "B"),
    ("A dog is shown", "A", "A", "B"),
    ("catfish", "A", None, None),
    ("dog and bird", "B", None, None),
    ("Both", "B", None, None),
    ("Cannot determine the answer", "C", "Z", None),
    ("B, C", "B", None, "C"),
    ("**B**", "**B**", "B", None),
    ("b", "b", None, None),
    ("E", "E", None, "E"),
    ("(A)", "(A)", "A", "A"),
    ("", "", None, None),
]


@pytest.mark.parametrize(("text", "internvl", "vlmevalkit", "lmms"), DISAGREEMENTS)
def test_disagreements(text: str, internvl: str, vlmevalkit: str | None, lmms: str | None) -> None:
    assert internvl_choice(text, ANIMALS) == internvl
    assert vlmevalkit_choice(text, ANIMALS) == vlmevalkit
    assert lmms_choice(text, ANIMALS) == lmms


def test_the_server_resolves_what_internvl_leaves_whole() -> None:
    assert vlmevalkit_choice(internvl_choice("(A)", ANIMALS), ANIMALS) == "A"
    assert vlmevalkit_choice(internvl_choice("**B**", ANIMALS), ANIMALS) == "B"


def test_internvl_keeps_any_single_character_and_matches_case() -> None:
    assert internvl_choice(" ? ", ANIMALS) == "?"
    assert internvl_choice("the dog", ANIMALS) == "B"
    assert internvl_choice("the DOG", ANIMALS) == "the DOG"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B one two three", "B"),  # within the last four words
        ("B one two three four", None),
        ("one B two B three four five", None),  # the first place counts
        ("one two three B C", None),
        ("Z", "Z"),
        ("Z or B", "B"),
        ("The correct answer is c, because of many long words after it", "C"),
        ("I think the answer is **D** since nothing else can be so at all", "D"),
        ("the answer is E or something else that is long enough", None),
        ("Failed to obtain answer via API: dog", None),
        ("Failed to obtain answer via API: B", None),
    ],
)
def test_vlmevalkit_rules(text: str, expected: str | None) -> None:
    assert vlmevalkit_choice(text, {**ANIMALS, "D": "b"} if "API: B" in text else ANIMALS) == expected


def test_option_texts_are_found_without_case_and_only_in_short_answers() -> None:
    options = {"A": "New York", "B": "Paris"}
    assert vlmevalkit_choice("it is PARIS", options) == "B"
    assert vlmevalkit_choice("it is paris, " + "x" * 30, options) is None
    assert lmms_choice("it is paris, " + "x" * 30, {**options, "C": "Rome", "D": "Oslo"}) == "B"


def test_any_number_of_options() -> None:
    options = {letter: f"option {letter.lower()}" for letter in "ABCDEFGHIJ"}
    assert internvl_choice("J. so", options) == "J"
    assert vlmevalkit_choice("(J)", options) == "J"
    assert lmms_choice("(J)", options) is None  # lmms-eval knows five letters


@pytest.mark.parametrize("word", ["None", "NA", "null", "nan"])
def test_words_that_read_as_missing_are_options(word: str) -> None:
    options = {"A": "cat", "B": word}
    assert internvl_choice(f"it says {word}", options) == "B"
    assert vlmevalkit_choice(f"it says {word.upper()}", options) == "B"


def test_a_missing_option_is_the_text_nan_for_lmms() -> None:
    assert lmms_choice("banana", {"A": "apple", "B": "pear", "C": "plum"}) == "D"
    assert lmms_choice("banana", {"A": "apple", "B": "pear"}) is None  # C and D both


def test_an_article_is_no_letter_for_lmms() -> None:
    assert lmms_choice("A is it", ANIMALS) == "A"
    assert lmms_choice("A is it not", ANIMALS) is None
    assert lmms_choice("is it not B", ANIMALS) == "B"


_word = st.sampled_from(
    ["A", "B", "C", "D", "E", "Z", "A.", "(B)", ":C", "D).", "b", "cat", "Dog", "catfish", "answer is", "the",
     "answer", "is", "**B**", "nan", "correct", "E,", "Cannot determine the answer", "x" * 20]
)  # fmt: skip
_texts = st.one_of(
    st.lists(_word, max_size=8).map(" ".join), st.text(alphabet="ABCDZ abc.,:()*\n", max_size=20)
)
_options = st.dictionaries(
    st.sampled_from("ABCDEF"), st.sampled_from(["cat", "dog", "catfish", "nan", "B", "b c"]), min_size=1
).map(lambda found: dict(sorted(found.items())))


@settings(max_examples=250, deadline=None)
@given(_texts, _options)
def test_equal_the_plain_procedures(text: str, options: dict[str, str]) -> None:
    assert internvl_choice(text, options) == plain_internvl(text, options)
    assert vlmevalkit_choice(text, options) == plain_vlmevalkit(text, options)
    assert lmms_choice(text, options) == plain_lmms(text, options)


# MME-RealWorld ------------------------------------------------------------------------------------------

ALL_PREFIXES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option is", "The correct option is", "Best answer:", "Best option:",
)  # fmt: skip


def plain_capital(text: str, choices: list[str], prefixes: tuple[str, ...]) -> str:
    text = text.strip()
    for prefix in prefixes:
        text = text.replace(prefix, "")
    if len(text.split()) > 10 and not re.search("[ABCDE]", text):
        return ""
    found = re.search("[ABCDE]", text)
    if found is None:
        for choice in choices:
            if text.lower() in choice.lower():
                return choice[1]
        return ""
    return found[0]


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="ABEZ abgren.", max_size=30), st.sampled_from(["", "The answer is ", "Best answer: "])
)
def test_first_capital_equals_the_plain_procedure(text: str, start: str) -> None:
    choices = ["(A) Red", "(B) Green", "(C) Blue", "(D) Car", "(E) none"]
    expected = plain_capital(start + text, choices, ALL_PREFIXES)
    assert first_capital(start + text, choices, ALL_PREFIXES) == expected


# Absurd answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["A ", "word ", "x", "(B) ", "answer is "])
@pytest.mark.timeout(120)
def test_a_huge_answer_ends(unit: str) -> None:
    huge = unit * (2_000_000 // len(unit))
    assert internvl_choice(huge, ANIMALS) in (*ANIMALS, huge.strip())
    assert vlmevalkit_choice(huge, ANIMALS) in (None, *ANIMALS)
    assert lmms_choice(huge, ANIMALS) in (None, *ANIMALS)
    assert first_capital(huge, ["(A) Red"], ALL_PREFIXES) in ("", "A", "B")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab \t\n\x1c\u3000", max_size=40), st.integers(1, 5))
def test_words_in_pieces_are_the_words(text: str, piece: int) -> None:
    assert [word for words in word_lists(text, piece) for word in words] == text.split()
    assert collapse_spaces(text) == " ".join(text.split())
