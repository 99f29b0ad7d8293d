"""Which of the ranks that the environment promises are there.

RANK and WORLD_SIZE may be left over in a container, and a batch script sees the variables of a task that srun
never started. So every rank leaves a sign in the output folder as soon as it starts (a heartbeat as those in
the run folder), and waits for ranks that have left one, and for no others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from evalkit.engines.heartbeat import STALE, Heartbeat, RankStatus, SeenRank, interval
from evalkit.engines.rank import Rank
from evalkit.errors import RunFolderError
from evalkit.store import lock
from evalkit.store.atomic import disk_error

log = logging.getLogger(__name__)

#: Folder of the signs, in the output folder; removed by the last rank that ends.
_PLACE = ".start"
#: Seconds in which ranks that were started together have left their signs.
NO_SIGN = 15.0
#: Seconds between two looks.
_LOOK = 0.2
#: What ranks of one start have in common, where their launcher says it.
_LAUNCH = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID")


class Launch:
    """This rank's sign, and those of the others; use as a context manager.

    Args:
        runs: the output folder. asked: model and tasks, which ranks of one start have in common.

    Raises:
        RunFolderError: the folder cannot be written.
    """

    def __init__(self, runs: Path, rank: Rank, asked: Sequence[str], environment: Mapping[str, str]) -> None:
        common = [rank.world, [environment.get(name) for name in _LAUNCH], list(asked)]
        key = hashlib.sha256(json.dumps(common).encode()).hexdigest()[:12]
        self._rank = rank
        self._place = runs / _PLACE / key
        self._started = time.monotonic()
        self._signs: dict[Path, _Sign] = {}
        self._seen: set[int] = set()
        try:
            self._own = RankStatus(self._place, rank.number)
            self._own.write()
        except OSError as error:
            raise disk_error(error, runs, "give another --output") from None
        self._heartbeat = Heartbeat(self._own.write, interval(rank.world))

    def __enter__(self) -> Launch:
        self._heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._heartbeat.stop()
        self._own.release()
        shutil.rmtree(self._own.folder, ignore_errors=True)
        if self._there() <= {self._rank.number}:
            shutil.rmtree(self._place, ignore_errors=True)
        with suppress(OSError):
            self._place.parent.rmdir()

    def missing(self, seconds: float) -> frozenset[int]:
        """The ranks that have left no sign within so many seconds of this one's start."""
        world = frozenset(range(self._rank.world))
        while (left := world - self._there() - self._seen) and time.monotonic() - self._started < seconds:
            time.sleep(_LOOK)
        return frozenset(left)

    def gone(self, number: int) -> bool:
        """Whether a rank that had left a sign leaves none any more."""
        there = self._there()
        return number in self._seen and number not in there

    def _there(self) -> set[int]:
        """Ranks with a sign of life, this one among them."""
        for folder in self._place.glob("*-*"):
            if folder not in self._signs:
                self._signs[folder] = _Sign(folder)
        there = {sign.number for sign in self._signs.values() if sign.alive()} | {self._rank.number}
        self._seen |= there
        return there


class _Sign:
    """The sign of one process. On another machine it counts once it has moved: it may be a leftover."""

    def __init__(self, folder: Path) -> None:
        self._seen = SeenRank(folder)
        self._first = self._seen.status.get("beat")
        number = folder.name.partition("-")[0]
        self.number = int(number) if number.isdigit() else -1

    def alive(self) -> bool:
        """Whether its process is there."""
        self._seen.look()
        status = self._seen.status
        if status.get("host") == socket.gethostname():
            return lock.is_held(self._seen.folder)
        if self._first is None:
            self._first = status.get("beat")
        return status.get("beat") != self._first and time.monotonic() - self._seen.beat < STALE


def those_there(launch: Launch, rank: Rank, seconds: float, command: str) -> Rank | None:
    """The rank among those that are there; None if this process is alone.

    Args:
        seconds: how long ranks have, from this one's start, to leave a sign. command: that was given, to
            name the line that starts all ranks.

    Raises:
        RunFolderError: rank 0 is not there, and others are.
    """
    missing = launch.missing(seconds)
    if not missing:
        return rank
    names = ", ".join(map(str, sorted(missing)))
    fix = f"to start all of them: {rank.start(command)}"
    if len(missing) == rank.world - 1:
        log.warning(
            "the environment says %s, but no other rank gave a sign in %g s: this process runs alone (%s)",
            rank.name, seconds, fix,
        )  # fmt: skip
        return None
    if 0 in missing:
        raise RunFolderError(f"{rank.name}: rank 0 gave no sign within {seconds:g} s; {fix}")
    if not rank.number:
        log.warning("rank %s of %d gave no sign within %g s: rank 0 answers their share (%s)",
                    names, rank.world, seconds, fix)  # fmt: skip
    return dataclasses.replace(rank, without=missing)
