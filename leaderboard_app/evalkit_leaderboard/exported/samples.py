"""Samples of an export: the same ones of every run of a task and split, as many as fit the room there is."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalkit.errors import RunFolderError
from evalkit.text import visible
from evalkit_leaderboard import overlays, records
from evalkit_leaderboard.exported.scripts import Writer, packed
from evalkit_leaderboard.records import Sample, Table
from evalkit_leaderboard.runs import Run
from evalkit_leaderboard.views.samples import regions_of, usual_score

#: Characters of a text; the rest stays in the run folder.
_TEXT = 2000
IMAGES = "images"


@dataclass
class _Held:
    """The samples of a run that may be exported."""

    run: Run
    table: Table
    score: str
    chosen: dict[str, Sample] = field(default_factory=dict)


def export_samples(
    runs: Mapping[str, Run], place: int, room: int, writer: Writer, with_images: bool
) -> dict[str, int]:
    """Write the samples of the runs of one task and split; how many, by key of the run.

    First come samples on which the runs disagree, then those that all have wrong, then the others.

    Args:
        place: number of the task and split. room: bytes for all texts.
    """
    held: dict[str, _Held] = {}
    for key, run in runs.items():
        try:
            table = records.table(run.folder)
        except RunFolderError:
            continue  # the page Runs says what is wrong with it
        held[key] = _Held(run, table, usual_score(run, table.scores))
    for one in held.values():
        one.chosen = {sample.record.id: sample for sample in one.table.samples()}
    order = _by_interest(list(held.values()))
    shared: dict[str, Any] = {}
    answers: dict[str, dict[str, Any]] = {key: {} for key in held}
    for identifier in order:
        asked, mine = _row(identifier, held)
        room -= len(packed(asked)) + sum(len(packed(row)) for row in mine.values())
        if room < 0 and shared:
            break
        shared[identifier] = asked
        for key, row in mine.items():
            answers[key][identifier] = row
    kept = [identifier for identifier in _in_order(held) if identifier in shared]
    for key, one in held.items():
        rows = [answers[key].get(identifier) for identifier in kept]
        if with_images:
            _add_images(one, kept, rows, writer)
        total = one.table.records.num_rows
        writer.script(f"answers-{key}", {"score": one.score, "of": total, "rows": rows})
    writer.script(f"samples-{place}", [[visible(name), *shared[name]] for name in kept])
    return {key: sum(name in answers[key] for name in kept) for key in held}


def _in_order(held: Mapping[str, _Held]) -> dict[str, None]:
    return dict.fromkeys(name for one in held.values() for name in one.chosen)


def _by_interest(held: Sequence[_Held]) -> list[str]:
    names = dict.fromkeys(name for one in held for name in one.chosen)

    def rank(name: str) -> int:
        mine = [one.chosen[name].record for one in held if name in one.chosen]
        if len({packed(dict(sorted(record.scores.items()))) for record in mine}) > 1:
            return 0
        return 1 if any(value <= 0 for record in mine for value in record.scores.values()) else 2

    return sorted(names, key=rank)


def _row(identifier: str, held: Mapping[str, _Held]) -> tuple[list[Any], dict[str, list[Any]]]:
    """What was asked: question, target, tags. By run: answer, what was read, scores, outcome, flags, error,
    what was asked where that differs, and the image's place."""
    shared: list[Any] | None = None
    rows: dict[str, list[Any]] = {}
    for key, one in held.items():
        sample = one.chosen.get(identifier)
        if sample is None:
            continue
        record = sample.record
        tags = {_text(tag): _text(value) for tag, value in record.tags.items()}
        asked = [_text(sample.question), _text(record.target), tags]
        shared = shared or asked
        error = "" if record.error is None else f"{record.error.kind}: {record.error.message}"
        read = record.prediction
        rows[key] = [
            "" if record.error is not None else _text(record.text),
            "" if read is None or read == record.text else _text(read),
            {_text(name): f"{value:g}" for name, value in record.scores.items()},
            _outcome(sample, one.score),
            [_text(flag) for flag in record.flags],
            _text(error),
            asked if asked != shared else None,
            "",
        ]
    assert shared is not None
    return shared, rows


def _outcome(sample: Sample, score: str) -> str:
    """As the filter of the page Samples calls it."""
    record = sample.record
    value = record.scores.get(score)
    if record.error is not None:
        return "no answer"
    if value is None:
        return "not scored"
    return "right" if value >= 1 else "wrong" if value <= 0 else "between"


def _text(value: Any) -> str:
    whole = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    cut = f" … ({len(whole):,} characters)" if len(whole) > _TEXT else ""
    return visible(whole[:_TEXT]) + cut


def _add_images(one: _Held, names: Sequence[str], rows: Sequence[list[Any] | None], writer: Writer) -> None:
    """Put the name of the image into each row; equal images are written once."""
    for name, row in zip(names, rows, strict=True):
        if row is None:
            continue
        sample = one.chosen[name]
        sheet = overlays.sheet(sample.images, regions_of(one.run, sample))
        if sheet.image is not None:
            encoded = io.BytesIO()
            sheet.image.save(encoded, "JPEG", quality=85)
            row[-1] = f"{IMAGES}/{hashlib.sha256(encoded.getvalue()).hexdigest()[:20]}.jpg"
            writer.file(row[-1], encoded.getvalue())
