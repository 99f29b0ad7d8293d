"""Ranks: equal processes that were started together (torchrun, srun) and answer one run's requests.

Rank 0 holds the run folder and publishes what is left to ask. Every rank takes every n-th of the groups with
requests left, and writes a responses file of its own. Rank 0 waits until all others are done or lost, and
scores. What a lost rank has not answered is left to the same command, with any number of ranks.
"""

from __future__ import annotations

import logging
import shutil
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evalkit.contracts import Json, ModelInfo, Request
from evalkit.engines.base import Engine, must_equal
from evalkit.engines.heartbeat import (
    PLACE,
    STALE,
    ZERO_NAME,
    Heartbeat,
    RankStatus,
    SeenRank,
    interval,
    read_small,
    write_small,
)
from evalkit.engines.rank import Rank
from evalkit.engines.scheduler import Answer, Groups
from evalkit.environment import versions
from evalkit.errors import EvalkitError, RankLost, RunFolderError
from evalkit.store import lock
from evalkit.store.responses import read_responses, reserve, responses_path

log = logging.getLogger(__name__)

#: In `PLACE`: the positions that are to be answered.
_PENDING = "pending"

#: Seconds between two looks.
_LOOK = 0.2


class _RankEngine:
    """A rank's own engine, which answers the rank's share into the rank's own file."""

    def __init__(self, engine: Engine, rank: Rank, folder: Path) -> None:
        self.rank = rank
        self.folder = folder
        self._engine = engine
        self._file = ""

    @property
    def info(self) -> ModelInfo:
        """See `Engine.info`."""
        return self._engine.info

    def bind_samples(self, ids: Collection[str]) -> Mapping[str, int]:
        """See `Engine.bind_samples`."""
        return self._engine.bind_samples(ids)

    def share(self, groups: Groups) -> Groups:
        """Every n-th group."""
        return self.rank.share(groups)

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()

    def _own_answers(self, groups: Groups, request: Callable[[int], Request]) -> Iterator[Answer]:
        for answer in self._engine.answers(self.share(groups), request):
            self._file = self._file or reserve(self.folder, f"rank{self.rank.number}of{self.rank.world}")
            yield answer._replace(worker=self._file)


class RankZero(_RankEngine):
    """Rank 0, which sees all answers stored; use as a context manager within the run folder's.

    Args:
        engine: answers this rank's share. folder: the run folder, held by this process.
        identity, data: of the job; the other ranks must have the same. samples: of the whole run.
        timeout: seconds to wait for a rank that does not come or gives no answer.
        gone: whether a rank that was there has ended.

    Raises:
        RunFolderError: ranks of an earlier start are still writing.
    """

    def __init__(
        self,
        engine: Engine,
        rank: Rank,
        folder: Path,
        *,
        identity: str,
        data: str,
        samples: int,
        timeout: float,
        gone: Callable[[int], bool] = lambda number: False,
    ) -> None:
        super().__init__(engine, rank, folder)
        self._gone = gone
        self._place = folder / PLACE
        self._samples = samples
        self._timeout = timeout
        self._seen: dict[int, SeenRank] = {}
        self._beat = 0
        self._place.mkdir(exist_ok=True)
        self._clear()
        self._offer: dict[str, Json] = {
            "world": rank.world,
            "without": sorted(rank.without),
            "identity": identity,
            "data": data,
            "versions": versions(),
        }
        self._heartbeat = Heartbeat(self._look, interval(rank.world))

    def __enter__(self) -> RankZero:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._heartbeat.stop()
        with suppress(OSError):
            (self._place / ZERO_NAME).unlink(missing_ok=True)
            if kind is None:
                shutil.rmtree(self._place, ignore_errors=True)
            elif issubclass(kind, (RankLost, KeyboardInterrupt)):
                write_small(self._place / ZERO_NAME, {"ended": True})

    def answers(self, groups: Groups, request: Callable[[int], Request]) -> Iterator[Answer]:
        """Answer this rank's share, then wait until the others have answered theirs.

        Raises:
            RankLost: a rank was lost with requests left.
        """
        (self._place / _PENDING).write_bytes(
            array("I", sorted(at for group in groups for at in group)).tobytes()
        )
        self._look()
        self._heartbeat.start()
        yield from self._own_answers(groups, request)
        lost = self._wait()
        for name, reason in lost.items():
            log.warning("%s is lost: %s", name, reason)
        lacking = self._lacking(groups, request) if lost else 0
        if lacking:
            name, reason = next(iter(lost.items()))
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise RankLost(
                f"{name} was lost ({reason}){more}: {lacking} of {self._samples} samples are not answered in "
                f"{self.folder}; the same command, with any number of ranks, goes on"
            )

    def line(self) -> str:
        """How far the other ranks are."""
        world = self.rank.world
        if world > 9:
            return _many(list(self._seen.values()), world)
        parts = []
        for number in self.rank.others:
            seen = self._seen.get(number)
            far = f"{seen.status.get('done')}/{seen.status.get('share')}" if seen else "not there"
            parts.append(f"rank {number} {far}" + (" lost" if seen and seen.lost(self._timeout) else ""))
        return ", ".join(parts)

    def report(self) -> dict[str, Json]:
        """What each other rank did, for the manifest."""
        names = ("host", "process", "state", "reason", "done", "share", "seconds", "file")
        return {
            "ranks": self.rank.world,
            "others": {
                str(number): {name: seen.status.get(name) for name in names}
                for number, seen in sorted(dict(self._seen).items())
            },
        }

    def _clear(self) -> None:
        """Remove what an earlier start left; ranks of this one may be waiting already."""
        (self._place / ZERO_NAME).unlink(missing_ok=True)
        for folder in self._place.iterdir():
            seen = SeenRank(folder)
            if folder.is_dir() and not lock.is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)
            elif seen.state == "running":
                raise RunFolderError(
                    f"{self.folder}: rank {seen.number} of an earlier start ({seen.who}) is still writing; "
                    "wait for it, or end it"
                )

    def _look(self) -> None:
        """Admit ranks that have come, read every status, and write this rank's own heartbeat."""
        known = [seen.folder for seen in self._seen.values()]
        for folder in sorted(self._place.glob("*-*")):
            if not folder.is_dir() or folder in known:
                continue
            seen = SeenRank(folder)
            if seen.number not in self.rank.others:
                continue
            before = self._seen.get(seen.number)
            if before is None or (before.state != "done" and before.lost(self._timeout)):
                self._seen[seen.number] = seen
        for seen in self._seen.values():
            seen.look()
        self._beat += 1
        admitted = {str(number): seen.nonce for number, seen in self._seen.items()}
        write_small(self._place / ZERO_NAME, {**self._offer, "admitted": admitted, "beat": self._beat})

    def _wait(self) -> dict[str, str]:
        """Wait until every other rank is done or lost; returns why by the name of each lost one."""
        since = time.monotonic()
        told = 0.0
        while pending := [n for n in self.rank.others if not self._settled(n, since)]:
            if time.monotonic() - told > STALE:
                told = time.monotonic()
                log.info("waiting for rank %s", ", ".join(map(str, pending)))
            time.sleep(_LOOK)
        self._heartbeat.stop()
        self._await_files()
        reasons = {self._name(n): self._lost(n, since) for n in self.rank.others}
        return {name: reason for name, reason in reasons.items() if reason}

    def _settled(self, number: int, since: float) -> bool:
        seen = self._seen.get(number)
        return bool(self._lost(number, since)) or (seen is not None and seen.state == "done")

    def _lost(self, number: int, since: float) -> str:
        seen = self._seen.get(number)
        if seen is not None:
            return seen.lost(self._timeout)
        if self._gone(number):
            return "its process has ended before it took part"
        if time.monotonic() - since > self._timeout:
            return f"it did not come within {self._timeout:g} s; was it started by torchrun or srun?"
        return ""

    def _name(self, number: int) -> str:
        seen = self._seen.get(number)
        return f"rank {number} of {self.rank.world}" + (f" ({seen.who})" if seen else "")

    def _await_files(self) -> None:
        """A shared file system may show another machine's file late."""
        end = time.monotonic() + STALE
        for seen in self._seen.values():
            name, size = seen.status.get("file"), int(seen.status.get("size") or 0)
            path = self.folder / str(name)
            while name and time.monotonic() < end and (not path.exists() or path.stat().st_size < size):
                time.sleep(_LOOK)

    def _lacking(self, groups: Groups, request: Callable[[int], Request]) -> int:
        """Requests without an answer in any rank's file."""
        stored = read_responses(self.folder)
        requests = (request(position) for group in groups for position in group)
        return sum(r.id not in stored or stored[r.id].request_key != r.key() for r in requests)


class OtherRank(_RankEngine):
    """A rank other than 0, in the run folder that rank 0 holds."""

    def __init__(self, engine: Engine, rank: Rank, folder: Path, status: RankStatus) -> None:
        super().__init__(engine, rank, folder)
        self._status = status

    def pending(self) -> set[int]:
        """Positions that rank 0 found to be unanswered."""
        positions = array("I")
        positions.frombytes((self.folder / PLACE / _PENDING).read_bytes())
        return set(positions)

    def answers(self, groups: Groups, request: Callable[[int], Request]) -> Iterator[Answer]:
        """Answer this rank's share, and tell rank 0 how far it is."""
        status = self._status
        status.state, status.share = "running", sum(map(len, self.share(groups)))
        status.write()
        try:
            for answer in self._own_answers(groups, request):
                yield answer
                status.done += 1
        finally:
            if self._file:
                path = responses_path(self.folder, self._file)
                status.file, status.size = path.name, path.stat().st_size

    def line(self) -> str:
        """Nothing: rank 0 tells how far all are."""
        return ""

    def report(self) -> None:
        """Nothing: rank 0 writes the manifest."""


@contextmanager
def join(
    engine: Engine,
    rank: Rank,
    parent: Path,
    *,
    identity: str,
    data: str,
    timeout: float,
    busy: Callable[[], bool],
    gone: Callable[[int], bool] = lambda number: False,
) -> Iterator[OtherRank]:
    """Wait for rank 0 to open the run folder under `parent`, and take part there.

    Args:
        engine: answers this rank's share. identity, data: of the job as this rank sees it.
        busy: whether rank 0 is still at work on the task before; this rank then waits for it.
        gone: whether a rank that was there has ended.

    Raises:
        RunFolderError: rank 0 has ended, goes without this rank, does not come in `timeout` seconds, or has
            other software or data.
    """
    statuses: dict[Path, RankStatus] = {}
    try:
        folder, offer = _find(parent, rank, identity, timeout, busy, gone, statuses)
        status = statuses.pop(folder)
    finally:
        for other in statuses.values():
            other.release()
    heartbeat = Heartbeat(status.write, interval(rank.world))
    heartbeat.start()
    try:
        _must_agree(rank, offer, data)
        yield OtherRank(engine, rank, folder, status)
        status.state = "done"
    except KeyboardInterrupt:
        status.state, status.reason = "interrupted", "it was interrupted"
        raise
    except BaseException as error:
        status.state = "refused" if status.state == "waiting" else "failed"
        status.reason = str(error).strip() or type(error).__name__
        raise
    finally:
        heartbeat.stop()
        with suppress(OSError):
            status.write()
        status.release()


def _find(
    parent: Path,
    rank: Rank,
    identity: str,
    timeout: float,
    busy: Callable[[], bool],
    gone: Callable[[int], bool],
    statuses: dict[Path, RankStatus],
) -> tuple[Path, dict[str, Any]]:
    """Leave a status wherever rank 0 may be, until it has seen one."""
    end = time.monotonic() + timeout
    others: set[str] = set()
    while time.monotonic() < end:
        if busy():
            end = time.monotonic() + timeout
        elif gone(0):
            break
        for path in sorted(parent.glob(f"*/{PLACE}/{ZERO_NAME}"), reverse=True):
            folder, offer = path.parent.parent, read_small(path)
            if offer.get("world") != rank.world:
                continue
            if offer.get("identity") != identity:
                others.add(str(folder))
                continue
            if rank.number in offer.get("without", ()):
                raise RunFolderError(
                    f"{rank.name} came late: rank 0 answers its share in {folder}; start all ranks together, "
                    "or give --ranks, which waits for each of them"
                )
            if folder not in statuses:
                statuses[folder] = RankStatus(folder / PLACE, rank.number)
            if offer.get("admitted", {}).get(str(rank.number)) == statuses[folder].nonce:
                return folder, offer
            with suppress(OSError):
                statuses[folder].write()
        time.sleep(_LOOK)
    differing = f"; {', '.join(sorted(others))} is of another model, task or setting" if others else ""
    when = "before it ended" if gone(0) else f"in {timeout:g} s"
    raise RunFolderError(
        f"{rank.name}: rank 0 opened no run for it under {parent} {when}{differing}; do all ranks see the "
        "same --output and weights? (--no-ranks runs alone)"
    )


def _must_agree(rank: Rank, offer: Mapping[str, Any], data: str) -> None:
    try:
        must_equal({**versions(), "data": data}, {**offer["versions"], "data": offer["data"]}, "in rank 0")
    except EvalkitError as error:
        raise RunFolderError(f"{rank.name} is refused: {error}") from None


def _many(seen: list[SeenRank], world: int) -> str:
    done = sum(int(each.status.get("done") or 0) for each in seen)
    share = sum(int(each.status.get("share") or 0) for each in seen)
    return f"{len(seen)} of {world - 1} other ranks there, {done}/{share} samples"
