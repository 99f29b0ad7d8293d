"""A model in several processes of this machine, usually one for each GPU (`--devices`).

The parent process hands out the work and writes every answer to the responses file of the worker that gave
it. A worker that dies is replaced, and only what it had not answered is asked again. Answers come one by one
through its pipe, so the parent knows which chunk it died over.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from evalkit.batch_config import BATCHING
from evalkit.contracts import Failure, Json, ModelInfo, Request
from evalkit.engines.base import Load, SoleDriver, is_bound_to_samples, portable
from evalkit.engines.scheduler import Answer, Assignment, Groups, Scheduler
from evalkit.errors import EvalkitError, UsageError
from evalkit.text import ordinal

log = logging.getLogger(__name__)

#: Deaths in a row without an answer between, after which the run stops: more than one request is at fault.
MOST_DEATHS = 5


@dataclass
class _Worker:
    number: int
    process: BaseProcess
    pipe: Connection
    assignment: Assignment = field(init=False)
    ready: bool = False

    def __post_init__(self) -> None:
        self.assignment = Assignment(str(self.number))


class WorkerPool(SoleDriver):
    """A model in several processes.

    Args:
        load: makes the model in worker `number`; it is pickled, so it is defined in a module.
        workers: how many.
        threads: of each worker's arithmetic on the CPU.
        includes: task files to load in every worker, for the image handles they define.

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
        self._scheduler: Scheduler | None = None
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

    def answers(self, groups: Groups, request: Callable[[int], Request]) -> Iterator[Answer]:
        """See `Engine.answers`.

        Raises:
            EvalkitError: workers die again and again; whatever a worker's model raises passes through.
        """
        kept = BATCHING.groups_kept * len(self._workers)
        self._scheduler = Scheduler(groups, request, self.info.name, BATCHING.device_chunk, kept, halve=True)
        try:
            # the last answer of a chunk is followed by word that the chunk is done
            while not self._scheduler.finished or any(worker.assignment.chunks for worker in self._workers):
                for worker in self._workers:
                    self._feed(worker, self._scheduler)
                yield from self._events()
        finally:
            self._scheduler = None
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
        """Replace workers that still have work, so that no answer comes later; there are none at the end."""
        for place, worker in enumerate(self._workers):
            if worker.assignment.chunks:
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

    def _feed(self, worker: _Worker, scheduler: Scheduler) -> None:
        while worker.ready and len(worker.assignment.chunks) < BATCHING.chunks_ahead:
            chunk = scheduler.take(worker.assignment, share=1 / len(self._workers))
            if not chunk:
                return
            try:
                worker.pipe.send([asked.request for asked in chunk])
            except OSError:
                return  # it is dead, which reading from it will tell

    def _events(self) -> Iterator[Answer]:
        """Wait for workers; yields the answers they gave, or failures in their place."""
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes)):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                kind, content = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._died(worker)
                continue
            if kind == "raised":
                raise content
            if kind == "ready":
                worker.ready = True
                self._info = self._info or content
                continue
            assert self._scheduler is not None  # the worker was given work
            if kind == "answer":
                self._deaths = 0
                yield self._scheduler.answer(worker.assignment, *content)
            else:
                yield from self._scheduler.finish(worker.assignment)

    def _died(self, worker: _Worker) -> Iterator[Answer]:
        """Replace a worker; what it has not answered is asked again."""
        worker.process.join()
        self._deaths += 1
        code = worker.process.exitcode
        if self._deaths > MOST_DEATHS or (self._info is None and self._deaths > 1):
            raise EvalkitError(
                f"worker {worker.number} died (exit status {code}), the {ordinal(self._deaths)} death "
                "without an answer between; stopped: see what it printed, or try --devices 1"
            )
        log.warning(
            "worker %d died (exit status %s); it is replaced and its %d unanswered requests are asked again",
            worker.number,
            code,
            len(worker.assignment.asked),
        )
        self._workers[self._workers.index(worker)] = self._start(worker.number)
        if self._scheduler is not None:
            failure = Failure("worker", f"its worker died (exit status {code})")
            yield from self._scheduler.give_back(worker.assignment, "first", failure)


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join()


def _serve(pipe: Connection, load: Load, number: int, threads: int, includes: Sequence[Path]) -> None:
    """A worker's life: load, then answer chunk by chunk until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends its workers
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from evalkit import registry

    try:
        for path in includes:
            registry.include(path)
        model = load(number)
        if is_bound_to_samples(model):
            raise UsageError("--devices: stored predictions are read, not computed; leave it out")
        pipe.send(("ready", model.info))
        while True:
            chunk = pipe.recv()
            for answer in model.generate(chunk):
                pipe.send(("answer", answer))
            pipe.send(("done", None))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has closed the pool, or is gone
    except Exception as error:
        pipe.send(("raised", portable(error)))
