"""Questions of every kind and answers to them, drawn with a fixed seed (make.py)."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping
from typing import Any

from answers import WORDS, answers_to

FORMULAS = "Handwritten Mathematical Expression Recognition"
QUESTIONS, ANSWERS = 40, 12


def choices(rng: random.Random, count: int | None = None) -> dict[str, str]:
    """Options by letter."""
    texts = rng.sample(WORDS, count or rng.choice((2, 3, 4, 4, 4, 5)))
    return dict(zip(string.ascii_uppercase, texts, strict=False))


Question = dict[str, Any]


def _question(
    number: int, target: Any, data: Mapping[str, Any], tags: Mapping[str, str] | None = None
) -> Question:
    return {"id": str(number), "target": target, "tags": dict(tags or {}), "data": dict(data)}


def draw_ai2d(rng: random.Random, number: int) -> Question:
    options = choices(rng)
    return _question(
        number, rng.choice(list(options)), {"options": options, "question": f"Which is it, {number}?"}
    )


def draw_mmmu(rng: random.Random, number: int) -> Question:
    if rng.random() < 0.6:
        return draw_ai2d(rng, number) | {
            "data": {**draw_ai2d(random.Random(number), number)["data"], "open": False}
        }
    answer = rng.choice([*WORDS, "B", "V"])
    data = {"options": {"A": answer, "B": "Other Answers"}, "question": f"How many, {number}?", "open": True}
    target = answer if answer in tuple(string.ascii_uppercase) else "A"
    return _question(number, target, {**data, "answers": [answer]})


def draw_mathvista(rng: random.Random, number: int) -> Question:
    kind = rng.choice(("text", "integer", "float", "list"))
    options = choices(rng) if kind == "text" else {}
    answer = (
        rng.choice(list(options)) if options else {"integer": "14", "float": "1.45", "list": "[1, 2]"}[kind]
    )
    return _question(number, answer, {"options": options, "answer": answer, "kind": kind, "query": "q"})


def draw_mmbench(rng: random.Random, number: int) -> Question:
    copy_of, base = divmod(number, 8)
    options = choices(random.Random(base), random.Random(base).choice((2, 3, 4, 5)))
    turned = list(options.values())
    turned = turned[copy_of % len(turned) :] + turned[: copy_of % len(turned)]
    index = copy_of * 10**6 + base
    options = dict(zip(string.ascii_uppercase, turned, strict=False))
    data = {"index": index, "options": options, "question": f"Which is it, {number}?"}
    return _question(index, rng.choice(list(options)), data, {"category": f"c{base % 2}", "l2-category": "l"})


def draw_mme(rng: random.Random, number: int) -> Question:
    shown = [f"({letter}) {text}" for letter, text in choices(rng, 5).items()]
    tags = {"Task": rng.choice(("Perception", "Reasoning")), "Category": rng.choice(("Objects", "Attention"))}
    return _question(number, rng.choice("ABCDE"), {"choices": shown}, tags)


def draw_chartqa(rng: random.Random, number: int) -> Question:
    target = rng.choice([*WORDS, "[2012, 2013]", "['yes', 'no']", "[Yes, No]", "100", "0.5", "-3", "1e3"])
    return _question(number, [target], {}, {"subset": ("human", "augmented")[number % 2]})


def draw_page(rng: random.Random, number: int) -> Question:
    return _question(
        number,
        [rng.choice(WORDS) + rng.choice(("", "", " Inc.", "  (b)")) for _ in range(rng.choice((1, 2, 3)))],
        {},
    )


def draw_textvqa(rng: random.Random, number: int) -> Question:
    said = rng.sample(
        [*WORDS, "St. Mary's", "no. 5", "5.", "1.", "coca-cola", "let's go", "she's", "Im", "Id've"], 4
    )
    return _question(number, [rng.choice(said) for _ in range(10)], {})


def draw_ocrbench(rng: random.Random, number: int) -> Question:
    kind = rng.choice(
        (FORMULAS, "Regular Text Recognition", "Scene Text-centric VQA", "Key Information Extraction")
    )
    target = ["\\frac { 1 } { 2 }\n", "Y _ 1"] if kind == FORMULAS else rng.sample(WORDS, rng.choice((1, 2)))
    return _question(number, target, {}, {"type": kind})


def draw_rsvqa_hr(rng: random.Random, number: int) -> Question:
    return draw_rsvqa(rng, number, ("count", "area", "area", "presence", "comp"))


def draw_rsvqa(
    rng: random.Random,
    number: int,
    kinds: tuple[str, ...] = ("count", "area", "presence", "comp", "rural_urban"),
) -> Question:
    kind = rng.choice(kinds)
    target = {
        "count": rng.choice(("0", "7", "100", "101", "2000")),
        "area": rng.choice(("0m2", "12m2", "122m2", "5000m2")),
    }
    return _question(
        number, target.get(kind, rng.choice(("yes", "no", "rural", "urban"))), {}, {"type": kind}
    )


def draw_dior(rng: random.Random, number: int) -> Question:
    left, top = rng.randint(0, 500), rng.randint(0, 500)
    target = [float(left), float(top), float(left + rng.randint(2, 299)), float(top + rng.randint(2, 299))]
    return _question(number, target, {"size": [800, 800]})


def boxes(question: Question, rng: random.Random) -> str:
    """An answer that is a box, near the target or not, in some notation."""
    shift = rng.choice((0, 0, 3, 10, 40, 90))
    numbers = [round(value / 800 * 1000) + rng.choice((0, shift, -shift)) for value in question["target"]]
    if rng.random() < 0.1:
        numbers = [number / 1000 for number in numbers]
    inner = ", ".join(map(str, numbers))
    forms = (
        "[[{}]]",
        "<box>[[{}]]</box>",
        "[{}]",
        "[[{}], [1, 2, 3, 4]]",
        "[[{}, 7]]",
        "{}",
        "<ref>it</ref><box>[[{}]]</box>",
    )
    more = (
        "box [[{}]] and [[1, 2, 3, 4]]",
        "[[ {} ]]",
        "[[[{}]]]",
        "[[{}",
        "<think>[[1,2,3,4]]</think>[[{}]]",
        "[[a, {}]]",
    )
    return rng.choice((*forms, *forms[:2], *more)).format(inner)


Pair = tuple[Question, str]


def right_answers(question: Question) -> list[str]:
    target, options = question["target"], question["data"].get("options") or {}
    if isinstance(target, list):
        return [str(item) for item in target]
    return [target, target, options[target]] if target in options else [str(target)]


def drawn_pairs(name: str, draw: Callable[[random.Random, int], Question]) -> list[Pair]:
    """Questions, each with answers."""
    rng = random.Random(name)
    questions = [draw(rng, number) for number in range(QUESTIONS if name != "mmbench" else 24)]
    pairs: list[Pair] = []
    for place in range(ANSWERS if name != "mmbench" else 40):
        for question in questions:
            others = [
                *right_answers(rng.choice(questions)),
                *(question["data"].get("options") or {}).values(),
                *"ABCDE",
            ]
            if name == "dior-rsvg":
                text = boxes(question, rng)
            elif name == "mmbench" and rng.random() < 0.6:
                text = rng.choice((question["target"], f"{question['target']}.", f"({question['target']})"))
            else:
                text = next(answers_to(right_answers(question), others, rng))
            pairs.append(({**question, "round": str(place)}, text))
    return pairs
