"""Images ahead of the model: decoded, stitched and tiled by threads, once for each group of the plan."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, TypeVar

from evalkit.batch_config import BATCHING, BatchConfig
from evalkit.contracts import Failure, Request

T = TypeVar("T")


@dataclass(frozen=True)
class Prefetched(Generic[T]):
    """Requests of one group, and their images made ready, or why they cannot be."""

    requests: Sequence[Request]
    images: T | Failure


class ImagePrefetcher(Generic[T]):
    """Makes images ready in threads, in the order in which they are asked for.

    Args:
        make: opens and tiles the images of a request.
        config: how far ahead, and by how many threads.

    Attributes:
        waited: seconds that the caller had to wait for images.
    """

    def __init__(self, make: Callable[[Request], T | Failure], config: BatchConfig = BATCHING) -> None:
        self._make = make
        self._config = config
        self._threads = ThreadPoolExecutor(
            min(config.image_threads, max(1, os.cpu_count() or 1)), thread_name_prefix="tiles"
        )
        self.waited = 0.0

    def batches(self, requests: Iterable[Request], size: int) -> Iterator[list[Prefetched[T]]]:
        """Requests in order, those of one group of the plan (`Request.group`) together.

        A batch ends with the group that reaches `size` requests, or `image_sets_ahead` sets of images.
        """
        batch: list[Prefetched[T]] = []
        for ready in self._ready(requests):
            batch.append(ready)
            sets = sum(bool(part.requests[0].images) for part in batch)
            if sets >= self._config.image_sets_ahead or sum(len(part.requests) for part in batch) >= size:
                yield batch
                batch = []
        if batch:
            yield batch

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ready(self, requests: Iterable[Request]) -> Iterator[Prefetched[T]]:
        waiting: deque[tuple[list[Request], Future[T | Failure]]] = deque()
        for group in _groups(requests):
            waiting.append((group, self._threads.submit(self._make, group[0])))
            if len(waiting) > self._config.image_sets_ahead:
                yield from self._next(waiting)
        while waiting:
            yield from self._next(waiting)

    def _next(self, waiting: deque[tuple[list[Request], Future[T | Failure]]]) -> Iterator[Prefetched[T]]:
        group, future = waiting.popleft()
        started = time.perf_counter()
        images = future.result()
        self.waited += time.perf_counter() - started
        most = self._config.requests_per_image_set
        for first in range(0, len(group), most):
            yield Prefetched(group[first : first + most], images)


def _groups(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Neighbours of one group; a request without a group is a group of its own."""
    for number, members in groupby(requests, key=lambda request: request.group):
        if number is None:
            yield from ([request] for request in members)
        else:
            yield list(members)
