"""Task files that a baseline remembers: those of its runs that are not installed.

A baseline's file may come from somebody else, so what it names is imported only where this user has set a
baseline with the very same files before; that is kept in `task-files.json` of the cache.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit import registry, task_files
from evalkit.data.images import file_digest
from evalkit.data.locate import cache_folder
from evalkit.errors import RunFolderError, UsageError
from evalkit.store.atomic import read_json, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A task file with its helpers, each with its hash."""

    path: Path
    hashes: Mapping[str, str]

    @property
    def changed(self) -> list[str]:
        """Files that are no longer what they were."""
        return [name for name, digest in self.hashes.items() if file_digest(name) != digest]

    @property
    def key(self) -> str:
        """Hash of all paths and contents."""
        return hashlib.sha256(repr(sorted(self.hashes.items())).encode("utf-8", "replace")).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As a baseline's file has it."""
        return {"path": str(self.path), "hashes": dict(self.hashes)}


def from_json(items: Sequence[Mapping[str, Any]]) -> tuple[TaskFile, ...]:
    """The reverse of `TaskFile.to_json`."""
    return tuple(TaskFile(Path(str(item["path"])), dict(item["hashes"])) for item in items)


def task_files_of(tasks: Iterable[str]) -> tuple[TaskFile, ...]:
    """Files of those of the tasks that were included; from now on this user trusts them."""
    known = registry.tasks()
    files = {task_files.file_of(known[name]) for name in tasks if name in known}
    found = tuple(
        TaskFile(file, {str(path): file_digest(path) for path in task_files.sources(file)})
        for file in sorted(path for path in files if path is not None)
    )
    if found:
        write_json(_store(), {"trusted": sorted({*_trusted(), *(item.key for item in found)})})
    return found


def include(name: str, remembered: Sequence[TaskFile], tasks: Iterable[str]) -> None:
    """Load what a baseline remembers, where one of its tasks is not known.

    Raises:
        UsageError: a file has changed, or this user has never included it.
    """
    if not any(task not in registry.tasks() for task in tasks):
        return
    for item in remembered:
        if changed := item.changed:
            raise UsageError(
                f"baseline {name}: {changed[0]}, which its tasks come from, has changed or is gone; give "
                f"--include {item.path} to use it as it is now, and set the baseline again"
            )
        if item.key not in _trusted():
            raise UsageError(
                f"baseline {name}: its tasks come from the Python file {item.path}, which you have not "
                f"included here before; if you trust it, give --include {item.path}"
            )
        registry.include(item.path)
        log.info("baseline %s: --include %s, as it was set", name, item.path)


def _store() -> Path:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "task-files.json"


def _trusted() -> list[str]:
    try:
        return [str(key) for key in read_json(_store()).get("trusted", ())]
    except (RunFolderError, TypeError, OSError):
        return []  # none yet, or broken: the user is asked again
