"""The actors of a cluster: one in every place that a node has room for, admitted if it equals the others."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evalkit import task_files
from evalkit.contracts import ModelInfo
from evalkit.engines import ray_nodes
from evalkit.engines.base import Load, must_equal
from evalkit.engines.ray_nodes import Node, Place, Shape
from evalkit.engines.ray_worker import RayWorker, Report
from evalkit.engines.scheduler import Assignment
from evalkit.environment import git_revision, versions
from evalkit.errors import EvalkitError

log = logging.getLogger(__name__)

#: Names the responses file: the driver writes all answers.
FILE = "ray"
#: Losses of a place in a row, without an answer between, after which it is not filled again.
MOST_PLACE_LOSSES = 5
#: Seconds at least that a cluster may take to give a first worker: weights are loaded in them.
_WAIT = 600.0
#: Seconds between two looks at the cluster's nodes.
_LOOK = 2.0

#: `loading`, then `loaded` between tasks, `checking` its data, `ready` for work; `doubtful` when it could not
#: be reached and Ray does not know yet what became of it.
State = Literal["loading", "loaded", "checking", "ready", "doubtful"]


@dataclass(eq=False)
class Worker:
    """An actor, its one call under way, and what it has at hand.

    Attributes:
        news: when it last answered or was given work after having none.
    """

    place: Place
    node: Node
    actor: Any
    call: Any
    state: State = "loading"
    process: int | None = None
    assignment: Assignment = field(default_factory=lambda: Assignment(FILE))
    news: float = field(default_factory=time.monotonic)
    done: int = 0
    busy: float = 0.0

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"worker {self.place[1]} on {self.node.name}"

    @property
    def speed(self) -> float | None:
        """Requests a second at work, None before it has shown it."""
        return self.done / self.busy if self.busy > 0 and self.done else None


class ActorPool:
    """All workers of a cluster.

    Args:
        load: makes the model in an actor. shape: what a worker takes of a node.
        includes: task files that are sent to the actors, with their helpers.

    Attributes:
        workers: by place. refused: name and reason of those that will not be asked, by place.
        lost: how many were lost. info: the model, as the first worker tells it.
    """

    def __init__(self, load: Load, shape: Shape, includes: Sequence[Path]) -> None:
        import ray

        self._ray = ray
        self._actor = ray.remote(RayWorker)
        self._load = load
        self._shape = shape
        self._includes = task_files.code_of(includes)
        self.workers: dict[Place, Worker] = {}
        self.refused: dict[Place, tuple[str, EvalkitError]] = {}
        self.lost = 0
        self.info: ModelInfo | None = None
        self._first = ""
        self._losses: Counter[Place] = Counter()
        self._looked = float("-inf")
        self._waiting_since = time.monotonic()

    def look(self) -> list[Worker]:
        """Fill the places of nodes that have joined; returns workers whose nodes have left."""
        if time.monotonic() - self._looked < _LOOK:
            return []
        nodes = ray_nodes.nodes()
        for node in nodes.values():
            for number in range(self._shape.places(node.resources)):
                place = (node.id, number)
                if place not in self.workers and place not in self.refused:
                    self.workers[place] = self._start(place, node)
        self._looked = time.monotonic()
        return [worker for worker in self.workers.values() if worker.node.id not in nodes]

    def _start(self, place: Place, node: Node) -> Worker:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = self._actor.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            max_restarts=0,
            **self._shape.resources(node.resources),
        ).remote()
        threads = self._shape.threads(node.resources)
        call = actor.load.remote(self._load, self._includes, threads, self._shape.accelerator)
        return Worker(place, node, actor, call)

    def admit(self, worker: Worker, report: Report) -> None:
        """Take a loaded worker in.

        Raises:
            EvalkitError: it is not what this process and the first worker are, naming what differs.
        """
        must_equal(report.versions, versions(), "in the driver")
        if self.info is None:
            self.info, self._first = report.info, worker.name
        must_equal(_identity(report.info), _identity(self.info), f"in {self._first}")
        if report.commit != git_revision():
            log.warning("%s runs another state of the code (%s) than the driver", worker.name, report.commit)
        worker.state, worker.process = "loaded", report.process
        log.info("%s is ready (process %d%s)", worker.name, report.process,
                 "".join(f", {name}" for name in report.accelerators))  # fmt: skip

    def answered(self, worker: Worker, count: int, busy: float) -> None:
        """The worker gave answers: it is well, and this fast."""
        worker.news = time.monotonic()
        worker.done += count
        worker.busy += busy
        self._losses[worker.place] = 0

    def remove(self, worker: Worker, cause: str, blame: bool) -> None:
        """Take a lost worker out; its place is filled again unless it was lost too often."""
        self._end(worker)
        self.lost += 1
        self._losses[worker.place] += blame
        if self._losses[worker.place] >= MOST_PLACE_LOSSES:
            text = (
                f"lost {MOST_PLACE_LOSSES} times in a row without an answer between, the last time: {cause}"
            )
            self.refuse(worker, EvalkitError(text))
        self._looked = float("-inf")

    def forgive(self, worker: Worker) -> None:
        """It was the group's fault."""
        self._losses[worker.place] = 0

    def refuse(self, worker: Worker, error: EvalkitError) -> None:
        """Take a worker out for good."""
        self._end(worker)
        self.refused[worker.place] = worker.name, error
        log.warning("%s is refused: %s", worker.name, error)

    def check_alive(self, timeout: float) -> None:
        """Raises EvalkitError where no worker is left, or none has come for so long, or `_WAIT`."""
        timeout = max(timeout, _WAIT)
        if any(worker.state != "loading" for worker in self.workers.values()):
            self._waiting_since = time.monotonic()
        elif not self.workers and self.refused:
            (name, first), *others = self.refused.values()
            if self.info is None and not others:
                raise first
            more = f" (and {len(others)} more)" if others else ""
            raise type(first)(f"no worker is left: {name}: {first}{more}")
        elif time.monotonic() - self._waiting_since > timeout:
            found = f"{len(self.workers)} wait for room or load" if self.workers else "no node has room"
            raise EvalkitError(
                f"the cluster gave no worker in {timeout:g} s: {found}; see `ray status`, --cpus-per-worker "
                "and --worker-timeout"
            )

    def close(self) -> None:
        """End all of them."""
        for worker in list(self.workers.values()):
            self._end(worker)

    def _end(self, worker: Worker) -> None:
        self.workers.pop(worker.place, None)
        worker.call = None
        try:
            self._ray.kill(worker.actor)
        except Exception as error:  # it, or the cluster, is gone already
            log.debug("%s: %s", worker.name, error)


def _identity(info: ModelInfo) -> dict[str, object]:
    """What must be the same in all workers; the device need not."""
    found = dataclasses.asdict(info)
    for name in ("device", "engine", "settings", "notes", "weights"):
        del found[name]
    return {**found, **info.settings}
