"""The scorer of the DriveLM challenge (CVPR 2024): graph rule, matching, and metrics as sums of statistics.

The arithmetic is that of the challenge's evaluation.py (protocols.md section 4, "Scorer"); where that program
stops with an error, this one goes on in a way that is counted and documented (docs/tasks.md).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from evalkit.contracts import Record
from evalkit.judge import FAILURE, REPLY, number
from evalkit.metrics.base import Select
from evalkit.task import JudgeQuestion

ACCURACY, GPT, LANGUAGE, MATCH = 0, 1, 2, 3
#: A predicted point hits a reference point nearer than this (sum of both distances, pixels).
MATCH_DISTANCE = 16

GRAPH_RULE = "graph rule"

Point = tuple[float, float]

#: The challenge's `\d+\.\d+`; looking behind finds the same, without a search from every digit of a long run.
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


def position(record: Record) -> int:
    """Number of the question in its frame."""
    return int(record.id.rpartition("_")[2])


def relate(records: Sequence[Record]) -> list[Record]:
    """Apply the graph rule frame by frame and score what passes it; the same when applied again.

    The reference points that the frame's first answer found are what is known. Another question is scored
    only if all points it names are known. What is not scored says why in `data["left_out"]`: `graph rule`,
    `first question unanswered` (or not asked), `odd coordinates` (the question's numbers do not pair).
    """
    known: dict[str, set[Point]] = {}
    for record in records:
        if position(record) == 0 and not record.failed and isinstance(record.target, str):
            known[record.cluster] = set(match(record.prediction, record.target)[0])
    return [_related(record, known.get(record.cluster)) for record in records]


def _related(record: Record, known: set[Point] | None) -> Record:
    if record.failed or not isinstance(record.target, str):
        return record
    data = {key: value for key, value in record.data.items() if key != "left_out"}
    why = None if position(record) == 0 else _left_out(data["question"], known)
    if why is not None:
        data["left_out"] = why
    scores = {"left_out": 1.0} if why else {"left_out": 0.0, **_scores(record)}
    tags = {**record.tags, "graph": "left out" if why else "scored"}
    return dataclasses.replace(record, data=data, scores=scores, tags=tags)


def _left_out(question: str, known: set[Point] | None) -> str | None:
    named, odd = points(question)
    if not named and not odd:
        return None
    if odd:
        return "odd coordinates"
    if known is None:
        return "first question unanswered"
    return None if known.issuperset(named) else GRAPH_RULE


def _scores(record: Record) -> dict[str, float]:
    scores: dict[str, float] = {}
    tags = record.data["tags"] or ()
    if ACCURACY in tags:
        scores["accuracy"] = float(record.prediction == record.target)
    if MATCH in tags:
        scores["match_f1"] = match(record.prediction, record.target)[1]
    if (GPT in tags or MATCH in tags) and (REPLY in record.data or FAILURE in record.data):
        rating = number(record.data.get(REPLY))
        scores["judge_failed"] = float(rating is None)
        if rating is not None:
            scores.update({name: rating for name, tag in _RATED if tag in tags})
    return scores


_RATED = (("chatgpt", GPT), ("match_chatgpt", MATCH))


def judge_question(record: Record) -> JudgeQuestion | None:
    """What the challenge asks its judge about a record that is scored by the judge."""
    if not (counts(GPT)(record) or counts(MATCH)(record)):
        return None
    asked = f"{_REQUEST}This is the correct answer: {record.target}This is my answer: {record.prediction}"
    return JudgeQuestion(_SYSTEM, asked, temperature=0.6, max_tokens=3000, numeric=True)


def counts(tag: int) -> Select:
    """Selects the records that enter the figures of a tag: answered, labelled, not left out."""

    def select(record: Record) -> bool:
        return of_kind(record, tag) and "left_out" not in record.data

    return select


def of_kind(record: Record, tag: int) -> bool:
    """Whether a record is answered, labelled and of the tag, left out or not."""
    return not record.failed and record.target is not None and tag in (record.data.get("tags") or ())
