"""Ranks: equal processes that were started together (torchrun, srun) answer one run's questions.

Rank 0 holds the run folder and publishes what is left to ask. Of the groups with questions left every rank
takes every n-th, and writes a responses file of its own. Rank 0 waits until all others are done or lost, and
scores. What a lost rank has not answered is left to the same command, with however many ranks.
"""

from __future__ import annotations

import logging
import shutil
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.contracts import Json
from evalkit.engines.base import must_equal
from evalkit.engines.rank import Rank
from evalkit.engines.signs import STALE, Heart, Seen, Sign, get, interval, put
from evalkit.errors import EvalkitError, RankLost, RunFolderError
from evalkit.pipeline.environment import versions
from evalkit.store import ResponseLogs, lock

log = logging.getLogger(__name__)

#: Folder of the signs, in the run folder; taken away when all is done.
PLACE = ".ranks"
_LEAD, _PENDING = "lead.json", "pending"

#: Seconds between two looks.
_LOOK = 0.2


class Lost(NamedTuple):
    """A rank that did not end well, by name, and why."""

    name: str
    reason: str


class Lead:
    """Rank 0's side; use as a context manager within the run folder's.

    Args:
        folder: the run folder, held by this process. identity, data: of the job; others must have the same.
        timeout: seconds to wait for a rank that does not come or gives no answer.

    Raises:
        RunFolderError: ranks of an earlier start are still writing.
    """

    def __init__(self, folder: Path, rank: Rank, identity: str, data: str, timeout: float) -> None:
        self.rank = rank
        self._folder = folder
        self._place = folder / PLACE
        self._timeout = timeout
        self._seen: dict[int, Seen] = {}
        self._beat = 0
        self._place.mkdir(exist_ok=True)
        self._clear()
        self._offer: dict[str, Json] = {
            "world": rank.world,
            "identity": identity,
            "data": data,
            "versions": versions(),
        }
        self._heart = Heart(self._look, interval(rank.world))

    def __enter__(self) -> Lead:
        return self

    def publish(self, pending: Collection[int]) -> None:
        """Tell all ranks which positions are to be answered, and let them begin."""
        (self._place / _PENDING).write_bytes(array("I", sorted(pending)).tobytes())
        self._look()
        self._heart.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._heart.stop()
        with suppress(OSError):
            (self._place / _LEAD).unlink(missing_ok=True)
            if kind is None:
                shutil.rmtree(self._place, ignore_errors=True)
            elif issubclass(kind, (RankLost, KeyboardInterrupt)):
                put(self._place / _LEAD, {"ended": True})

    def wait(self) -> list[Lost]:
        """Wait for all other ranks; returns those that were lost."""
        since = time.monotonic()
        told = 0.0
        while True:
            pending = [n for n in range(1, self.rank.world) if not self._settled(n, since)]
            if not pending:
                break
            if time.monotonic() - told > STALE:
                told = time.monotonic()
                log.info("waiting for rank %s", ", ".join(map(str, pending)))
            time.sleep(_LOOK)
        self._heart.stop()
        self._await_files()
        reasons = {number: self._lost(number, since) for number in range(1, self.rank.world)}
        return [Lost(self._name(number), reason) for number, reason in reasons.items() if reason]

    def line(self) -> str:
        """How far the others are."""
        parts = []
        for number in range(1, self.rank.world):
            seen = self._seen.get(number)
            far = f"{seen.sign.get('done')}/{seen.sign.get('share')}" if seen else "not there"
            parts.append(f"rank {number} {far}" + (" lost" if seen and seen.lost(self._timeout) else ""))
        return ", ".join(parts) if len(parts) <= 8 else _many(list(self._seen.values()), self.rank.world)

    def report(self) -> dict[str, Json]:
        """What each other rank did, for the manifest."""
        names = ("host", "process", "state", "reason", "done", "share", "seconds", "file")
        return {
            "ranks": self.rank.world,
            "others": {
                str(number): {name: seen.sign.get(name) for name in names}
                for number, seen in sorted(dict(self._seen).items())
            },
        }

    def _clear(self) -> None:
        """Take away what an earlier start left; ranks of this one may be waiting already."""
        (self._place / _LEAD).unlink(missing_ok=True)
        for folder in self._place.iterdir():
            seen = Seen(folder, {})
            seen.look()
            if folder.is_dir() and not lock.is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)
            elif seen.state == "running":
                number = seen.sign.get("number")
                raise RunFolderError(
                    f"{self._folder}: rank {number} of an earlier start ({seen.who}) is still writing; wait "
                    "for it, or end it"
                )

    def _look(self) -> None:
        """Seat ranks that have come, read everybody's signs, and give one."""
        for folder in sorted(self._place.glob("*-*")):
            if not folder.is_dir() or folder in [seen.folder for seen in self._seen.values()]:
                continue
            seen = Seen(folder, {})
            seen.look()
            number = seen.sign.get("number")
            if not isinstance(number, int) or not 0 < number < self.rank.world:
                continue
            before = self._seen.get(number)
            if before is None or (before.state != "done" and before.lost(self._timeout)):
                self._seen[number] = seen
        for seen in self._seen.values():
            seen.look()
        self._beat += 1
        seats = {str(number): seen.nonce for number, seen in self._seen.items()}
        put(self._place / _LEAD, {**self._offer, "seats": seats, "beat": self._beat})

    def _settled(self, number: int, since: float) -> bool:
        seen = self._seen.get(number)
        return bool(self._lost(number, since)) or (seen is not None and seen.state == "done")

    def _lost(self, number: int, since: float) -> str:
        seen = self._seen.get(number)
        if seen is not None:
            return seen.lost(self._timeout)
        if time.monotonic() - since > self._timeout:
            return f"it did not come within {self._timeout:g} s; was it started by torchrun or srun?"
        return ""

    def _name(self, number: int) -> str:
        seen = self._seen.get(number)
        return f"rank {number} of {self.rank.world}" + (f" ({seen.who})" if seen else "")

    def _await_files(self) -> None:
        """A file system that machines share may show another's file late."""
        end = time.monotonic() + STALE
        for seen in self._seen.values():
            name, size = seen.sign.get("file"), int(seen.sign.get("size") or 0)
            path = self._folder / str(name)
            while name and time.monotonic() < end and (not path.exists() or path.stat().st_size < size):
                time.sleep(_LOOK)


class Seat:
    """The side of another rank: where it writes, and its sign of life.

    Attributes:
        folder: the run folder.
    """

    def __init__(self, folder: Path, sign: Sign) -> None:
        self.folder = folder
        self.sign = sign

    def pending(self) -> set[int]:
        """Positions that rank 0 found to be unanswered."""
        positions = array("I")
        positions.frombytes((self.folder / PLACE / _PENDING).read_bytes())
        return set(positions)

    @contextmanager
    def responses(self, rank: Rank, share: int, done: Callable[[], int]) -> Iterator[ResponseLogs]:
        """The rank's own file for its `share` of requests; `done` tells how many are answered."""
        self.sign.state, self.sign.share, self.sign.done = "running", share, done
        self.sign.write()
        own = OwnFile(self.folder, rank)
        logs = ResponseLogs(self.folder, own)
        try:
            yield logs
        finally:
            logs.close()
            if own.path is not None:
                self.sign.file, self.sign.size = own.path.name, own.path.stat().st_size


@contextmanager
def join(
    parent: Path, rank: Rank, identity: str, data: str, timeout: float, busy: Callable[[], bool]
) -> Iterator[Seat]:
    """Wait for rank 0 to open the run folder under `parent`, and take the seat of `rank` there.

    Args:
        identity, data: of the job as this rank sees it.
        busy: whether rank 0 is still at work on the task before, which this rank then waits for.

    Raises:
        RunFolderError: rank 0 does not come in `timeout` seconds, or has other software or data.
    """
    signs: dict[Path, Sign] = {}
    try:
        folder, offer = _find(parent, rank, identity, timeout, busy, signs)
        sign = signs.pop(folder)
    finally:
        for other in signs.values():
            other.release()
    heart = Heart(sign.write, interval(rank.world))
    heart.start()
    try:
        _must_agree(rank, offer, data)
        yield Seat(folder, sign)
        sign.state = "done"
    except KeyboardInterrupt:
        sign.state, sign.reason = "interrupted", "it was interrupted"
        raise
    except BaseException as error:
        sign.state = "refused" if sign.state == "waiting" else "failed"
        sign.reason = str(error).strip() or type(error).__name__
        raise
    finally:
        heart.stop()
        with suppress(OSError):
            sign.write()
        sign.release()


def _find(
    parent: Path,
    rank: Rank,
    identity: str,
    timeout: float,
    busy: Callable[[], bool],
    signs: dict[Path, Sign],
) -> tuple[Path, dict[str, Any]]:
    """Leave a sign wherever rank 0 may be, until it has seen one."""
    end = time.monotonic() + timeout
    others: set[str] = set()
    while time.monotonic() < end:
        if busy():
            end = time.monotonic() + timeout
        for path in sorted(parent.glob(f"*/{PLACE}/{_LEAD}"), reverse=True):
            folder, offer = path.parent.parent, get(path)
            if offer.get("world") != rank.world:
                continue
            if offer.get("identity") != identity:
                others.add(str(folder))
                continue
            if folder not in signs:
                signs[folder] = Sign(folder / PLACE, rank.number)
            if offer.get("seats", {}).get(str(rank.number)) == signs[folder].nonce:
                return folder, offer
            with suppress(OSError):
                signs[folder].write()
        time.sleep(_LOOK)
    differing = f"; {', '.join(sorted(others))} is of another model, task or setting" if others else ""
    raise RunFolderError(
        f"{rank.name}: rank 0 opened no run for it under {parent} in {timeout:g} s{differing}; do all ranks "
        "see the same --output and weights? (--no-ranks runs alone)"
    )


def _must_agree(rank: Rank, offer: Mapping[str, Any], data: str) -> None:
    try:
        must_equal({**versions(), "data": data}, {**offer["versions"], "data": offer["data"]}, "in rank 0")
    except EvalkitError as error:
        raise RunFolderError(f"{rank.name} is refused: {error}") from None


class OwnFile:
    """Names the responses file of a rank and an attempt, as of a worker; reserved when it is first asked for.

    Attributes:
        path: the file, None as long as there is none.
    """

    def __init__(self, folder: Path, rank: Rank) -> None:
        self._folder = folder
        self._rank = rank
        self._name = ""
        self.path: Path | None = None

    def __call__(self) -> str:
        """The name between `responses-` and `.jsonl`."""
        attempt = 0
        while self.path is None:
            attempt += 1
            self._name = f"rank{self._rank.number}of{self._rank.world}-{attempt}"
            path = self._folder / f"responses-{self._name}.jsonl"
            with suppress(FileExistsError):
                path.touch(exist_ok=False)
                self.path = path
        return self._name


class Watch:
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
        lead = get(self._folder / PLACE / _LEAD)
        if lead.get("ended"):
            raise RunFolderError(f"{self._folder}: rank 0 was interrupted; the same command goes on")
        beat = lead.get("beat")
        if beat is not None and beat != self._beat:
            self._beat, self._moved = beat, time.monotonic()
        return lock.is_held(self._folder) or time.monotonic() - self._moved < STALE


def _many(seen: list[Seen], world: int) -> str:
    done = sum(int(each.sign.get("done") or 0) for each in seen)
    share = sum(int(each.sign.get("share") or 0) for each in seen)
    return f"{len(seen)} of {world - 1} other ranks there, {done}/{share} samples"
