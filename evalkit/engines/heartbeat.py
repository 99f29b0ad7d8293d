"""Heartbeats of ranks: small JSON files in the run folder that each rank writes again and again.

A shared folder is all that ranks have in common. A status holds a counter that grows, so the clocks of two
machines are never compared. Next to it lies a lock that the operating system releases when the process ends,
however it ends; other processes on the same machine see that at once.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.contracts import Json
from evalkit.errors import RunFolderError
from evalkit.store import lock

log = logging.getLogger(__name__)

#: Heartbeats a second of all ranks together, and of one at most: a shared file system has other things to do.
_BEATS, _MOST_BEATS = 50, 2

#: Folder of the ranks' files, in the run folder; removed when all is done. Rank 0 writes `ZERO_NAME` there,
#: every other rank `STATUS_NAME` in a folder of its own.
PLACE, ZERO_NAME, STATUS_NAME = ".ranks", "rank0.json", "status.json"

#: Seconds without a new heartbeat after which a process on another machine counts as lost.
STALE = 60.0


def write_small(path: Path, content: Json) -> None:
    """Replace a small JSON file at once; it need not survive a power cut."""
    scratch = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        scratch.write_text(json.dumps(content), encoding="ascii")
        scratch.replace(path)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def read_small(path: Path) -> dict[str, Any]:
    """A file that `write_small` wrote; empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def interval(world: int) -> float:
    """Seconds between two heartbeats of one of so many ranks."""
    return max(1 / _MOST_BEATS, world / _BEATS)


class Heartbeat:
    """Calls `beat` every `seconds` in a thread until it is stopped; a full disk does not end it."""

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="evalkit-heartbeat")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; it need not have begun."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._once()

    def _once(self) -> None:
        try:
            self._beat()
        except OSError as error:
            log.debug("the heartbeat cannot be written: %s", error)


class RankStatus:
    """What a rank tells of itself, in a folder of its own that is locked as long as the process lives.

    Attributes:
        state: `waiting` for rank 0, `running`, `done`, or why it ended: `refused`, `failed`, `interrupted`.
        folder: of the status. share: requests that are its own. done: those answered. file, size: its
            responses file.
    """

    def __init__(self, place: Path, number: int) -> None:
        """Raises RunFolderError where the file system cannot lock."""
        self.number = number
        self.nonce = secrets.token_hex(4)
        self.state, self.reason = "waiting", ""
        self.share = self.done = self.size = 0
        self.file = ""
        self._beat = 0
        self._started = time.monotonic()
        self.folder = place / f"{number}-{self.nonce}"
        self.folder.mkdir(parents=True)
        self._held = lock.acquire(self.folder)

    def write(self) -> None:
        """Write it with the next count."""
        self._beat += 1
        names = ("number", "nonce", "state", "reason", "share", "done", "file", "size")
        write_small(
            self.folder / STATUS_NAME,
            {
                **{name: getattr(self, name) for name in names},
                "beat": self._beat,
                "host": socket.gethostname(),
                "process": os.getpid(),
                "seconds": time.monotonic() - self._started,
            },
        )

    def release(self) -> None:
        """The process has nothing more to say."""
        self._held.release()


@dataclass
class SeenRank:
    """What rank 0 has seen of another rank.

    Attributes:
        status: the last that could be read. beat, moved: when its counter, and its progress, last changed.
    """

    folder: Path
    status: dict[str, Any] = field(default_factory=dict)
    beat: float = field(default_factory=time.monotonic)
    moved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.look()

    @property
    def number(self) -> Any:
        """Which rank it says it is; anything may stand in a file."""
        return self.status.get("number")

    @property
    def nonce(self) -> str:
        """The process' own name."""
        return str(self.status.get("nonce"))

    @property
    def state(self) -> str:
        """As the process says."""
        return str(self.status.get("state"))

    @property
    def who(self) -> str:
        """Machine and process."""
        return f"{self.status.get('host')}, process {self.status.get('process')}"

    def look(self) -> None:
        """Read the status again."""
        new, now = read_small(self.folder / STATUS_NAME), time.monotonic()
        if not new or new.get("beat") == self.status.get("beat"):
            return
        self.beat = now
        if any(new.get(name) != self.status.get(name) for name in ("done", "state")):
            self.moved = now
        self.status = new

    def lost(self, timeout: float) -> str:
        """Why the rank counts as lost, or an empty text."""
        if self.state in ("refused", "failed", "interrupted"):
            return str(self.status.get("reason") or self.state)
        if self.state == "done":
            return ""
        now = time.monotonic()
        here = self.status.get("host") == socket.gethostname()
        if here and not lock.is_held(self.folder):
            self.look()
            return "" if self.state == "done" else "its process has ended"
        if now - self.beat > STALE:
            return f"no sign of it for {STALE:g} s"
        if now - self.moved > timeout:
            return f"no answer from it for {timeout:g} s"
        return ""


class RankZeroBusy:
    """Tells whether rank 0 is still at work in the run folder of the task before.

    Raises:
        RunFolderError: rank 0 has ended there, and comes to no other task.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._beat: Json = None
        self._moved = float("-inf")

    def __call__(self) -> bool:
        if self._folder is None:
            return False
        zero = read_small(self._folder / PLACE / ZERO_NAME)
        if zero.get("ended"):
            raise RunFolderError(f"{self._folder}: rank 0 was interrupted; the same command goes on")
        beat = zero.get("beat")
        if beat is not None and beat != self._beat:
            self._beat, self._moved = beat, time.monotonic()
        return lock.is_held(self._folder) or time.monotonic() - self._moved < STALE
