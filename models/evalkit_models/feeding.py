"""Pictures ahead of the accelerator: decoded, stitched and tiled by threads, once for all their requests."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, TypeVar

from evalkit.contracts import Failure, Request

T = TypeVar("T")

#: Sets of pictures that are made ready or wait at the same time: some 25 MB each at 40 tiles.
AHEAD = 32
#: Requests about one picture that are answered together; more are answered in parts.
TOGETHER = 256
#: Threads; PIL and numpy leave Python's lock while they decode, resize and copy.
THREADS = 16


@dataclass(frozen=True)
class Ready(Generic[T]):
    """Requests about the same pictures, and the pictures made ready, or why they cannot be."""

    requests: Sequence[Request]
    pictures: T | Failure


class Feeder(Generic[T]):
    """Makes pictures ready in threads, in the order in which they are asked for.

    Args:
        make: opens and tiles the pictures of a request.

    Attributes:
        waited: seconds in which whoever takes the pictures had to wait for one.
    """

    def __init__(self, make: Callable[[Request], T | Failure]) -> None:
        self._make = make
        self._threads = ThreadPoolExecutor(
            min(THREADS, max(1, os.cpu_count() or 1)), thread_name_prefix="tiles"
        )
        self.waited = 0.0

    def batches(self, requests: Iterable[Request], rows: int) -> Iterator[list[Ready[T]]]:
        """Requests in order, those about the same pictures together.

        A batch ends at the first change of pictures after `rows` requests, or after `AHEAD` sets of pictures.
        """
        batch: list[Ready[T]] = []
        for ready in self._ready(requests):
            batch.append(ready)
            if len(batch) >= AHEAD or sum(len(part.requests) for part in batch) >= rows:
                yield batch
                batch = []
        if batch:
            yield batch

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ready(self, requests: Iterable[Request]) -> Iterator[Ready[T]]:
        waiting: deque[tuple[list[Request], Future[T | Failure]]] = deque()
        for _, alike in groupby(requests, key=pictures_of):
            group = list(alike)
            waiting.append((group, self._threads.submit(self._make, group[0])))
            if len(waiting) > AHEAD:
                yield from self._next(waiting)
        while waiting:
            yield from self._next(waiting)

    def _next(self, waiting: deque[tuple[list[Request], Future[T | Failure]]]) -> Iterator[Ready[T]]:
        group, future = waiting.popleft()
        started = time.perf_counter()
        pictures = future.result()
        self.waited += time.perf_counter() - started
        for first in range(0, len(group), TOGETHER):
            yield Ready(group[first : first + TOGETHER], pictures)


def pictures_of(request: Request) -> object:
    """What requests have in common whose tiles are the same."""
    return tuple(image.identity() for image in request.images), request.image_policy
