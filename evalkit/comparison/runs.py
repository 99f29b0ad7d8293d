"""Complete runs as a comparison reads them, and pairs of their records, or why they are not comparable."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from evalkit import registry
from evalkit.contracts import Record
from evalkit.errors import NotComparableError, RunFolderError, UsageError
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
        model: name as in the run. signature: fields of the signature by name.
        request_keys: request hash by sample id. seconds: model time by sample id.
        image_keys: hash of the images by sample id, None where it was not stored.
        data: hash of the data; older_data: as earlier versions made it, all that they have.
    """

    path: Path
    key: Key
    model: str
    task: Task
    records: Sequence[Record]
    signature: Mapping[str, str]
    request_keys: Mapping[str, str]
    seconds: Mapping[str, float] = field(default_factory=dict)
    image_keys: Mapping[str, str | None] = field(default_factory=dict)
    data: str | None = None
    older_data: str | None = None


def signature_fields(signature: str) -> dict[str, str]:
    """Fields of a signature by name; the first three are task, version and split."""
    named = dict(zip(("task", "version", "split"), signature.split("|")[:3], strict=False))
    for part in signature.split("|")[3:]:
        name, _, value = part.partition(":")
        named[name] = value
    return named


def _with_seed(fields: Mapping[str, str], run: StoredRun) -> dict[str, str]:
    """The fields of a drawn run with its seed, which earlier versions left out or called non-standard."""
    found = dict(fields)
    settings = run.manifest.get("settings")
    generation = settings.get("generation") if isinstance(settings, Mapping) else None
    drawn = found.get("gen", "").startswith("sampled")
    if "seed" in found or not drawn or not isinstance(generation, Mapping):
        return found
    found["seed"] = str(generation.get("seed", 0))
    changed = found.pop("nonstandard", "").split(",")
    kept = ",".join(part for part in changed if part and not part.startswith("seed="))
    return {**found, "nonstandard": kept} if kept else found


def load_for_comparison(path: Path) -> LoadedRun:
    """Read a run.

    Raises:
        NotComparableError: in progress, broken off, cut, empty, with repeated ids, or of an unknown task.
    """
    try:
        run = load_run(path)
        summary = _summary(run)
        records, request_keys, image_keys = run.records(), run.request_keys(), run.image_keys()
        seconds, answered = run.seconds(), run.response_ids()
    except RunFolderError as error:
        raise NotComparableError(str(error)) from None
    named = _manifest_part(run, "task")
    try:
        task = registry.task(str(named.get("name")), str(named.get("protocol")))
    except UsageError as error:
        raise NotComparableError(f"{path}: {error}") from None
    _check_records(path, records, summary)
    lost = [record.id for record in records if record.id not in answered]
    if lost and any(path.glob("responses-*.jsonl")):  # a baseline may be kept without them
        raise NotComparableError(
            f"{path}: responses of {len(lost)} scored samples are gone (first: {lost[0]}): "
            "a file was cut; give the `evalkit run` command again"
        )
    signed = signature_fields(str(summary.get("signature", "")))
    return LoadedRun(
        path=path,
        key=Key(task.name, str(named.get("split"))),
        model=str(summary.get("model", "")),
        task=task,
        records=records,
        signature={**_with_seed(signed, run), "protocol": task.protocol},
        request_keys=request_keys,
        seconds=seconds,
        image_keys=image_keys,
        **_data_hashes(run),
    )


def _data_hashes(run: StoredRun) -> dict[str, str | None]:
    """Hashes of the data that a run was last scored on; earlier versions have the older one alone."""
    scored, data = run.manifest.get("scored"), run.manifest.get("data")
    scored = scored if isinstance(scored, Mapping) else {}
    data = data if isinstance(data, Mapping) else {}
    content, older = (
        (scored.get("data"), scored.get("older_data"))
        if scored.get("data")
        else (data.get("hash"), data.get("older_hash"))
    )
    return {"data": content, "older_data": older} if older else {"data": None, "older_data": content}


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


#: Fields without which there is nothing in common to compare.
_FIXED = ("task", "split", "protocol")
#: Signature fields that change the request itself, and so its hash.
_REQUEST_FIELDS = frozenset({"tiles", "prompt", "gen", "seed", "repeats", "nonstandard", "request"})
#: Signature fields that say which samples were asked.
_SAMPLE_FIELDS = frozenset({"n", "subset", "data"})
#: How many samples and which: they differ together, and allowing one allows both.
_SUBSET_FIELDS = frozenset({"n", "subset"})

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
        """Only samples that both sides answered."""
        kept = [(a, b) for a, b in zip(self.base, self.new, strict=True) if not (a.failed or b.failed)]
        return Pairs([a for a, _ in kept], [b for _, b in kept], self.notes)


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
    older = _older_data(base, new)
    _check_signatures(base, new, {*allow, "data"} if older else allow, where)
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
    notes = (*notes, *older, *_check_images(base, new, common, allow, where))
    return Pairs([mine[name] for name in common], [theirs[name] for name in common], notes)


def _older_data(base: LoadedRun, new: LoadedRun) -> tuple[str, ...]:
    """What to say where a side's data hash is of the older form, and the two agree as far as it goes."""
    old = base if base.data is None else new
    if old.data is not None or old.older_data is None or base.older_data != new.older_data:
        return ()
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


def _check_signatures(base: LoadedRun, new: LoadedRun, allow: Collection[str], where: str) -> None:
    if _SUBSET_FIELDS & set(allow):
        allow = {*allow, *_SUBSET_FIELDS}
    names = list(dict.fromkeys([*_FIXED, *base.signature, *new.signature]))
    differing = [name for name in names if base.signature.get(name) != new.signature.get(name)]
    fixed = [name for name in differing if name in _FIXED]
    refused = fixed or [name for name in differing if name not in allow]
    if not refused:
        return
    listed = ", ".join(
        f"{name} ({base.signature.get(name, 'none')} | {new.signature.get(name, 'none')})" for name in refused
    )
    fix = (
        "score or run one of them again under the other's"
        if fixed
        else "to compare them knowingly: " + " ".join(_allowing(refused))
    )
    raise NotComparableError(f"{where}: {listed} differ{'s' if len(refused) == 1 else ''}; {fix}")


def _allowing(fields: Sequence[str]) -> list[str]:
    """The flags that let these fields differ; one flag for how many samples and which."""
    return list(dict.fromkeys(f"--allow {'subset' if name in _SUBSET_FIELDS else name}" for name in fields))


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
