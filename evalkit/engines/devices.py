"""Several devices of one machine: a worker process each, pulling requests from one queue.

The parent hands out requests about the same pictures together and writes every answer to the responses file
of the worker that gave it. A worker that dies is replaced, and only its unanswered requests are asked again;
a request that kills its worker again when asked alone is that request's error.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from evalkit.batch_config import BATCHING
from evalkit.contracts import Failure, Json, ModelInfo, Request, Response, SampleAware
from evalkit.engines.base import Answer, Load, portable
from evalkit.errors import EvalkitError, ModelError, UsageError

log = logging.getLogger(__name__)

#: Requests handed to a worker at once; those about one image are not parted.
PART = BATCHING.device_chunk
#: Parts a worker has at hand, so that it need not wait for the next.
AHEAD = BATCHING.chunks_ahead
#: Deaths in a row without an answer after which something is wrong with more than one request.
MOST_DEATHS = 5


@dataclass
class _Worker:
    """A process, and what it was asked and has not answered."""

    number: int
    process: BaseProcess
    pipe: Connection
    parts: deque[dict[str, Request]] = field(default_factory=deque)
    ready: bool = False


class WorkerPool:
    """A model in several processes.

    Args:
        load: makes the model in worker `number`; it is pickled, so it is defined in a module.
        workers: how many.
        threads: of each worker's arithmetic on the CPU.
        includes: task files to load in every worker, for the picture handles they define.

    Attributes:
        worker: the one that gave the answer yielded last.

    Raises:
        EvalkitError: what loading raised in the first worker.
    """

    def __init__(self, load: Load, workers: int, threads: int, includes: Sequence[Path] = ()) -> None:
        self._load = load
        self._threads = threads
        self._includes = tuple(includes)
        self._context = multiprocessing.get_context("spawn")
        self._deaths = 0
        self._info: ModelInfo | None = None
        self._fresh: Iterator[list[Request]] = iter(())
        self._queue: deque[list[Request]] = deque()
        self._killers: set[str] = set()
        self.worker = "0"
        self._workers = [self._start(number) for number in range(workers)]
        try:
            while self._info is None:
                list(self._events())
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ModelInfo:
        """Identity of the model, as the first ready worker tells it."""
        assert self._info is not None  # the constructor waits for it
        return self._info

    def answers(
        self, groups: Sequence[tuple[int, ...]], request: Callable[[int], Request]
    ) -> Iterator[Answer]:
        """See `Pool.answers`.

        Raises:
            EvalkitError: workers die again and again; whatever a worker's model raises passes through.
        """
        self._fresh = _parts(groups, request)
        left = sum(map(len, groups))
        try:
            while left:
                for worker in self._workers:
                    self._feed(worker)
                for answer in self._events():
                    left -= 1
                    yield answer
        finally:
            if left:
                self._drop_work()

    def line(self) -> str:
        """Nothing: the workers are equal."""
        return ""

    def report(self) -> dict[str, Json]:
        """How many there are."""
        return {"workers": len(self._workers)}

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            _end(worker)

    def _drop_work(self) -> None:
        """After a break: workers that are still at it are replaced, so that no answer comes later."""
        self._queue.clear()
        self._fresh = iter(())
        for place, worker in enumerate(self._workers):
            if any(worker.parts):
                _end(worker)
                self._workers[place] = self._start(worker.number)

    def _start(self, number: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(theirs, self._load, number, self._threads, self._includes),
            name=f"evalkit-worker-{number}",
            daemon=True,
        )
        process.start()
        theirs.close()
        return _Worker(number, process, ours)

    def _feed(self, worker: _Worker) -> None:
        while worker.ready and len(worker.parts) < AHEAD:
            part = self._queue.popleft() if self._queue else next(self._fresh, None)
            if part is None:
                return
            worker.parts.append({request.id: request for request in part})
            try:
                worker.pipe.send(part)
            except OSError:
                return  # it is dead, which reading from it will tell

    def _events(self) -> Iterator[Answer]:
        """Waits for workers; answers they gave, or failures in their place."""
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes)):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                kind, content = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._died(worker)
                continue
            if kind == "answer":
                self._deaths = 0
                yield self._settle(worker, *content)
            elif kind == "done":
                nothing = Response(error=Failure("model", "the model gave no answer"))
                yield from [self._settle(worker, identifier, nothing) for identifier in list(worker.parts[0])]
                worker.parts.popleft()
            elif kind == "ready":
                worker.ready = True
                self._info = self._info or content
            else:
                raise content

    def _settle(self, worker: _Worker, identifier: str, response: Response) -> Answer:
        request = worker.parts[0].pop(identifier, None)
        if request is None:
            raise ModelError(
                f"model {self.info.name}: answered {identifier!r}, which was not asked or is "
                "answered already; the model's adapter is wrong"
            )
        self.worker = str(worker.number)
        return Answer(identifier, request.key(), response)

    def _died(self, worker: _Worker) -> Iterator[Answer]:
        """Replaces a worker and asks its unanswered requests again, the part it worked on in halves."""
        worker.process.join()
        self._deaths += 1
        code = worker.process.exitcode
        unanswered = [list(part.values()) for part in worker.parts if part]
        if self._deaths > MOST_DEATHS or (self._info is None and self._deaths > 1):
            raise EvalkitError(
                f"worker {worker.number} died (exit status {code}), the {self._deaths}th death without an "
                "answer between; stopped: see what it printed, or try --devices 1"
            )
        log.warning(
            "worker %d died (exit status %s); it is replaced and its %d unanswered requests are asked again",
            worker.number,
            code,
            sum(map(len, unanswered)),
        )
        self._workers[self._workers.index(worker)] = self._start(worker.number)
        if not unanswered:
            return
        working, *waiting = unanswered
        self._queue.extendleft(reversed(waiting))
        if len(working) == 1 and working[0].id in self._killers:
            died = Response(error=Failure("worker", f"its worker died (exit status {code})"))
            self.worker = str(worker.number)
            yield Answer(working[0].id, working[0].key(), died)
            return
        if len(working) == 1:
            self._killers.add(working[0].id)
        middle = len(working) // 2
        self._queue.extendleft(half for half in (working[middle:], working[:middle]) if half)


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join()


def _parts(groups: Sequence[tuple[int, ...]], request: Callable[[int], Request]) -> Iterator[list[Request]]:
    """Whole groups, until a part has enough."""
    part: list[Request] = []
    for group in groups:
        part.extend(request(position) for position in group)
        if len(part) >= PART:
            yield part
            part = []
    if part:
        yield part


def _serve(pipe: Connection, load: Load, number: int, threads: int, includes: Sequence[Path]) -> None:
    """A worker's life: load, then answer part by part until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends its workers
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from evalkit import registry

    try:
        for path in includes:
            registry.include(path)
        model = load(number)
        if isinstance(model, SampleAware):
            raise UsageError("--devices: stored predictions are read, not computed; leave it out")
        pipe.send(("ready", model.info))
        while True:
            part = pipe.recv()
            for answer in model.generate(part):
                pipe.send(("answer", answer))
            pipe.send(("done", None))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has closed the pool, or is gone
    except Exception as error:
        pipe.send(("raised", portable(error)))
