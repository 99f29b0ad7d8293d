"""Signs of life that ranks leave for each other in a run folder: small JSON files, written again and again.

A file system that machines share is all that ranks have in common. A sign holds a counter that grows, so no
two clocks are compared; beside it lies a lock that the operating system lets go of when the process ends,
however it ends, which others on the same machine see at once.
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
from evalkit.store import lock

log = logging.getLogger(__name__)

#: Signs a second of all ranks together, and of one at most: a shared file system has other things to do.
_SIGNS, _MOST_SIGNS = 50, 2
SIGN_NAME = "sign.json"

#: Seconds without a new sign after which a process on another machine counts as lost.
STALE = 60.0


def put(path: Path, content: Json) -> None:
    """Write a small JSON file whole; it need not outlast a power cut."""
    scratch = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        scratch.write_text(json.dumps(content), encoding="ascii")
        scratch.replace(path)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def get(path: Path) -> dict[str, Any]:
    """A file that `put` wrote; empty while there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def interval(world: int) -> float:
    """Seconds between two signs of one of so many ranks."""
    return max(1 / _MOST_SIGNS, world / _SIGNS)


class Heart:
    """Calls `beat` every `seconds` in a thread until it is stopped; a full disk does not end it."""

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name="evalkit-signs")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more; it may never have begun."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _live(self) -> None:
        while not self._stop.wait(self._seconds):
            self._once()

    def _once(self) -> None:
        try:
            self._beat()
        except OSError as error:
            log.debug("signs of life cannot be written: %s", error)


class Sign:
    """The sign of one rank, in a folder of its own that is locked as long as the process lives.

    Attributes:
        state: `waiting` for rank 0, `running`, `done`, or why not: `refused`, `failed`, `interrupted`.
        share: requests that are its own; done: tells how many are answered. file, size: where they are.
    """

    def __init__(self, place: Path, number: int) -> None:
        """Raises RunFolderError where the file system cannot lock."""
        self.number = number
        self.nonce = secrets.token_hex(4)
        self.state, self.reason = "waiting", ""
        self.share = self.size = 0
        self.file = ""
        self.done: Callable[[], int] = lambda: 0
        self._beat = 0
        self._started = time.monotonic()
        self._folder = place / f"{number}-{self.nonce}"
        self._folder.mkdir(parents=True)
        self._held = lock.acquire(self._folder)

    def write(self) -> None:
        """Write it anew."""
        self._beat += 1
        names = ("number", "nonce", "state", "reason", "share", "file", "size")
        content = {name: getattr(self, name) for name in names}
        put(
            self._folder / SIGN_NAME,
            {
                **content,
                "done": self.done(),
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
class Seen:
    """What rank 0 has seen of another process' sign.

    Attributes:
        sign: the last that could be read. beat, moved: when its counter, and its progress, last changed.
    """

    folder: Path
    sign: dict[str, Any]
    beat: float = field(default_factory=time.monotonic)
    moved: float = field(default_factory=time.monotonic)

    @property
    def nonce(self) -> str:
        """The process' own name."""
        return str(self.sign.get("nonce"))

    @property
    def state(self) -> str:
        """As the process says."""
        return str(self.sign.get("state"))

    @property
    def who(self) -> str:
        """Machine and process."""
        return f"{self.sign.get('host')}, process {self.sign.get('process')}"

    def look(self) -> None:
        """Read it again."""
        new, now = get(self.folder / SIGN_NAME), time.monotonic()
        if not new or new.get("beat") == self.sign.get("beat"):
            return
        self.beat = now
        if (new.get("done"), new.get("state")) != (self.sign.get("done"), self.sign.get("state")):
            self.moved = now
        self.sign = new

    def lost(self, timeout: float) -> str:
        """Why the process counts as lost, or an empty text."""
        if self.state in ("refused", "failed", "interrupted"):
            return str(self.sign.get("reason") or self.state)
        if self.state == "done":
            return ""
        now = time.monotonic()
        here = self.sign.get("host") == socket.gethostname()
        if here and not lock.is_held(self.folder):
            self.look()
            return "" if self.state == "done" else "its process has ended"
        if now - self.beat > STALE:
            return f"no sign of it for {STALE:g} s"
        if now - self.moved > timeout:
            return f"no answer from it for {timeout:g} s"
        return ""
