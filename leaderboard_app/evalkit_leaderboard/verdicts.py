"""Verdicts of many models against one, made in the background and kept in the app's cache."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import evalkit
from evalkit.data.locate import cache_folder
from evalkit.errors import RunFolderError
from evalkit.store.atomic import read_json, write_json
from evalkit_leaderboard.comparing import Runs, Settings, compare_over, stamps
from evalkit_leaderboard.runs import or_reason

log = logging.getLogger(__name__)

#: Comparisons kept, the newest.
_MOST = 4000


class Change(NamedTuple):
    """What `evalkit compare` says of a metric: new minus base, the verdict; or why it says nothing."""

    difference: float | None
    verdict: str
    refused: str = ""


#: By `task@split:metric`; by `task@split` where the task cannot be compared.
Changes = Mapping[str, Change]


class Verdicts:
    """Changes by pair of sides.

    Attributes:
        version: counts what was added.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.version = 0
        self._file = file or cache_folder() / "leaderboard" / "verdicts-1.json"
        self._known: dict[str, dict[str, Change]] = {}
        self._asked: set[str] = set()
        self._queue: queue.Queue[tuple[str, Runs, Runs]] = queue.Queue()
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._load()

    @property
    def pending(self) -> int:
        """Comparisons that are asked for and not made yet."""
        return len(self._asked)

    def of(self, base: Runs, new: Runs) -> Changes | None:
        """The changes from base to new over all tasks that both have, or None while they are being made."""
        told = f"{evalkit.__version__}\n{stamps(base)}\n{stamps(new)}"
        digest = hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:24]
        with self._lock:
            if digest in self._known:
                return self._known[digest]
            if digest not in self._asked:
                self._asked.add(digest)
                self._queue.put((digest, dict(base), dict(new)))
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name="verdicts", daemon=True)
                self._worker.start()
        return None

    def settle(self) -> None:
        """Wait until everything that was asked for is there."""
        self._queue.join()

    def _work(self) -> None:
        while True:
            digest, base, new = self._queue.get()
            try:
                found = _changes(base, new)
            except Exception as error:  # a plug-in's own mistake must not end the worker
                log.exception("a comparison failed")
                found = {str(key): Change(None, "", f"{type(error).__name__}: {error}") for key in base}
            with self._lock:
                self._known[digest] = found
                self._asked.discard(digest)
                self.version += 1
            if self._queue.empty():
                self._store()
            self._queue.task_done()

    def _load(self) -> None:
        try:
            for digest, changes in read_json(self._file).items():
                self._known[digest] = {name: Change(*change) for name, change in changes.items()}
        except (RunFolderError, OSError):
            return  # none yet, or broken: made again
        except (AttributeError, TypeError, ValueError) as error:
            log.info("%s: not readable (%s); made again", self._file, error)
            self._known = {}

    def _store(self) -> None:
        with self._lock:
            kept = dict(list(self._known.items())[-_MOST:])
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._file, kept)
        except (RunFolderError, OSError) as error:
            log.warning("%s: cannot be kept (%s); the next start compares again", self._file, error)


def _changes(base: Runs, new: Runs) -> dict[str, Change]:
    outcome = or_reason(lambda: compare_over(base, new, ("base", "new"), Settings()))
    if isinstance(outcome, str):
        return {str(key): Change(None, "", outcome) for key in base if key in new}
    found = {str(key): Change(None, "", why) for key, why in outcome.refused.items()}
    if outcome.comparison is not None:
        for result in outcome.comparison.metrics:
            if not result.health:
                name = f"{result.key}:{result.name}"
                found[name] = Change(result.difference.difference, result.verdict)
    return found
