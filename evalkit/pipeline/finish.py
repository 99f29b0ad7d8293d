"""The end of a run: score what is stored, write the records, then the summary."""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.contracts import Record
from evalkit.data.images import MISSING
from evalkit.environment import many_objects
from evalkit.errors import DataError, RunFolderError
from evalkit.pipeline import manifest
from evalkit.pipeline.job import Job, make_job
from evalkit.pipeline.judge_labels import LABELS_NAME, check_labels, corrected_json, read_labels
from evalkit.pipeline.judge_options import JudgeOptions
from evalkit.pipeline.judging import Judging
from evalkit.pipeline.repeat_values import judge_json, repeats_json
from evalkit.pipeline.repeats import score_job
from evalkit.pipeline.results import RunResult
from evalkit.pipeline.summary import (
    counts,
    failures,
    groups,
    metric_json,
    metric_values,
    near_misses,
    published_rows,
    status,
)
from evalkit.reasoning import CUT, ReasoningMode, holds_reasoning
from evalkit.store import RunFolder, StoredResponse, open_for_scoring, write_records
from evalkit.store.atomic import write_json
from evalkit.text import command

log = logging.getLogger(__name__)

#: A judge's replies, in the run folder.
JUDGE_NAME = "judge.jsonl"
#: Signs that look like a minus in front of a number.
_OTHER_MINUS = re.compile("(?<![\\w.])[\u2212\u2013\uff0d\ufe63](?=[0-9.])")


@many_objects()
def finish(
    folder: RunFolder,
    job: Job,
    notes: tuple[str, ...],
    judge: JudgeOptions | None,
    known: Mapping[str, int],
    responses: Mapping[str, StoredResponse] | None = None,
    labels: Mapping[str, float] | None = None,
) -> RunResult:
    """Score what is stored and write records, then the summary.

    Args:
        judge: is asked; without one, the replies of an earlier judge are used and nobody is asked.
        known: counts of the model (`unknown` ...). responses: in place of all that are stored.
        labels: people's ratings by sample id; without them, those of an earlier scoring are used.
    """
    started = time.monotonic()
    named, judge = judge, judge or _stored_judge(folder)
    model = folder.manifest["model"]
    stored = folder.stored.responses() if responses is None else responses
    if not any(name in stored for name in job.answer_ids):
        raise RunFolderError(f"{folder.path}: holds no responses; `evalkit run` generates them")
    judgements = judge.repeats if judge else 1
    asked = Judging(judge, folder.path / JUDGE_NAME, ask=named is not None) if judge else None
    scored = score_job(job, stored, asked.rounds if asked else ())
    write_records(folder.path, scored)
    records = [each.record for each in scored]
    found = counts(records, len(job.samples))
    raw = [
        *_raw_reasoning(folder.path, records),
        *_other_minus(folder.path, records),
        *_cut(folder.path, records, job),
    ]
    summary: dict[str, Any] = {
        "run": str(folder.path),
        "status": status(found, job.limited, job.excerpt),
        "model": model["name"],
        "task": job.task.name,
        "split": job.split,
        "protocol": job.task.protocol,
        "counts": {**found, **known, **more_counts(job)},
        "metrics": {n: metric_json(value) for n, value in metric_values(job.task, records).items()},
        "groups": groups(job.task, records),
        "reference": published_rows(job.task, job.split),
        "signature": job.signature(
            model.get("dtype"),
            judge.name if judge else None,
            model.get("inputs"),
            model.get("unsent") or (),
            model.get("template"),
        ),
        "title": job.task.title,
        "limited": job.limited,
        "nonstandard": dict(job.nonstandard),
        "notes": [*notes, *raw],
        **repeats_json(job, records, judgements),
        **judge_json(job, records, judgements),
        **_corrected(folder, job, records, labels),
        "exact_scores": [list(group) for group in job.task.exact_scores],
        **(
            {"near_misses": found_near} if (found_near := near_misses(records, job.task.exact_scores)) else {}
        ),
        **({"failures": kinds} if (kinds := failures(records)) else {}),
        **({"judge": asked.to_json()} if asked and named else {}),
    }
    folder.update_manifest(
        outcome={"status": summary["status"], "reason": None, "at": manifest.now()},
        scored={
            "at": manifest.now(),
            "seconds": time.monotonic() - started,
            "data": job.data,
            "older_data": job.older_data,
            "counts": dict(known),
        },
        judge=named.to_json() if named else folder.manifest.get("judge") if judge else None,
        settings={**folder.manifest.get("settings", {}), "reasoning": job.reasoning},
        signature=summary["signature"],
    )
    folder.write_summary(summary)
    return RunResult(folder.stored, summary)


def _corrected(
    folder: RunFolder, job: Job, records: Sequence[Record], labels: Mapping[str, float] | None
) -> dict[str, Any]:
    """The judge's means corrected by people's ratings, which are kept in the folder."""
    path = folder.path / LABELS_NAME
    if labels is not None:
        found = corrected_json(job.task, records, labels)
        write_json(path, dict(labels))
        return found
    try:
        return corrected_json(job.task, records, read_labels(path)) if path.is_file() else {}
    except DataError as error:
        log.warning("%s: the judge is not corrected: %s", path, error)
        return {}


def more_counts(job: Job) -> dict[str, int]:
    """What the files hold and what the benchmark publishes, where they differ; keys that nothing matches.

    Of a limited run, what the files hold in any case.
    """
    found = {"impossible_keys": job.impossible} if job.impossible else {}
    if job.published is None or job.published == len(job.every):
        return {**found, "in_files": len(job.every)} if job.limited else found
    return {**found, "in_files": len(job.every), "published": job.published}


def _other_minus(path: Path, records: Sequence[Record]) -> list[str]:
    """A note, and a warning, where answers write negative numbers with a sign that no rule reads."""
    texts = [record.text for record in records if not (record.failed or record.text.isascii())]
    n = sum(_OTHER_MINUS.search(text) is not None for text in texts)
    if not n:
        return []
    note = (
        f"{n} of {len(records)} answers write a negative number with another sign than '-' (U+2212 ...): "
        "a rule that reads numbers takes it as positive"
    )
    log.warning("%s: %s", path, note)
    return [note]


def _raw_reasoning(path: Path, records: Sequence[Record]) -> list[str]:
    """A note, also given as a warning, where reasoning was scored as part of answers."""
    n = sum(not record.failed and holds_reasoning(record.text) for record in records)
    if not n:
        return []
    note = f"{n} of {len(records)} answers hold reasoning in think tags, which was scored with them"
    again = command("score", path, "--reasoning", "strip")
    log.warning("%s: %s; `%s` leaves it out", path, note, again)
    return [note]


def _cut(path: Path, records: Sequence[Record], job: Job) -> list[str]:
    """A note, also given as a warning, where the budget was used up while thinking."""
    n = sum(CUT in record.data for record in records)
    if not n:
        return []
    most = job.request(0).generation.max_new_tokens
    note = f"{n} of {len(records)} answers used up their {most} tokens while thinking and hold no answer"
    log.warning("%s: %s; --gen max_new_tokens=N gives more", path, note)
    return [note]


def _stored_judge(folder: RunFolder) -> JudgeOptions | None:
    """The judge of an earlier scoring of the run, whose replies are in the folder."""
    stored = folder.manifest.get("judge")
    if not isinstance(stored, Mapping) or not (folder.path / JUDGE_NAME).is_file():
        return None
    items = (str(item) for item in stored.get("gen") or ())
    gen = tuple(item for item in items if not item.startswith("extra_headers="))  # nobody is asked
    return JudgeOptions(str(stored["url"]), str(stored["model"]), gen, int(stored.get("repeats", 1)))


def score_run(
    path: Path,
    data_root: Path | None = None,
    judge: JudgeOptions | None = None,
    offline: bool = False,
    reasoning: ReasoningMode | None = None,
    labels: Path | None = None,
) -> RunResult:
    """Score a run folder's stored responses again; no model is loaded.

    Args:
        reasoning: takes the place of the run's own. labels: file of people's ratings.

    Raises:
        RunFolderError: it is none, is being written, or holds no responses. DataError: the data is gone.
    """
    with open_for_scoring(path) as folder:
        name, options = manifest.stored_options(folder.manifest, folder.path, data_root, offline)
        job = make_job(name, dataclasses.replace(options, reasoning=reasoning or options.reasoning))
        if not job.asks_data_of(folder.manifest):
            log.warning(
                "%s: the data is not what the answers were generated from; the signature names the new data",
                path,
            )
        notes = tuple(folder.manifest["model"].get("notes", ()))
        ratings = labels_of(job, labels)
        return finish(folder, job, notes, judge, _known_counts(folder), _own_responses(folder, job), ratings)


def labels_of(job: Job, path: Path | None) -> dict[str, float] | None:
    """People's ratings of a job's samples; None without a file.

    Raises:
        DataError: the file is broken, or rates what is no sample.
    """
    if path is None:
        return None
    labels = read_labels(path)
    check_labels(labels, job.split_ids(), path)
    return labels


def _known_counts(folder: RunFolder) -> dict[str, int]:
    """Counts that the model gave when the run was made: no model is loaded now."""
    scored = folder.manifest.get("scored")
    counted = scored.get("counts") if isinstance(scored, Mapping) else None
    if not isinstance(counted, Mapping):  # scored by an earlier version
        try:
            counted = (folder.stored.summary or {}).get("counts")
        except RunFolderError:
            counted = None
        counted = (
            {"unknown": counted["unknown"]} if isinstance(counted, Mapping) and "unknown" in counted else {}
        )
    return {str(name): count for name, count in counted.items() if isinstance(count, int)}


def _own_responses(folder: RunFolder, job: Job) -> dict[str, StoredResponse]:
    """Stored responses without those to other requests than the task makes now."""
    stored = folder.stored.responses()
    foreign, unchecked = [], 0
    for position, name in enumerate(job.answer_ids):
        known = stored.get(name)
        if known is None or known.request_key == (request := job.request(position)).key():
            continue
        if MISSING in (image.digest() for image in request.images):
            unchecked += 1
        else:
            foreign.append(name)
            del stored[name]
    if unchecked:
        log.warning(
            "%s: the images of %d samples are gone: it is not known whether their responses are to these "
            "requests", folder.path, unchecked,
        )  # fmt: skip
    if foreign:
        what = f"{len(foreign)} responses are to other requests than the task makes (first: {foreign[0]})"
        if not any(name in stored for name in job.answer_ids):
            raise RunFolderError(f"{folder.path}: {what}; `evalkit run` asks again")
        log.warning("%s: %s: they are not scored; `evalkit run` asks again", folder.path, what)
    return stored
