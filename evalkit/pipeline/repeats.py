"""Each question asked several times in one run: seeds, names of the answers, and one record a question.

Repeat r of a sample is drawn with the seed `seed + r`, mixed with the sample's id (see `Request.draw_seed`).
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from evalkit.contracts import Flag, Generation, Record, Request, Sample, mixed_seed
from evalkit.errors import DataError, UsageError
from evalkit.near_miss import NEAR_MISS
from evalkit.pipeline.score import Asks, score
from evalkit.store import Scored, StoredResponse

if TYPE_CHECKING:
    from evalkit.pipeline.job import Job


def answer_id(sample_id: str, repeat: int) -> str:
    """The id of an answer in a run folder: of the first repeat the sample's own, then `ID#2`, `ID#3` ..."""
    return f"{sample_id}#{repeat + 1}" if repeat else sample_id


def answer_ids(samples: Sequence[Sample], repeats: int) -> list[str]:
    """Ids of all answers, in the order of their positions: the repeats of a sample lie side by side.

    Raises:
        DataError: two are the same, since a sample's own id looks like that of a repeat.
    """
    if repeats == 1:
        return [sample.id for sample in samples]
    ids = [answer_id(sample.id, repeat) for sample in samples for repeat in range(repeats)]
    if len(set(ids)) < len(ids):
        double = next(name for name, count in Counter(ids).items() if count > 1)
        raise DataError(f"--repeats {repeats}: {double!r} is the id of a sample and of a repeat of another")
    return ids


def as_repeat(request: Request, repeat: int) -> Request:
    """The request of a repeat: with an id and a seed of its own."""
    seed = mixed_seed(request.generation.seed + repeat, request.id)
    return dataclasses.replace(
        request,
        id=answer_id(request.id, repeat),
        generation=dataclasses.replace(request.generation, seed=seed),
    )


def seeds(generation: Generation, repeats: int) -> list[int]:
    """The seed of each repeat, before it is mixed with the samples' ids."""
    return [generation.seed + repeat for repeat in range(repeats)]


def must_draw(requests: Iterable[Request], repeats: int, task: str) -> None:
    """Raises UsageError where repeats would all be the same answer."""
    for request in requests if repeats > 1 else ():
        generation = request.generation
        why = "by beam search" if generation.num_beams > 1 else "greedily (temperature 0)"
        if generation.num_beams > 1 or not generation.temperature > 0:
            raise UsageError(
                f"--repeats {repeats}: {task} is answered {why}, so that all answers to a question would be "
                "the same; give --gen temperature=0.7"
                + (" --gen num_beams=1" if generation.num_beams > 1 else "")
            )


def score_job(job: Job, responses: Mapping[str, StoredResponse], judges: Sequence[Asks]) -> list[Scored]:
    """Score every sample that has all its answers, in sample order; see `score`.

    Args:
        responses: by answer id. judges: one for each time that an answer is judged; empty: nobody is asked.
    """
    if job.repeats == 1 and len(judges) < 2:
        return score(job.task, job.samples, responses, judges[0] if judges else None, job.reasoning)
    done = [
        sample
        for sample in job.samples
        if all(answer_id(sample.id, repeat) in responses for repeat in range(job.repeats))
    ]
    found: list[list[Scored]] = []
    for repeat in range(job.repeats):
        own = {sample.id: responses[answer_id(sample.id, repeat)] for sample in done}
        asked: Sequence[Asks | None] = judges or [None]
        found += [score(job.task, done, own, judge, job.reasoning) for judge in asked]
    return [_merged(each) for each in zip(*found, strict=True)]


def _merged(scored: Sequence[Scored]) -> Scored:
    """One of several scorings of a sample: of the commonest prediction, with the mean of all scores.

    Where one repeat failed, the sample failed: the mean of the others would rest on fewer answers.
    """
    records = [each.record for each in scored]
    failed = next((each for each in scored if each.record.failed), None)
    if failed is not None:
        return dataclasses.replace(
            failed, request_key=scored[0].request_key, record=_with(failed.record, records)
        )
    chosen = scored[commonest(records)]
    record = chosen.record
    flags: tuple[Flag, ...] = tuple(dict.fromkeys(flag for each in records for flag in each.flags))
    data = record.data
    if NEAR_MISS in flags and NEAR_MISS not in data:
        kind = next(each.data[NEAR_MISS] for each in records if NEAR_MISS in each.flags)
        data = {**data, NEAR_MISS: kind}
    record = dataclasses.replace(record, scores=_means(records), flags=flags, data=data)
    return dataclasses.replace(chosen, request_key=scored[0].request_key, record=_with(record, records))


def _with(record: Record, repeats: Sequence[Record]) -> Record:
    return dataclasses.replace(record, repeats=tuple(repeats))


def commonest(records: Sequence[Record]) -> int:
    """Place of the first record with the prediction that most have; of equally common ones the earliest."""
    names = [json.dumps(record.prediction, sort_keys=True, default=str) for record in records]
    return names.index(Counter(names).most_common(1)[0][0])


def _means(records: Sequence[Record]) -> dict[str, float]:
    """The mean of each score over the records that have it."""
    values: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.scores.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}
