"""Runs a stored run again from its manifest, and reports whether the answers are the same.

Hashes of task file, data, images and weights are checked before anything is generated. Where it runs (device,
engine, batch size, address of a server) may differ.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit import registry, task_files
from evalkit.contracts import Json, ModelInfo, Response
from evalkit.data.images import file_digest
from evalkit.environment import versions
from evalkit.errors import CheckpointError, DataError, RunFolderError, UsageError
from evalkit.pipeline.job import make_job
from evalkit.pipeline.manifest import stored_options
from evalkit.pipeline.options import RunOptions, options_of
from evalkit.pipeline.results import OLDER_IDENTITY, RunResult, load_run
from evalkit.store import StoredResponse, StoredRun, find_runs

log = logging.getLogger(__name__)

#: Relative difference up to which values are the same: sums may be taken in another order.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Change:
    """Something that differs: a sample's answer, a metric's value, a version."""

    name: str
    before: Json
    after: Json

    def to_json(self, name: str = "name") -> dict[str, Json]:
        """With `name` as the key of what changed."""
        return {name: self.name, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A run beside the run that repeats it.

    Attributes:
        run, again: both folders. compared: samples that the first one had answered or failed.
        answers: those that differ; an error is shown as `error: …`. values: metrics that differ.
        versions: of packages that differ. notes: what else a reader must know.
    """

    run: Path
    again: Path
    compared: int
    answers: tuple[Change, ...]
    values: tuple[Change, ...]
    versions: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether every answer and every value is the same."""
        return not self.answers and not self.values

    def to_json(self) -> dict[str, Json]:
        """Everything."""
        return {
            "run": str(self.run),
            "again": str(self.again),
            "equal": self.equal,
            "compared": self.compared,
            "answers": [change.to_json("id") for change in self.answers],
            "figures": [change.to_json("metric") for change in self.values],
            "versions": [change.to_json("package") for change in self.versions],
            "notes": list(self.notes),
        }


def reproduce(
    path: Path, where: RunOptions, included: Collection[str] = (), again: Path = Path("reproduced")
) -> Reproduction:
    """Run a stored run again.

    Args:
        path: its folder.
        where: flags that say where it runs and where its data is; everything else comes from the manifest.
        included: names of tasks that the user has loaded from files of their own.
        again: new run folders go below `again/<name of the run folder>`; an unfinished one is
            continued, a complete one never.

    Raises:
        RunFolderError: no run, or one without answers. UsageError: its task file is needed, or has changed.
        DataError: data or images have changed. CheckpointError: the weights have.
    """
    from evalkit.pipeline.run import load_model, run_task

    stored = load_run(path).stored
    before = dict(stored.responses())
    if not before:
        raise RunFolderError(f"{path}: holds no answers yet, so there is nothing to compare")
    _check_task(stored, included)
    name, options = _options(stored, before, where, again)
    _check_requests(stored, name, options, before)
    model = load_model(options)
    try:
        notes = _check_model(stored, model.info)
        result = run_task(name, model, options)
    finally:
        model.close()
    return _compared(stored, before, result, notes)


def _check_task(stored: StoredRun, given: Collection[str]) -> None:
    """The task must be given or installed: a Python file that a manifest names is never imported."""
    name = str(_part(stored, "task").get("name"))
    if name in given:
        _compare_files(stored)
        return
    for entry in stored.manifest.get("includes") or ():
        file, digest = Path(str(entry["path"])), entry["hash"]
        if file_digest(file) == digest:
            fix = f"if you trust it, give {shlex.join(['--include', str(file)])}"
        else:
            what = "has changed since" if file.is_file() else "is missing"
            fix = f"it {what}: give --include FILE with the original file"
        raise UsageError(f"{stored.path}: its task comes from the Python file {file}; {fix}")
    if name not in registry.tasks():
        raise UsageError(
            f"{stored.path}: task {name!r} is not installed, and the run does not say where it came from; "
            "give --include FILE"
        )


def _compare_files(stored: StoredRun) -> None:
    """Warn where the task files given are not those of the run."""
    now = {file_digest(path) for file in registry.included_files() for path in task_files.sources(file)}
    then = {str(entry["path"]): entry["hash"] for entry in stored.manifest.get("includes") or ()}
    if changed := [path for path, digest in then.items() if digest not in now]:
        log.warning(
            "%s: made with another state of %s than the file given: values may differ",
            stored.path,
            ", ".join(changed),
        )


def _options(
    stored: StoredRun, before: Mapping[str, StoredResponse], where: RunOptions, again: Path
) -> tuple[str, RunOptions]:
    name, asked = stored_options(stored.manifest, stored.path, where.root, where.offline)
    model, settings = _part(stored, "model"), _part(stored, "settings")
    if settings.get("base_url") and not where.base_url:
        raise UsageError(
            f"{stored.path}: its model was asked at {settings['base_url']}; an address in a run folder is "
            "not contacted: give --base-url URL"
        )
    place = {name: getattr(where, name) for name in options_of(RunOptions, "place")}
    output = again / stored.path.resolve().name
    expected = _part(stored, "selection").get("expected")
    if isinstance(expected, int) and len(before) < expected:  # it was not finished: only what it has
        asked = dataclasses.replace(asked, limit=None, sample_id=tuple(before))
    return name, dataclasses.replace(
        asked,
        **{
            **place,
            "data_root": asked.data_root,
            "base_url": where.base_url,
        },
        revision=model.get("revision"),
        dtype=model.get("dtype") or "auto",
        output=output,
        resume=_broken_off(output),
        quiet=where.quiet,
    )


def _broken_off(output: Path) -> bool:
    """Whether the latest run below was not finished."""
    latest = max(find_runs(output), key=lambda folder: folder.name, default=None)
    return latest is not None and StoredRun(latest, {}).summary is None


def _check_requests(
    stored: StoredRun, name: str, options: RunOptions, before: Mapping[str, StoredResponse]
) -> None:
    job = make_job(name, options)
    data = _part(stored, "data").get("hash")
    if not job.asks_data_of(stored.manifest):
        raise DataError(
            f"{stored.path}: the data under {job.root} has changed (hash {job.data[:12]}, then "
            f"{str(data)[:12]}); give --data-root with the original data"
        )
    places = {name: place for place, name in enumerate(job.answer_ids)}
    changed = [
        identifier
        for identifier, answer in before.items()
        if identifier not in places or job.request(places[identifier]).key() != answer.request_key
    ]
    if changed:
        version, then = job.task.version, _part(stored, "task").get("version")
        cause = f"the task is version {version}, then {then}" if version != then else "images or prompts"
        raise DataError(
            f"{stored.path}: {len(changed)} of {len(before)} requests have changed (first: "
            f"{changed[0]}; {cause}); restore the images and the task"
        )


def _check_model(stored: StoredRun, info: ModelInfo) -> tuple[str, ...]:
    """Notes on what differs and may.

    Raises:
        CheckpointError: other weights, tokenizer, settings or template.
    """
    then = _part(stored, "model")
    older = stored.older_identity
    now = info.weights or info.fingerprint if older else info.fingerprint
    if now != then.get("fingerprint"):
        what = "weights" if older else "weights, settings, tokenizer or template"
        raise CheckpointError(
            f"{stored.path}: {info.name} has other {what} than the run had (fingerprint "
            f"{str(now)[:12]}, then {str(then.get('fingerprint'))[:12]}); give it the "
            "checkpoint of the run"
        )
    notes = [OLDER_IDENTITY] if older else []
    if info.fingerprint is None:
        notes.append("the model has no fingerprint: it is not known whether its weights are the same")
    known = then.get("settings")
    known = known if isinstance(known, Mapping) else {}
    notes += [
        f"model setting {key}: {known.get(key)!r}, now {info.settings.get(key)!r}"
        for key in sorted({*known, *info.settings})
        if known.get(key) != info.settings.get(key)
    ]
    if info.dtype != then.get("dtype"):
        notes.append(f"dtype: {then.get('dtype')}, now {info.dtype}")
    return tuple(notes)


def _compared(
    stored: StoredRun, before: Mapping[str, StoredResponse], result: RunResult, notes: tuple[str, ...]
) -> Reproduction:
    after = dict(result.stored.responses())
    answers = [
        Change(identifier, _shown(answer.response), _shown(after[identifier].response))
        for identifier, answer in before.items()
        if not _same(answer.response, after[identifier].response)
    ]
    then, now = stored.manifest.get("versions") or {}, versions()
    changed = [
        Change(package, then.get(package), now.get(package))
        for package in sorted({*then, *now})
        if then.get(package) != now.get(package)
    ]
    values, unknown = _values(stored, result)
    return Reproduction(
        stored.path, result.path, len(before), tuple(answers), values, tuple(changed), (*notes, *unknown)
    )


def _same(first: Response, second: Response) -> bool:
    """Equal texts, or errors of one kind: what an error says may hold times and places."""
    if first.error is not None or second.error is not None:
        return (first.error and first.error.kind) == (second.error and second.error.kind)
    return first.text == second.text


def _shown(response: Response) -> str:
    if response.error is not None:
        return f"error: {response.error.kind}: {response.error.message}"
    return response.text


def _values(stored: StoredRun, result: RunResult) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """Metrics that differ, and why some cannot be compared."""
    summary = stored.summary
    if summary is None or summary.get("counts", {}).get("expected") != result.counts["expected"]:
        return (), ("the run was not finished: its values are not compared",)
    changes, unjudged = [], []
    for name, content in summary.get("metrics", {}).items():
        then = content.get("value")
        now = result.metrics[name].value if name in result.metrics else None
        if now is None and then is not None and stored.manifest.get("judge"):
            unjudged.append(name)
        elif then != now and not (
            isinstance(then, (int, float)) and now is not None and math.isclose(then, now, rel_tol=_TOLERANCE)
        ):
            changes.append(Change(name, then, now))
    notes = (f"the judge is not asked again: {', '.join(unjudged)} not compared",) if unjudged else ()
    return tuple(changes), notes


def _part(stored: StoredRun, name: str) -> Mapping[str, Any]:
    part = stored.manifest.get(name)
    if not isinstance(part, Mapping):
        raise RunFolderError(f"{stored.path}: manifest.json lacks {name!r}; restore it")
    return part
