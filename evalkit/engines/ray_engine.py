"""`--engine ray`: the model runs in actors of a Ray cluster, and this process hands out work.

This process alone writes. An actor's answers count when they arrive here, so a lost actor costs the requests
it had at hand, and no answer is stored twice.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.batch_config import BATCHING
from evalkit.contracts import Failure, Json, ModelInfo, Request
from evalkit.engines import ray_nodes
from evalkit.engines.base import Load, SoleDriver
from evalkit.engines.ray_actors import ActorPool, Worker
from evalkit.engines.ray_nodes import NodeStatistics
from evalkit.engines.ray_worker import Delivery, Keyed, Shipper, data_hash
from evalkit.engines.scheduler import MOST_LOSSES, Answer, Asked, Blame, Groups, Scheduler
from evalkit.errors import EvalkitError

log = logging.getLogger(__name__)

#: Requests whose content a worker must see as the driver does before its first group.
_PROBES = 16
#: Seconds to wait for news before looking at time-outs and nodes again.
_PATIENCE = 0.5


@dataclass(frozen=True)
class RayOptions:
    """How the cluster is used.

    Attributes:
        address: of a running cluster; None starts one on this machine.
        cores: of a worker. ship: whether images travel with their requests.
        timeout: seconds without an answer after which a worker that has work counts as hanging; and without
            any worker, after which the run is stopped.
        device: as on the command line.
    """

    address: str | None = None
    cores: int | None = None
    ship: bool = False
    timeout: float = 1800.0
    device: str = "auto"


class RayEngine(SoleDriver):
    """A model in the actors of a Ray cluster.

    Args:
        load: makes the model in an actor.
        options: how the cluster is used.
        includes: task files that requests' image handles may come from; they are sent, with their helpers.

    Raises:
        EvalkitError: no cluster, or what loading raised where no actor can load.
    """

    def __init__(self, load: Load, options: RayOptions, includes: Sequence[Path] = ()) -> None:
        self._options = options
        self._owned = ray_nodes.connect(options.address)
        import ray

        self._ray: Any = ray
        self._scheduler: Scheduler | None = None
        self._probe: list[Request] = []
        self._data: tuple[str, tuple[str, ...]] = ("", ())
        self._statistics = NodeStatistics()
        self._memory: dict[str, int] = {}
        try:
            self._actors = ActorPool(load, ray_nodes.shape(options.device, options.cores), includes)
        except BaseException:
            self._disconnect()
            raise
        try:
            while self._actors.info is None:
                list(self._events())
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ModelInfo:
        """Identity of the model, as the first actor tells it and every other must."""
        info = self._actors.info
        assert info is not None  # the constructor waits for it
        return dataclasses.replace(info, engine="ray")

    def answers(self, groups: Groups, request: Callable[[int], Request]) -> Iterator[Answer]:
        """See `Engine.answers`.

        Raises:
            EvalkitError: no worker is left; an error for the user that the model raised.
        """
        workers = self._actors.workers
        kept = BATCHING.groups_kept * len(workers)
        self._scheduler = Scheduler(groups, request, self.info.name, BATCHING.ray_chunk, kept)
        self._probe = [request(group[0]) for group in groups[:: max(1, len(groups) // _PROBES)][:_PROBES]]
        self._data = data_hash(self._probe)
        self._statistics = NodeStatistics()
        for worker in workers.values():
            if worker.state == "ready":
                worker.state = "loaded"
        try:
            # the last answer of a chunk is followed by word that the chunk is done
            while not self._scheduler.finished or any(w.assignment.chunks for w in workers.values()):
                self._feed(self._scheduler)
                yield from self._events()
        finally:
            self._statistics.stop()
            self._scheduler = None
            for worker in list(workers.values()):
                if worker.assignment.chunks:  # broken off: no answer may come later
                    self._actors.remove(worker, "", blame=False)

    def line(self) -> str:
        """Speed and load of each node."""
        return self._statistics.line()

    def report(self) -> dict[str, Json]:
        """Nodes with their speed, workers that were lost, and those that were refused."""
        actors = self._actors
        return {
            "address": self._options.address,
            "workers": len(actors.workers),
            "workers_lost": actors.lost,
            "workers_refused": {name: str(error) for name, error in actors.refused.values()},
            "worker_peak_memory": dict(self._memory),
            "data_hash": self._data[0],
            "pictures_sent": self._options.ship,
            "nodes": self._statistics.report(),
        }

    def close(self) -> None:
        """End the actors; a cluster that was started here ends with them."""
        self._actors.close()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._owned:
            self._ray.shutdown()
            self._owned = False

    def _feed(self, scheduler: Scheduler) -> None:
        """Give every worker that waits its next step."""
        workers = [worker for worker in self._actors.workers.values() if worker.call is None]
        if not workers:
            return
        known = [speed for worker in self._actors.workers.values() if (speed := worker.speed)]
        usual = sum(known) / len(known) if known else 1.0
        total = sum(worker.speed or usual for worker in self._actors.workers.values())
        for worker in workers:
            if worker.state == "loaded":
                shipper = self._shipper()
                worker.state, worker.news = "checking", time.monotonic()
                worker.call = worker.actor.data_hash.remote([shipper(request) for request in self._probe])
            elif worker.state == "ready":
                self._give(worker, scheduler, (worker.speed or usual) / total)

    def _give(self, worker: Worker, scheduler: Scheduler, share: float) -> None:
        assignment = worker.assignment
        if not assignment.chunks:
            worker.news = time.monotonic()
        new: list[list[Keyed]] = []
        while len(assignment.chunks) < BATCHING.chunks_ahead and (chunk := scheduler.take(assignment, share)):
            new.append(self._packed(chunk))
        if assignment.chunks:
            worker.call = worker.actor.exchange.remote(new)

    def _packed(self, chunk: Sequence[Asked]) -> list[Keyed]:
        shipper = self._shipper()
        for asked in chunk:
            asked.key = asked.request.key()
        return [(shipper(asked.request), asked.key) for asked in chunk]

    def _shipper(self) -> Callable[[Request], Request]:
        return Shipper().pack if self._options.ship else _as_it_is

    def _events(self) -> Iterator[Answer]:
        """Wait a moment for news from workers and nodes; answers, or errors in their place."""
        actors = self._actors
        for worker in actors.look():
            yield from self._lose(worker, "its node left the cluster", blame=False)
        actors.check_alive(self._options.timeout)
        calls = {worker.call: worker for worker in actors.workers.values() if worker.call is not None}
        if not calls:
            time.sleep(_PATIENCE / 10)
            return
        ready, _ = self._ray.wait(list(calls), num_returns=1, timeout=_PATIENCE)
        if ready and len(calls) > 1:
            ready, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
        for call in ready:
            calls[call].call = None
            yield from self._take(calls[call], call)
        limit = time.monotonic() - self._options.timeout
        for worker in list(actors.workers.values()):
            if worker.call is not None and worker.state != "loading" and worker.news < limit:
                yield from self._lose(
                    worker, f"gave no answer for {self._options.timeout:g} s", kind="timeout"
                )

    def _take(self, worker: Worker, call: Any) -> Iterator[Answer]:
        """What a worker's call brought."""
        from ray.exceptions import RayError, RayTaskError

        try:
            brought = self._ray.get(call)
        except RayTaskError as error:
            text = str(error).strip().splitlines()[-1]
            cause = error.cause if isinstance(error.cause, EvalkitError) else EvalkitError(text)
            if worker.state == "loading":
                self._actors.refuse(worker, cause)
            else:
                yield from self._lose(worker, str(cause))
        except RayError as error:
            yield from self._died(worker, error)
        else:
            yield from self._use(worker, brought)

    def _use(self, worker: Worker, brought: Any) -> Iterator[Answer]:
        if worker.state == "loading":
            try:
                self._actors.admit(worker, brought)
            except EvalkitError as error:
                self._actors.refuse(worker, error)
        elif worker.state == "checking":
            self._check(worker, *brought)
        elif worker.state == "doubtful":
            yield from self._lose(worker, "it could not be reached for a moment", blame=False)
        else:
            yield from self._receive(worker, brought)

    def _check(self, worker: Worker, digest: str, keys: tuple[str, ...]) -> None:
        here, wanted = self._data
        if digest == here:
            worker.state = "ready"
            self._statistics.workers(worker.node.name, 1)
            return
        differing = [r for r, one, other in zip(self._probe, keys, wanted, strict=True) if one != other]
        places = [path for image in differing[0].images for path in image.paths()]
        self._actors.refuse(
            worker,
            EvalkitError(
                f"data {digest[:8]} there, {here[:8]} in the driver: {len(differing)} of {len(keys)} samples "
                f"differ, the first {differing[0].id!r} ({', '.join(places[:2]) or 'no image'}); "
                "let it see the same data root, or give --ship-data"
            ),
        )

    def _receive(self, worker: Worker, delivery: Delivery) -> Iterator[Answer]:
        """Answers in the order given, then what ended."""
        tokens = sum(response.new_tokens for _, response in delivery.answers)
        self._statistics.add(worker.node.name, len(delivery.answers), tokens, delivery.busy)
        if delivery.answers or delivery.finished:
            self._actors.answered(worker, len(delivery.answers), delivery.busy)
        for name, size in delivery.memory.items():
            self._memory[name] = max(size, self._memory.get(name, 0))
        scheduler = self._scheduler
        assert scheduler is not None  # the worker was given work
        for identifier, response in delivery.answers:
            yield scheduler.answer(worker.assignment, identifier, response)
        for _ in range(delivery.finished):
            yield from scheduler.finish(worker.assignment)
        if delivery.fault == "raised":
            raise delivery.error or EvalkitError(f"{worker.name} stopped")
        if delivery.fault == "foreign":
            error = EvalkitError(f"{delivery.error}; let it see the same data root, or give --ship-data")
            self._hand_back(worker, "none", Failure("data", str(error)))
            self._actors.refuse(worker, error)
        elif delivery.fault:
            kind = "memory" if delivery.out_of_memory else "worker"
            yield from self._lose(worker, str(delivery.error), kind=kind)

    def _died(self, worker: Worker, error: Exception) -> Iterator[Answer]:
        """An actor or its whole node is gone; where Ray does not know which, the actor is asked."""
        from ray.exceptions import ActorUnavailableError

        if isinstance(error, ActorUnavailableError) and worker.state != "doubtful":
            if worker.state == "ready":
                self._statistics.workers(worker.node.name, -1)
            worker.state, worker.news = "doubtful", time.monotonic()
            worker.call = worker.actor.data_hash.remote([])
            return
        text = " ".join(str(error).split())
        memory = "OutOfMemory" in type(error).__name__ or "running low on memory" in text
        node = isinstance(error, ActorUnavailableError) or "node has died" in text
        if node or worker.node.id not in ray_nodes.nodes():
            yield from self._lose(worker, "its node cannot be reached", blame=False)
        else:
            yield from self._lose(worker, _cause(text), kind="memory" if memory else "worker")

    def _lose(self, worker: Worker, cause: str, blame: bool = True, kind: str = "worker") -> Iterator[Answer]:
        """Ask a worker's unanswered requests elsewhere; a group that cost too many workers fails."""
        log.warning(
            "%s is lost: %s; it is replaced and its %d unanswered requests are asked again",
            worker.name,
            cause,
            len(worker.assignment.asked),
        )
        failure = Failure(kind, f"its group cost {MOST_LOSSES} workers, the last: {worker.name}: {cause}")
        failed = self._hand_back(worker, "all" if blame else "none", failure)
        self._actors.remove(worker, cause, blame)
        if failed:
            self._actors.forgive(worker)
        yield from failed

    def _hand_back(self, worker: Worker, blame: Blame, failure: Failure) -> list[Answer]:
        if worker.state == "ready":
            self._statistics.workers(worker.node.name, -1)
        if self._scheduler is None:
            return []
        return self._scheduler.give_back(worker.assignment, blame, failure)


def _as_it_is(request: Request) -> Request:
    return request


def _cause(text: str) -> str:
    """The few words of Ray's long message that say how a process ended."""
    for mark in ("Worker exit detail: ", "The actor is dead because "):
        if mark in text:
            return "its process died: " + text.partition(mark)[2].partition(". Some common")[0][:200]
    return text[:200]
