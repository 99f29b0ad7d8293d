"""Complete runs as a comparison reads them, and pairs of their records, or why they are not comparable."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path
from typing import Any, NamedTuple

from evalkit import registry
from evalkit.comparison.alike import Measured, measured, older_data_alone, refusal
from evalkit.contracts import Record
from evalkit.environment import many_objects
from evalkit.errors import NotComparableError, RunFolderError, UsageError
from evalkit.metrics.base import Records
from evalkit.pipeline.results import describe
from evalkit.store import StoredRun, load_run
from evalkit.task import Task
from evalkit.text import command


class Key(NamedTuple):
    """What a run measures; runs are compared with runs of the same key."""

    task: str
    split: str

    def __str__(self) -> str:
        return f"{self.task}@{self.split}"


@dataclass(frozen=True)
class LoadedRun:
    """One complete run with its records.

    Attributes:
        model: name as in the run. measured: what may be compared with it.
        request_keys: request hash by sample id. seconds: model time by sample id.
        image_keys: hash of the images by sample id, None where it was not stored.
    """

    path: Path
    key: Key
    model: str
    task: Task
    records: Sequence[Record]
    measured: Measured
    request_keys: Mapping[str, str]
    seconds: Mapping[str, float] = field(default_factory=dict)
    image_keys: Mapping[str, str | None] = field(default_factory=dict)


@many_objects()
def load_for_comparison(path: Path) -> LoadedRun:
    """Read a run.

    Raises:
        NotComparableError: in progress, broken off, cut, empty, with repeated ids, or of an unknown task.
    """
    try:
        run = load_run(path)
        summary = _summary(run)
        scored, answered = run.scored(), run.response_ids()
    except RunFolderError as error:
        raise NotComparableError(str(error)) from None
    named = _manifest_part(run, "task")
    try:
        task = registry.task(str(named.get("name")), str(named.get("protocol")))
    except UsageError as error:
        raise NotComparableError(f"{path}: {error}") from None
    _check_records(path, scored.records, summary)
    lost = [record.id for record in scored.records if record.id not in answered]
    if lost and any(path.glob("responses-*.jsonl")):  # a baseline may be kept without them
        raise NotComparableError(
            f"{path}: responses of {len(lost)} scored samples are gone (first: {lost[0]}): "
            "a file was cut; give the `evalkit run` command again"
        )
    return LoadedRun(
        path=path,
        key=Key(task.name, str(named.get("split"))),
        model=str(summary.get("model", "")),
        task=task,
        records=Records.of(scored.records),
        measured=measured(str(summary.get("signature", "")), task.protocol, run.manifest),
        request_keys=scored.request_keys,
        seconds=scored.seconds,
        image_keys=scored.image_keys,
    )


def _summary(run: StoredRun) -> dict[str, Any]:
    if run.summary is not None:
        return describe(run)
    what = "is still running" if run.status == "running" else "was broken off before its end"
    fix = "wait for it" if run.status == "running" else "give its `evalkit run` command again to finish it"
    raise NotComparableError(f"{run.path}: the run {what} (no summary.json); {fix}")


def _manifest_part(run: StoredRun, name: str) -> Mapping[str, Any]:
    part = run.manifest.get(name)
    if not isinstance(part, Mapping):
        raise NotComparableError(f"{run.path}: manifest.json lacks {name!r}; restore it")
    return part


def _check_records(path: Path, records: Sequence[Record], summary: Mapping[str, Any]) -> None:
    if not records:
        raise NotComparableError(f"{path}: the run is empty: no samples to compare")
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise NotComparableError(
                f"{path}: sample id {record.id!r} occurs twice; make the records again: "
                f"`{command('score', path)}`"
            )
        seen.add(record.id)
    counts = summary.get("counts")
    expected = counts.get("answered", 0) + counts.get("errors", 0) if isinstance(counts, Mapping) else None
    if expected != len(records):
        raise NotComparableError(
            f"{path}: {len(records)} records but the summary counts {expected}: a file was cut; "
            f"make both again: `{command('score', path)}`"
        )
    if all(record.failed for record in records):
        raise NotComparableError(f"{path}: no sample was answered: nothing to compare")


def key_of(run: StoredRun) -> Key:
    """Task and split of a run. Raises NotComparableError where the manifest does not say."""
    named = _manifest_part(run, "task")
    return Key(str(named.get("name")), str(named.get("split")))


def model_of(run: StoredRun) -> str:
    """Name of a run's model. Raises NotComparableError where the manifest does not say."""
    return str(_manifest_part(run, "model").get("name", ""))


#: Signature fields that change the request itself, and so its hash.
_REQUEST_FIELDS = frozenset({"tiles", "prompt", "gen", "seed", "repeats", "nonstandard", "request"})
#: Signature fields that say which samples were asked.
_SAMPLE_FIELDS = frozenset({"n", "subset", "data"})
#: What `--allow` takes for the images themselves; no other field switches their check off.
_IMAGES = "images"

#: Name of the score that holds a sample's model time.
SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Records of both sides, in the same order.

    Attributes:
        base, new: all paired samples. notes: what the reader must know of the pairing.
    """

    base: Sequence[Record]
    new: Sequence[Record]
    notes: tuple[str, ...] = ()

    def answered(self) -> Pairs:
        """Only samples that both sides answered; the same object where these are all."""
        if not any(record.failed for side in (self.base, self.new) for record in side):
            return self
        kept = [(a, b) for a, b in zip(self.base, self.new, strict=True) if not (a.failed or b.failed)]
        return Pairs(Records.of([a for a, _ in kept]), Records.of([b for _, b in kept]), self.notes)


def pair(base: LoadedRun, new: LoadedRun, allow: Collection[str] = ()) -> Pairs:
    """Pair two runs by sample id, after checking that they measure the same thing.

    Args:
        allow: signature fields that may differ (`dtype`, `evalkit`, `tiles` ...), `request` for request
            hashes, `images` for other images, `n` or `subset` for different samples, of which the common ones
            are then compared.

    Raises:
        NotComparableError: naming the fields or samples that differ.
    """
    where = f"{base.path} and {new.path}"
    if why := refusal(base.measured, new.measured, allow):
        raise NotComparableError(f"{where}: {why}")
    mine, theirs = {r.id: r for r in base.records}, {r.id: r for r in new.records}
    notes = _check_samples(mine.keys(), theirs.keys(), allow, where)
    common = [name for name in mine if name in theirs]
    if not _REQUEST_FIELDS & set(allow):
        differing = [name for name in common if base.request_keys[name] != new.request_keys[name]]
        if differing:
            raise NotComparableError(
                f"{where}: {len(differing)} requests differ (first: {differing[0]}): prompt, images or "
                "settings are not the same; --allow request compares them knowingly"
            )
    notes = (*notes, *_older_data(base, new), *_check_images(base, new, common, allow, where))
    ours = _in_order(base, common, mine)
    return Pairs(ours, _in_order(new, common, theirs), notes)


def _in_order(run: LoadedRun, names: Sequence[str], by_id: Mapping[str, Record]) -> Records:
    """The run's records of these ids; its own object where these are all, with what was found of it.

    Metrics of repeated questions are made for each pair anew, so that nothing found by them is kept.
    """
    whole = len(names) == len(run.records) and all(map(eq, names, by_id))
    if whole and not any(record.repeats for record in run.records):
        return Records.of(run.records)
    return Records.of([by_id[name] for name in names])


def _older_data(base: LoadedRun, new: LoadedRun) -> tuple[str, ...]:
    """What to say where a side's data hash is of the older form, and the two agree as far as it goes."""
    if not older_data_alone(base.measured, new.measured):
        return ()
    old = base if base.measured.data is None else new
    return (
        f"{old.path}: its data hash is of an older form: questions and targets are the same, tags and "
        f"options were not compared; `{command('score', old.path)}` makes it anew",
    )


def _check_images(
    base: LoadedRun, new: LoadedRun, common: Sequence[str], allow: Collection[str], where: str
) -> tuple[str, ...]:
    """Images must be the same whatever else may differ."""
    if _IMAGES in allow:
        return ()
    unlike = [name for name in common if base.request_keys[name] != new.request_keys[name]]
    keys = [(name, base.image_keys.get(name), new.image_keys.get(name)) for name in unlike]
    differing = [name for name, mine, theirs in keys if mine and theirs and mine != theirs]
    if differing:
        raise NotComparableError(
            f"{where}: the images of {len(differing)} samples differ (first: {differing[0]}): restore them "
            f"and run again; --allow {_IMAGES} compares them knowingly"
        )
    if unknown := sum(not (mine and theirs) for _, mine, theirs in keys):
        return (f"whether {unknown} samples have the same images is not known: `evalkit score` stores it",)
    return ()


def _check_samples(
    mine: Collection[str], theirs: Collection[str], allow: Collection[str], where: str
) -> tuple[str, ...]:
    only_base = [name for name in mine if name not in theirs]
    only_new = [name for name in theirs if name not in mine]
    if not only_base and not only_new:
        return ()
    first = (only_base or only_new)[0]
    what = f"{len(only_base)} samples only in BASE, {len(only_new)} only in NEW (first: {first})"
    if len(only_base) == len(mine):
        raise NotComparableError(f"{where}: no sample in common: {what}")
    if not _SAMPLE_FIELDS & set(allow):
        raise NotComparableError(f"{where}: {what}; --allow subset compares the common ones")
    return (f"compared on the {len(mine) - len(only_base)} common samples: {what}",)


def timed(pairs: Pairs, base: LoadedRun, new: LoadedRun) -> Pairs:
    """The same pairs, each record with its model time as a score."""
    return Pairs(
        [_timed(record, base) for record in pairs.base],
        [_timed(record, new) for record in pairs.new],
        pairs.notes,
    )


def _timed(record: Record, side: LoadedRun) -> Record:
    if record.failed or record.id not in side.seconds:
        return record
    return dataclasses.replace(record, scores={**record.scores, SECONDS: side.seconds[record.id]})
