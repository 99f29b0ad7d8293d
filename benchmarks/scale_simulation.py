"""A discrete simulation of many workers under one driver, with the scheduler that `--engine ray` uses.

Groups come with their measured sizes and service times. The driver is one server: every hand-over costs it a
fixed time and a time for each request. A worker that is lost gives back what it has not answered and is
there again after `RELOAD` seconds. Ranks are simulated beside it: every n-th group, decided beforehand.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from evalkit.batch_config import BATCHING
from evalkit.contracts import Failure, Request, Response
from evalkit.engines.scheduler import Assignment, Scheduler

#: Seconds in which a worker that was lost is there again: process, libraries, weights.
RELOAD = 120.0

_NOTHING = Response()
_LOST = Failure("worker", "lost")


@dataclass(frozen=True)
class Driver:
    """Seconds of the driver for a hand-over, and for a request, from making it to its stored answer."""

    exchange: float
    request: float


@dataclass(frozen=True)
class World:
    """What is simulated.

    Attributes:
        groups: requests and service seconds of each. speeds: of each worker, 1 being that of the measurement.
        losses_an_hour: share of the workers. kept: groups kept for the end, for each worker. fixed: chunks of
            one size.
    """

    groups: Sequence[tuple[int, float]]
    speeds: Sequence[float]
    driver: Driver
    losses_an_hour: float = 0.0
    kept: int = BATCHING.groups_kept
    fixed: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """Seconds in all, efficiency (needed work of the workers' time), tail, the driver's load."""

    seconds: float
    efficiency: float
    tail: float
    driver_busy: float
    losses: int


@dataclass
class _Worker:
    speed: float
    assignment: Assignment = field(default_factory=lambda: Assignment("0"))
    arrivals: deque[float] = field(default_factory=deque)
    life: int = 0
    idle_since: float = 0.0


def simulate(world: World) -> Outcome:
    """Run it to the end."""
    return _Run(world).run()


class _Run:
    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = random.Random(world.seed)
        self._ends: list[int] = []
        groups = []
        for size, _ in world.groups:
            start = self._ends[-1] if self._ends else 0
            self._ends.append(start + size)
            groups.append(tuple(range(start, start + size)))
        self._service = {group[0]: seconds for group, (_, seconds) in zip(groups, world.groups, strict=True)}
        kept = world.kept * len(world.speeds)
        self._scheduler = Scheduler(groups, _request, "simulated", BATCHING.ray_chunk, kept)
        self._workers = [_Worker(speed) for speed in world.speeds]
        self._events: list[tuple[float, int, str, int, int]] = []
        self._free = self._busy = 0.0
        self._losses = self._count = 0
        self._speed = sum(world.speeds)

    def run(self) -> Outcome:
        for number in range(len(self._workers)):
            self._at(0.0, "ask", number)
            self._live(0.0, number)
        now = 0.0
        while not self._scheduler.finished:
            now, _, kind, number, life = heapq.heappop(self._events)
            if life == self._workers[number].life:
                getattr(self, f"_{kind}")(now, number)
        now = max(now, self._free)  # the driver has taken the last answers
        needed = sum(seconds for _, seconds in self._world.groups)
        capacity = sum(self._world.speeds) * now
        idle = min((w.idle_since for w in self._workers if not w.arrivals and w.idle_since), default=now)
        return Outcome(now, needed / capacity, now - idle, self._busy / now, self._losses)

    def _at(self, when: float, kind: str, number: int) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, kind, number, self._workers[number].life))

    def _live(self, now: float, number: int) -> None:
        if self._world.losses_an_hour:
            self._at(now + self._chance.expovariate(self._world.losses_an_hour / 3600), "lost", number)

    def _ask(self, now: float, number: int) -> None:
        """The worker waits for the driver, is handed work, and begins."""
        worker = self._workers[number]
        share = None if self._world.fixed else worker.speed / self._speed
        assignment, was_idle = worker.assignment, not worker.arrivals
        requests = 0
        while len(assignment.chunks) < BATCHING.chunks_ahead and (
            chunk := self._scheduler.take(assignment, share)
        ):
            requests += len(chunk)
        cost = self._world.driver.exchange + requests * self._world.driver.request
        self._free = max(now, self._free) + cost
        self._busy += cost
        worker.arrivals.extend([self._free] * (len(assignment.chunks) - len(worker.arrivals)))
        if not worker.arrivals:
            worker.idle_since = worker.idle_since or now
        elif was_idle:
            self._begin(now, number)

    def _begin(self, now: float, number: int) -> None:
        worker = self._workers[number]
        chunk = worker.assignment.chunks[0]
        seconds = sum(self._seconds(group.positions) for group in chunk) / worker.speed
        self._at(max(now, worker.arrivals[0]) + seconds, "done", number)

    def _done(self, now: float, number: int) -> None:
        """A chunk is answered; the next one at hand begins without waiting for the driver."""
        worker = self._workers[number]
        positions = [at for group in worker.assignment.chunks[0] for at in group.positions]
        for position in positions:
            self._scheduler.answer(worker.assignment, str(position), _NOTHING)
        list(self._scheduler.finish(worker.assignment))
        worker.arrivals.popleft()
        if worker.arrivals:
            self._begin(now, number)
        self._ask(now, number)

    def _lost(self, now: float, number: int) -> None:
        worker = self._workers[number]
        self._losses += 1
        self._scheduler.give_back(worker.assignment, "none", _LOST)
        worker.arrivals.clear()
        worker.life += 1
        worker.idle_since = 0.0
        self._at(now + RELOAD, "ask", number)
        self._live(now + RELOAD, number)
        for other, idle in enumerate(self._workers):
            if other != number and not idle.arrivals and idle.idle_since:
                idle.idle_since = 0.0
                self._at(now, "ask", other)

    def _seconds(self, positions: dict[int, None]) -> float:
        return self._service[min(positions)] if positions else 0.0


class _Request(Request):
    """A request that is not hashed."""

    def key(self) -> str:
        return self.id


def _request(position: int) -> Request:
    return _Request(str(position), (), ())


def ranks(world: World) -> Outcome:
    """The same by ranks: every n-th group, nobody helps anybody."""
    count = len(world.speeds)
    needed = [sum(seconds for _, seconds in world.groups[number::count]) for number in range(count)]
    times = [seconds / speed for seconds, speed in zip(needed, world.speeds, strict=True)]
    return Outcome(
        max(times), sum(needed) / (sum(world.speeds) * max(times)), max(times) - min(times), 0.0, 0
    )
