"""Answers in every dressing, drawn (make.py)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

WORDS = (
    *[
        "cat",
        "dog",
        "bird",
        "sun",
        "moon",
        "star",
        "red",
        "green",
        "blue",
        "river",
        "stop",
        "exit",
        "12",
        "7",
        "3.5",
        "2015",
        "0",
        "100",
        "1,000",
        "50%",
        "$5",
        "yes",
        "no",
    ],
    *("the red car", "a", "an apple", "none", "nan", "None", "Joe's", "don't", "dont know", "two", "3rd St."),
    *(
        "猫",
        "红色",
        "три",
        "нет",
        "קר",
        "نعم",
        "ｃａｔ",
        "１２",
        "é",
        "e\u0301",
        "naïve",
        "ß",
        "İ",
        "ﬁn",
        "🚗",
    ),
    *(
        "x^2",
        "\\frac{1}{2}",
        "y _ 1",
        "U.S.A.",
        "10:30",
        "-4",
        "1e3",
        "0.5m2",
        "New York City",
        "all of these",
    ),
)
REASONING = (
    "<think>{other}</think>{text}",
    "<think>\nIt is {other}.\n</think>\n\n{text}",
    "<analysis>{other}</analysis> {text}",
    "<think>a</think><analysis>{other}</analysis>{text}",
    "{other}</think>{text}",
    "{other}</think>{other}</think> {text}",
    "<think>{other} {text}",
    "{text}<think>{other}</think>",
    "<THINK>{other}</THINK>{text}",
    "<thinking>{other}</thinking>{text}",
    "<think><think>{other}</think></think>{text}",
    "</think>{text}<think>",
    "<think>{other}</think><answer>{text}</answer>",
)
DRESSINGS = (
    *(
        "{text}.",
        "({text})",
        "{text})",
        "({text}",
        "[{text}]",
        "**{text}**",
        "{text}:",
        "{text},",
        "{text}. {other}",
    ),
    *(
        "{text}: {other}",
        "({text}) {other}",
        "Answer: {text}",
        "The answer is {text}.",
        "the answer is **{text}**",
    ),
    *(
        "The best answer is {text}",
        "Best answer:{text}",
        "The correct option is {text}.",
        "Option {text}",
        "It is {text}",
    ),
    *(
        "  {text}\n",
        "\n\n{text}",
        "\t{text}",
        "{text}\u3000",
        "{text} {other}",
        "{other} {text}",
        "{text} or {other}",
    ),
    *(
        "I think that it is {text}, not {other}",
        "\\boxed{{{text}}}",
        "$\\boxed{{{text}}}$",
        '"{text}"',
        "'{text}'",
    ),
    *("<answer>{text}</answer>", "<answer> {text}\n</answer> not {other}", "{other} <answer>{text}</answer>"),
    *(
        "<answer>{text}",
        "<answer></answer>{text}",
        "[[12, 30, 400, 500]] {text}",
        "答案是{text}。",
        "答案：{text}",
    ),
    *(
        "A {text} is shown",
        "{text} is shown in the image, as one can see from the colours",
        "#{text}#",
        "{text}!",
        "{text}%",
    ),
    *(
        "{text} units",
        "{text}{text}",
        "Sorry, I can't help with images of people yet. {text}",
        "Z {text}",
        "{text} Z",
    ),
    *(
        "Cannot determine the answer {text}",
        "Failed to obtain answer via API. {text}",
        "Answer is not {other} but {text}",
    ),
)
ODD = (
    *(
        "",
        " ",
        "\n",
        ".",
        "Z",
        "E",
        "nan",
        "none",
        "None",
        "A B",
        "A, B and D",
        "AB",
        "b",
        "b)",
        "(C)",
        "Ｃ",
        "Ａ.",
        "а",
        "α",
    ),
    *(
        "I cannot tell.",
        "[]",
        "{}",
        "[1, 2]",
        "['cat', 'dog']",
        "inf",
        "-0",
        "1_000",
        "１２",
        "五",
        "<think></think>",
    ),
    *(
        "<think>",
        "</think>",
        "<analysis></analysis>",
        "<answer></answer>",
        "a man rides a horse on a beach at sunset",
    ),
    *(
        "word " * 30,
        "A" * 60,
        "yes no",
        "the",
        "a an the",
        "\ufeffA",
        "A\u200b",
        "\xa0A\xa0",
        "A.B.C.",
        "A.cat",
        "a. cat",
    ),
)
NUMBERS = (1.04, 1.05, 1.06, 0.96, 0.95, 0.94, 100, 0.01)
CAPTIONS = ("{text} on a table", "there is {text} in the picture", "a photo of {text} and {other}")


def answers_to(right: Sequence[str], others: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Answers without end: right or not, in every dressing."""
    while True:
        kind, text, other = rng.random(), rng.choice(right), rng.choice(others)
        if rng.random() < 0.35:
            text, other = other, text
        if rng.random() < 0.15:
            text = rng.choice((text.lower(), text.upper(), text.capitalize(), text.title()))
        if kind < 0.15:
            yield text
        elif kind < 0.35:
            inner = rng.choice(DRESSINGS).format(text=text, other=other) if rng.random() < 0.4 else text
            yield rng.choice(REASONING).format(text=inner, other=other)
        elif kind < 0.75:
            yield rng.choice(DRESSINGS).format(text=text, other=other)
        elif kind < 0.8:
            yield rng.choice(CAPTIONS).format(text=text, other=other)
        elif kind < 0.88:
            yield _number(text, rng)
        else:
            yield rng.choice(ODD)


def _number(text: str, rng: random.Random) -> str:
    try:
        return f"{float(text.rstrip('%')) * rng.choice(NUMBERS):.4g}{rng.choice(('', '', '%', '.0'))}"
    except ValueError:
        return text[: rng.randint(0, len(text))]
