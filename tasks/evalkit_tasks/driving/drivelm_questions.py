"""DriveLM's test questions out of its training annotations, by the challenge's own rules.

`extract` does what the challenge's extract_data.py does to a frame (which questions are asked, and with
which tag), `offer_choices` what its convert_data.py does (two kinds of questions become multiple choice).
The challenge draws the choices without a seed. Here the sample's id decides them, so a question is the same
on every machine (but differs from the official file's).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evalkit.files import fields, text_of

#: Question types in the order in which a frame's questions are numbered.
KINDS = ("perception", "prediction", "planning", "behavior")
#: What each tag of the challenge is scored by.
TAG_NAMES: Mapping[int, str] = {0: "accuracy", 1: "gpt", 2: "language", 3: "match"}

MOVING_STATUS = "what is the moving status of object"
_PLANNING = ("what actions could the ego vehicle take", "lead to a collision", "safe actions")
_MOVING_CHOICES = (
    "Going ahead.",
    "Turn right.",
    "Turn left.",
    "Stopped.",
    "Back up.",
    "Reverse parking.",
    "Drive backward.",
)
_STEERING = (
    "slightly steering to the left",
    "steering to the left",
    "going straight",
    "steering to the right",
    "slightly steering to the right",
)
_SPEED = ("driving very fast", "driving fast", "driving with normal speed", "driving slowly")
_BEHAVIOUR_CHOICES = tuple(
    f"The ego vehicle is {steering}. The ego vehicle is {speed}."
    for steering in _STEERING
    for speed in _SPEED
)
_BEHAVIOUR_CHOICES += ("The ego vehicle is going straight. The ego vehicle is not moving.",)


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a frame.

    Attributes:
        kind: one of `KINDS`. answer: None where it is not public.
        tags: keys of `TAG_NAMES`; None where they are not public.
        odd_choice: the answer is none of the choices that the challenge knows (its code stops at that).
    """

    kind: str
    question: str
    answer: str | None
    tags: tuple[int, ...] | None
    odd_choice: bool = False


def extract(frame: Mapping[str, Any], where: str) -> list[Question]:
    """The test questions of an annotated frame, in the order of their numbers, with their tags.

    A question can fill two slots; then it is asked twice, and both carry the tag of the later slot (the
    challenge writes the tag into the one object that both slots share).

    Raises:
        DataError: malformed annotations, naming `where`.
    """
    fields(frame, ("key_object_infos", "QA"), where)
    found: list[Question] = []
    for kind in KINDS:
        pairs = [fields(pair, ("Q", "A"), f"{where} {kind}") for pair in frame["QA"].get(kind, ())]
        place = f"{where} {kind}"
        asked = [(text_of(pair, "Q", place), text_of(pair, "A", place)) for pair in pairs]
        slots = list(_slots(kind, asked, frame["key_object_infos"]))
        tag_of = dict(slots)
        found += [Question(kind, *asked[position], (tag_of[position],)) for position, _ in slots]
    return found


def _slots(
    kind: str, asked: Sequence[tuple[str, str]], objects: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[int, int]]:
    """(position in `asked`, tag) of each slot that is filled, in the order of the challenge's file."""

    def first(tag: int, fits: Callable[[str, str], bool]) -> Iterator[tuple[int, int]]:
        for position, (question, answer) in enumerate(asked):
            if fits(question.lower(), answer.lower()):
                yield position, tag
                return

    if kind == "perception":
        classes = [str(known["Visual_description"]).split(".")[0].lower() for known in objects.values()]
        yield from first(2, lambda _, answer: all(name in answer for name in classes))
        yield from first(0, lambda question, _: MOVING_STATUS in question)
    elif kind == "prediction":
        places = [place.lower() for place in objects]
        yield from first(3, lambda _, answer: all(place in answer for place in places))
        # Substrings: "none" and "notice" are taken for a "no".
        yield from first(0, lambda _, answer: "yes" in answer or "no" in answer)
    elif kind == "planning":
        missing = list(_PLANNING)
        for position, (question, _) in enumerate(asked):
            for phrase in [phrase for phrase in missing if phrase in question.lower()]:
                missing.remove(phrase)
                yield position, 1
    else:
        yield from ((position, 0) for position in range(len(asked)))


def offer_choices(question: Question, sample_id: str) -> Question:
    """A question about an object's moving status or the ego vehicle's behaviour as multiple choice.

    Its answer becomes the letter. Other questions stay as they are.
    """
    if question.kind == "behavior":
        known = _BEHAVIOUR_CHOICES
    elif question.kind == "perception" and MOVING_STATUS in question.question.lower():
        known = _MOVING_CHOICES
    else:
        return question
    answer = question.answer
    assert answer is not None

    def order(purpose: str, texts: Sequence[str]) -> list[str]:
        key = f"{sample_id} {purpose} "
        return sorted(texts, key=lambda text: hashlib.sha256((key + text).encode()).digest())

    others = order("pick", [choice for choice in known if choice != answer])[:3]
    choices = order("place", [answer, *others])
    listed = " ".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=True))
    return replace(
        question,
        question=f"{question.question} Please select the correct answer from the following options: {listed}",
        answer="ABCD"[choices.index(answer)],
        odd_choice=answer not in known,
    )
