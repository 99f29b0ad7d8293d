"""The scorer of the DriveLM challenge (CVPR 2024): graph rule, matching, and metrics as sums of statistics.

The arithmetic is that of the challenge's evaluation.py (docs/tasks.md, DriveLM). Where that program
stops with an error, this one continues; docs/tasks.md lists the cases, and each is counted.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence

from evalkit.contracts import Record, Sample
from evalkit.judge import number
from evalkit.metrics.base import Select
from evalkit.task import JudgeQuestion, ParsedAnswer, record

ACCURACY, GPT, LANGUAGE, MATCH = 0, 1, 2, 3
#: A predicted point hits a reference point nearer than this (sum of both distances, pixels).
MATCH_DISTANCE = 16

GRAPH_RULE = "graph rule"

Point = tuple[float, float]

#: The challenge's `\d+\.\d+`. The lookbehind changes no match; it avoids a search from each digit.
_DECIMAL = re.compile(r"(?<!\d)\d+\.\d+")
_SYSTEM = "an evaluator who rates my answer based on the correct answer"
_REQUEST = (
    "Rate my answer based on the correct answer out of 100, with higher scores indicating that the answer is "
    "closer to the correct answer, and you should be accurate to single digits like 62, 78, 41,etc. Output "
    "the number only"
)


def points(text: str) -> tuple[list[Point], bool]:
    """Decimals of a text in pairs, and whether one is left over. Whole numbers and signs are not seen."""
    numbers = [float(decimal) for decimal in _DECIMAL.findall(text)]
    return list(zip(numbers[::2], numbers[1::2], strict=False)), len(numbers) % 2 == 1


def match(answer: str, reference: str) -> tuple[list[Point], float]:
    """Reference points that the answer finds, in its order, and the F1 of finding them (0 to 1).

    Greedy in the answer's order: each point takes the nearest reference point still free, the earlier one on
    a tie. Camera and class are not compared. A decimal left over on either side is dropped.
    """
    free = points(reference)[0]
    expected, given = len(free), points(answer)[0]
    found: list[Point] = []
    for x, y in given:
        nearest, shortest = -1, math.inf
        for position, (free_x, free_y) in enumerate(free):
            distance = abs(x - free_x) + abs(y - free_y)
            if distance < shortest:
                nearest, shortest = position, distance
        if shortest < MATCH_DISTANCE:
            found.append(free.pop(nearest))
    precision = len(found) / (len(given) + 1e-8)
    recall = len(found) / (expected + 1e-8)
    return found, 2 * precision * recall / (precision + recall + 1e-8)


def left_out(answers: Sequence[ParsedAnswer]) -> dict[str, str]:
    """Why an answer is not scored, by sample id; what is scored is not in it.

    The challenge's graph rule, frame by frame: the reference points that the frame's first answer found are
    what is known, and another question is scored only if all points it names are known. The reasons are
    `graph rule`, `first question unanswered` (or not asked) and `odd coordinates` (numbers that do not pair).
    """
    known: dict[str, set[Point]] = {}
    for answer in answers:
        sample = answer.sample
        if _is_first(sample) and _is_labelled(sample):
            known[sample.cluster] = set(match(answer.parsed, sample.target)[0])
    reasons = {
        answer.sample.id: _left_out(answer.sample.data["question"], known.get(answer.sample.cluster))
        for answer in answers
        if _is_labelled(answer.sample) and not _is_first(answer.sample)
    }
    return {name: why for name, why in reasons.items() if why is not None}


def judge_questions(answers: Sequence[ParsedAnswer]) -> dict[str, JudgeQuestion]:
    """What the challenge asks its judge about the answers of tags gpt and match that are scored."""
    out = left_out(answers)
    return {
        answer.sample.id: _judge_question(answer)
        for answer in answers
        if answer.sample.id not in out and _is_labelled(answer.sample) and _is_rated(answer.sample)
    }


def score_all(answers: Sequence[ParsedAnswer]) -> list[Record]:
    """The records; one that is left out says why in `data["left_out"]`, one without labels has no score."""
    out = left_out(answers)
    return [_record(answer, out.get(answer.sample.id)) for answer in answers]


def _record(answer: ParsedAnswer, why: str | None) -> Record:
    sample, labelled = answer.sample, _is_labelled(answer.sample)
    scores = {"left_out": 1.0} if why else {"left_out": 0.0, **_scores(answer)} if labelled else {}
    return record(
        sample,
        answer.response,
        prediction=answer.parsed,
        scores=scores,
        tags={"graph": "left out" if why else "scored"} if labelled else {},
        data={**sample.data, **({"left_out": why} if why else {}), **answer.judge_data()},
    )


def _is_first(sample: Sample) -> bool:
    """Whether a question is the first of its frame; ids end in the question's number."""
    return int(sample.id.rpartition("_")[2]) == 0


def _is_labelled(sample: Sample) -> bool:
    return isinstance(sample.target, str)


def _is_rated(sample: Sample) -> bool:
    tags = sample.data["tags"] or ()
    return GPT in tags or MATCH in tags


def _left_out(question: str, known: set[Point] | None) -> str | None:
    named, odd = points(question)
    if not named and not odd:
        return None
    if odd:
        return "odd coordinates"
    if known is None:
        return "first question unanswered"
    return None if known.issuperset(named) else GRAPH_RULE


def _scores(answer: ParsedAnswer) -> dict[str, float]:
    scores: dict[str, float] = {}
    sample, prediction = answer.sample, answer.parsed
    tags = sample.data["tags"] or ()
    if ACCURACY in tags:
        scores["accuracy"] = float(prediction == sample.target)
    if MATCH in tags:
        scores["match_f1"] = match(prediction, sample.target)[1]
    if answer.reply is not None:
        rating = number(answer.reply)
        scores["judge_failed"] = float(rating is None)
        if rating is not None:
            scores.update({name: rating for name, tag in _RATED if tag in tags})
    return scores


_RATED = (("chatgpt", GPT), ("match_chatgpt", MATCH))


def _judge_question(answer: ParsedAnswer) -> JudgeQuestion:
    truth = answer.sample.target
    asked = f"{_REQUEST}This is the correct answer: {truth}This is my answer: {answer.parsed}"
    return JudgeQuestion(_SYSTEM, asked, temperature=0.6, max_tokens=3000, numeric=True)


@functools.cache
def counts(tag: int) -> Select:
    """Selects the records that enter the values of a tag: answered, labelled, not left out."""
    return lambda r: of_kind(r, tag) and "left_out" not in r.data


def of_kind(item: Record, tag: int) -> bool:
    """Whether a record is answered, labelled and of the tag, left out or not."""
    return not item.failed and item.target is not None and tag in (item.data.get("tags") or ())
