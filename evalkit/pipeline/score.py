"""From stored responses to records: the task scores, a judge may be asked, nothing is generated."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from evalkit.contracts import Failure, Record, Sample
from evalkit.errors import EvalkitError, TaskError
from evalkit.store import Scored, StoredResponse, image_reference
from evalkit.task import JudgeQuestion, Task, failed_record

log = logging.getLogger(__name__)


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
) -> list[Scored]:
    """Score every sample that has a response, in sample order.

    Raises:
        TaskError: the task's own code fails on an answer.
        JudgeError: the judge cannot be reached at all.
    """
    answered = [(sample, responses[sample.id]) for sample in samples if sample.id in responses]
    records = _relate(task, [_score(task, sample, stored) for sample, stored in answered])
    if judge is not None:
        records = _relate(task, _judged(task, records, judge))
    return [
        Scored(
            record=record,
            response=stored.response,
            request_key=stored.request_key,
            question=sample.turns[-1] if sample.turns else "",
            images=tuple(name for image in sample.images for name in image_reference(image)),
        )
        for record, (sample, stored) in zip(records, answered, strict=True)
    ]


def _score(task: Task, sample: Sample, stored: StoredResponse) -> Record:
    if stored.response.error is not None:
        return failed_record(sample, stored.response)
    try:
        return task.score(sample, stored.response)
    except EvalkitError:
        raise
    except Exception as error:
        raise _broken(task, f"score() fails on sample {sample.id!r}", error) from error


def _relate(task: Task, records: list[Record]) -> list[Record]:
    names = [record.id for record in records]
    try:
        related = task.relate(records)
    except EvalkitError:
        raise
    except Exception as error:
        raise _broken(task, "relate() fails", error) from error
    if [record.id for record in related] != names:
        raise TaskError(f"task {task.name}: relate() must return the same records in the same order")
    return related


def _broken(task: Task, what: str, error: Exception) -> TaskError:
    cause = f"{type(error).__name__}: {error}".splitlines()[0]
    return TaskError(
        f"task {task.name}: {what} ({cause}); the responses are kept: mend the task, then `evalkit score RUN`"
    )


def _judged(task: Task, records: Sequence[Record], judge: Asks) -> list[Record]:
    from evalkit.judge import FAILURE, REPLY

    asked = {
        record.id: question
        for record in records
        if not record.failed and (question := task.judge_question(record)) is not None
    }
    replies: dict[str, dict[str, str]] = {}
    failures: list[Failure] = []
    for identifier, reply in judge.replies(asked):
        if isinstance(reply, Failure):
            failures.append(reply)
            replies[identifier] = {FAILURE: reply.message}
        else:
            replies[identifier] = {REPLY: reply}
    if failures:
        log.warning("the judge gave no reply to %d of %d questions (%s); the same command asks again",
                    len(failures), len(asked), failures[0].message)  # fmt: skip
    return [
        dataclasses.replace(record, data={**record.data, **replies[record.id]})
        if record.id in replies
        else record
        for record in records
    ]
