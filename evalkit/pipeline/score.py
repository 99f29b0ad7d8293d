"""From stored responses to records: the task scores, a judge may be asked, nothing is generated."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ParamSpec, Protocol, TypeVar

from evalkit.answers import ParsedAnswer, failed_record
from evalkit.contracts import Failure, Flag, Record, Response, Sample
from evalkit.earlier_tasks import scores_failures
from evalkit.errors import EvalkitError, TaskError
from evalkit.near_miss import NEAR_MISS, OtherForm, better, corrected, is_wrong
from evalkit.reasoning import CUT, REASONING, ReasoningMode, as_scored, cut_while_thinking
from evalkit.store import Scored, StoredResponse, image_key, image_reference
from evalkit.task import JudgeQuestion, Task

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Asks(Protocol):
    """What scoring needs of a judge (evalkit.judge)."""

    def replies(self, questions: Mapping[str, JudgeQuestion]) -> Iterator[tuple[str, str | Failure]]:
        """The reply, or why there is none, for each question by its id, in any order."""
        ...


def score(
    task: Task,
    samples: Sequence[Sample],
    responses: Mapping[str, StoredResponse],
    judge: Asks | None = None,
    reasoning: ReasoningMode = "auto",
) -> list[Scored]:
    """Score every sample that has a response, in sample order.

    Args:
        reasoning: whether reasoning in an answer is scored with it.

    Raises:
        TaskError: the task's own code fails on an answer.
        JudgeError: the judge cannot be reached at all.
    """
    answered = [(sample, responses[sample.id]) for sample in samples if sample.id in responses]
    asked = [(sample, _filtered(task, stored.response)) for sample, stored in answered]
    asked = [(sample, as_scored(each, reasoning, task.strips_reasoning)) for sample, each in asked]
    records = _with_near_misses(task, asked, _records(task, asked, judge))
    records = [_with_reasoning(*each) for each in zip(records, asked, strict=True)]
    shown = _Shown()
    return [
        Scored(
            record,
            stored.response,
            stored.request_key,
            sample.turns[-1] if sample.turns else "",
            *shown(sample),
        )
        for record, (sample, stored) in zip(records, answered, strict=True)
    ]


class _Shown:
    """Where a sample's images are, and their content hash; found once for samples that share them."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[tuple[str, ...], str]] = {}

    def __call__(self, sample: Sample) -> tuple[tuple[str, ...], str]:
        handles = tuple(map(id, sample.images))  # the samples outlive this
        if handles not in self._known:
            places = tuple(name for image in sample.images for name in image_reference(image))
            self._known[handles] = places, image_key(sample.images)
        return self._known[handles]


def _with_reasoning(record: Record, asked: tuple[Sample, Response]) -> Record:
    response, more = asked[1], {}
    if response.reasoning:
        more[REASONING] = response.reasoning
    if cut_while_thinking(response):
        more[CUT] = REASONING
    return dataclasses.replace(record, data={**record.data, **more}) if more else record


def _filtered(task: Task, response: Response) -> Response:
    if response.error is not None:
        return response
    text = _guarded(task, "filtered() fails", task.filtered, response.text)
    return response if text == response.text else dataclasses.replace(response, text=text)


def _records(task: Task, asked: Sequence[tuple[Sample, Response]], judge: Asks | None) -> list[Record]:
    """Parse, judge, score: each step once. Samples without an answer pass by."""
    with_failures = scores_failures(task)
    answers = [_parsed(task, *each) for each in asked if with_failures or each[1].error is None]
    if judge is not None:
        questions = _guarded(task, "judge_questions() fails", task.judge_questions, answers)
        replies = _ask(judge, questions)
        answers = [dataclasses.replace(answer, reply=replies.get(answer.sample.id)) for answer in answers]
    scored = iter(_score_all(task, answers))
    return [
        next(scored) if with_failures or response.error is None else failed_record(sample, response)
        for sample, response in asked
    ]


def _with_near_misses(
    task: Task, asked: Sequence[tuple[Sample, Response]], records: Sequence[Record]
) -> list[Record]:
    """The records; those wrong for the form of their answers alone have the flag and the kind.

    The task's own rule decides: an answer is a near miss only if it scores better in another form.
    """
    names = task.exact_scores
    found: dict[int, OtherForm] = {}
    for place, ((sample, response), record) in enumerate(zip(asked, records, strict=True)):
        if sample.target is None or record.failed or not is_wrong(record.scores, names):
            continue
        if (other := corrected(response.text, sample)) is not None:
            found[place] = other
    flagged = list(records)
    for place, record in _rescored(task, asked, found):
        if better(records[place], record, names, found[place].equal):
            data = {**records[place].data, NEAR_MISS: " + ".join(found[place].kinds)}
            flags: tuple[Flag, ...] = (*records[place].flags, NEAR_MISS)
            flagged[place] = dataclasses.replace(records[place], flags=flags, data=data)
    return flagged


def _rescored(
    task: Task, asked: Sequence[tuple[Sample, Response]], others: Mapping[int, OtherForm]
) -> Iterator[tuple[int, Record]]:
    """Records of the answers at these places in another form, without a judge."""
    if not others:
        return
    alone = type(task).score_all is Task.score_all
    places = list(others) if alone else range(len(asked))
    again = [
        (sample, dataclasses.replace(response, text=others[place].text) if place in others else response)
        for place in places
        for sample, response in (asked[place],)
    ]
    try:
        records = _records(task, again, None)
    except TaskError as error:  # the task's own code fails on a form that no model wrote
        log.debug("near misses are not looked for: %s", error)
        return
    for place, record in zip(places, records, strict=True):
        if place in others:
            yield place, record


def _parsed(task: Task, sample: Sample, response: Response) -> ParsedAnswer:
    if response.error is not None:
        return ParsedAnswer(sample, response)
    parsed = _guarded(task, f"parse() fails on sample {sample.id!r}", task.parse, sample, response)
    return ParsedAnswer(sample, response, parsed)


def _ask(judge: Asks, questions: Mapping[str, JudgeQuestion]) -> dict[str, str | Failure]:
    replies = dict(judge.replies(questions))
    failures = [reply for reply in replies.values() if isinstance(reply, Failure)]
    if failures:
        log.warning("the judge gave no reply to %d of %d questions (%s); the same command asks again",
                    len(failures), len(questions), failures[0].message)  # fmt: skip
    return replies


def _score_all(task: Task, answers: Sequence[ParsedAnswer]) -> list[Record]:
    if type(task).score_all is Task.score_all:  # one by one, so that an error names the sample
        return [
            _guarded(task, f"score() fails on sample {a.sample.id!r}", task.score, a.sample, a.response)
            for a in answers
        ]
    records = _guarded(task, "score_all() fails", task.score_all, answers)
    if [record.id for record in records] != [answer.sample.id for answer in answers]:
        raise TaskError(f"task {task.name}: score_all() must return one record for each answer, in order")
    return records


def _guarded(task: Task, what: str, step: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Run a step of the task's own code; an error of its own becomes a TaskError that says what failed."""
    try:
        return step(*args, **options)
    except EvalkitError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TaskError(
            f"task {task.name}: {what} ({cause}); the responses are kept: fix the task, then "
            "`evalkit score RUN`"
        ) from error
