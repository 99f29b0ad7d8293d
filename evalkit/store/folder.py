"""Run folders: `<output>/<model>/<task>@<split>/<time>-<short id>/`, one writer, any number of readers."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from evalkit.contracts import Json, Record
from evalkit.errors import RunFolderError
from evalkit.store import lock
from evalkit.store.atomic import disk_error, read_json, sync_folder, write_json
from evalkit.store.records import RECORDS_NAME, ScoredTable, read_column, read_records, read_scored
from evalkit.store.responses import StoredResponse, read_responses, response_ids
from evalkit.store.shapes import MANIFEST, SUMMARY, checked

MANIFEST_NAME = "manifest.json"
SUMMARY_NAME = "summary.json"

#: Runs are three levels below the output folder; a user may name any folder above them.
_DEPTH = 5
#: The name of a run's folder.
_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
#: Of a folder's name: most characters, and what Windows reserves.
_LIMIT = 100
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


@dataclass
class StoredRun:
    """A run folder on disk. Reading changes nothing.

    Attributes:
        path: the folder.
        manifest: what was asked, with every version, hash and setting.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary, or None while there is none. Raises RunFolderError where it is broken."""
        path = self.path / SUMMARY_NAME
        return checked(read_json(path), SUMMARY, path) if path.exists() else None

    @property
    def status(self) -> str:
        """`running`, `complete`, `excerpt` (a part), `partial` (limited, interrupted), `failed`."""
        summary = self.summary
        if summary is not None:
            return str(summary.get("status", "failed"))
        if lock.is_held(self.path):
            return "running"
        outcome = self.manifest.get("outcome")
        return "failed" if isinstance(outcome, Mapping) and outcome.get("status") == "failed" else "partial"

    @property
    def older_identity(self) -> bool:
        """Whether it was stored when a model's fingerprint covered its weight files alone."""
        model = self.manifest.get("model")
        if not isinstance(model, Mapping) or model.get("engine") == "stored":  # stored answers: no weights
            return False
        return bool(model.get("fingerprint")) and "weights" not in model

    def records(self) -> list[Record]:
        """Scored samples in sample order. Raises RunFolderError where missing or broken."""
        return read_records(self.path)

    def request_keys(self) -> dict[str, str]:
        """Content hash of each scored sample's request, by sample id."""
        return read_column(self.path, "request_key")

    def scored(self) -> ScoredTable:
        """Records and what a comparison reads beside them. Raises RunFolderError as `records`."""
        return read_scored(self.path)

    def response_ids(self) -> set[str]:
        """Ids of the samples that have a stored response."""
        return response_ids(self.path)

    def responses(self) -> dict[str, StoredResponse]:
        """The last stored response of each sample id."""
        return read_responses(self.path)


def load_run(path: str | os.PathLike[str]) -> StoredRun:
    """Open a run folder for reading.

    Raises:
        RunFolderError: it is none, or its manifest is broken.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RunFolderError(f"{folder}: no such run folder; `evalkit list runs` shows all")
    if not (folder / MANIFEST_NAME).is_file():
        below = next(find_runs(folder), None)
        hint = f"; a run below it is {below}" if below else "; `evalkit list runs` shows all"
        raise RunFolderError(f"{folder}: not a run folder (no {MANIFEST_NAME}){hint}")
    manifest = folder / MANIFEST_NAME
    return StoredRun(folder, checked(read_json(manifest), MANIFEST, manifest))


def find_runs(root: str | os.PathLike[str]) -> Iterator[Path]:
    """Run folders under `root` in the order of their paths; links are not followed."""
    base = str(root)
    for place, folders, files in os.walk(base):
        if MANIFEST_NAME in files:
            folders.clear()
            yield Path(place)
            continue
        depth = place[len(base) :].count(os.sep)
        folders[:] = [] if depth >= _DEPTH else sorted(name for name in folders if not name.startswith("."))


class RunFolder:
    """A run folder held by this process for writing; use as a context manager."""

    def __init__(self, path: Path, manifest: dict[str, Any], held: BaseFileLock, resumed: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.resumed = resumed
        self._held = held

    def __enter__(self) -> RunFolder:
        for name in (MANIFEST_NAME, SUMMARY_NAME, RECORDS_NAME):
            for scratch in self.path.glob(f".{name}-*"):  # left by a killed process
                scratch.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._held.release()

    @cached_property
    def stored(self) -> StoredRun:
        """The reader's view."""
        return StoredRun(self.path, self.manifest)

    def update_manifest(self, **changes: Json) -> None:
        """Replace fields of the manifest, whole or not at all."""
        self.manifest.update(changes)
        write_json(self.path / MANIFEST_NAME, self.manifest)

    def write_summary(self, summary: Mapping[str, Json]) -> None:
        """Write the summary. Its presence says that the run is done."""
        write_json(self.path / SUMMARY_NAME, summary)

    def drop_summary(self) -> None:
        """Remove the summary before responses are added that it does not cover."""
        try:
            (self.path / SUMMARY_NAME).unlink(missing_ok=True)
            sync_folder(self.path)
        except OSError as error:
            raise disk_error(error, self.path) from None


def open_for_scoring(path: Path) -> RunFolder:
    """Open an existing run folder for writing.

    Raises:
        RunFolderError: it is none, broken, or another process has it.
    """
    load_run(path)
    copy = shlex.join(["cp", "-r", str(path), "COPY"])
    held = lock.acquire(path, fix=f"make it writable, or work on a copy: {copy}")
    try:
        return RunFolder(path, load_run(path).manifest, held, resumed=True)
    except BaseException:
        held.release()
        raise


def folder_name(name: str) -> str:
    """A harmless single path component that still reads like `name`.

    A slash or colon becomes a double dash. Where anything else had to go (other characters, leading dots,
    length, names that Windows reserves), a short hash keeps different names apart.
    """
    kept = re.sub(r"[/:\\]+", "--", name)
    safe = re.sub(r"[^A-Za-z0-9._+=@-]", "-", kept).lstrip(".-").rstrip(".-")
    lost = safe != kept or len(safe) > _LIMIT or _RESERVED.fullmatch(safe) is not None or not safe
    if not lost:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return (
        f"{safe[: _LIMIT - 7] or 'unnamed'}-{digest}"
        if not _RESERVED.fullmatch(safe)
        else f"x-{safe}-{digest}"
    )


def place_of_runs(output: Path, model: str, task: str, split: str) -> Path:
    """The folder that holds the runs of a model on a split."""
    return output / folder_name(model) / f"{folder_name(task)}@{folder_name(split)}"


def open_run(
    output: Path, model: str, task: str, split: str, identity: str, manifest: dict[str, Any], resume: bool
) -> RunFolder:
    """The latest run folder of the same identity, or a new one with `manifest`, held for writing.

    Args:
        identity: hash of everything that decides the answers; stored in the manifest.
        manifest: of a new run, written before anything else; an old run keeps its own.
        resume: False always starts a new folder.

    Raises:
        RunFolderError: another process has it, or it cannot be written.
    """
    parent = place_of_runs(output, model, task, split)
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, parent, "give another --output") from None
    with lock.held(parent):
        for scratch in parent.glob(".new-*"):  # left by a killed process: whoever creates holds the lock
            shutil.rmtree(scratch, ignore_errors=True)
        found = _latest(parent, identity) if resume else None
        path = found or _create(parent, {**manifest, "identity": identity})
        held = lock.acquire(path)
    return RunFolder(path, read_json(path / MANIFEST_NAME), held, resumed=found is not None)


def _latest(parent: Path, identity: str) -> Path | None:
    for folder in sorted(parent.iterdir(), reverse=True):
        if folder.name.startswith(".") or not (folder / MANIFEST_NAME).is_file():
            continue
        try:
            if read_json(folder / MANIFEST_NAME).get("identity") == identity:
                return folder
        except RunFolderError:
            continue  # a broken folder is never resumed; readers show it as broken
    return None


def _next_name(parent: Path) -> str:
    """A name that sorts behind all runs here, also in the same second and after the clock was set back."""
    taken = max((run.name for run in parent.iterdir() if _RUN.fullmatch(run.name)), default="")
    last, _, number = taken.rpartition("-")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    if stamp > last:
        return f"{stamp}-{secrets.randbelow(0xF0_00_00):06x}"
    return f"{last}-{int(number, 16) + 1 + secrets.randbelow(256):06x}"


def _create(parent: Path, manifest: Mapping[str, Json]) -> Path:
    """A new folder. It has its manifest as soon as it can be seen."""
    path = parent / _next_name(parent)
    scratch = parent / f".new-{path.name}"
    try:
        scratch.mkdir()
        write_json(scratch / MANIFEST_NAME, manifest)
        scratch.rename(path)
        sync_folder(parent)
    except OSError as error:
        raise disk_error(error, path) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return path
