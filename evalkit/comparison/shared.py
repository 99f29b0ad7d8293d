"""What comparisons of the same runs share, so that each piece is made once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from evalkit.comparison.runs import LoadedRun, load_for_comparison
from evalkit.metrics.base import Metric
from evalkit.statistics import Resampler
from evalkit.task import Task

Part = TypeVar("Part")


class Shared(Generic[Part]):
    """Runs that were read, resamples that were drawn, and the newest comparisons of two runs.

    Not for several threads.

    Args:
        load: reads a run. most: comparisons of two runs that are kept.
    """

    def __init__(self, load: Callable[[Path], LoadedRun] = load_for_comparison, most: int = 0) -> None:
        self.load = load
        self._most = most
        self._resamplers: dict[tuple[int, int], Resampler] = {}
        self._metrics: dict[tuple[str, str], Sequence[Metric]] = {}
        self._parts: OrderedDict[Hashable, tuple[LoadedRun, LoadedRun, Part]] = OrderedDict()

    def resampler(self, seed: int, resamples: int) -> Resampler:
        """Weights depend on these two and on the clusters alone."""
        return self._resamplers.setdefault((seed, resamples), Resampler(seed, resamples))

    def metrics(self, task: Task) -> Sequence[Metric]:
        """The same objects for all runs of a task: what was found of records is kept by metric."""
        name = (task.name, task.protocol)
        if name not in self._metrics:
            self._metrics[name] = task.metrics()
        return self._metrics[name]

    def part(self, base: LoadedRun, new: LoadedRun, asked: Hashable, make: Callable[[], Part]) -> Part:
        """What `make` returns for two runs; kept by what was asked of them."""
        key = (id(base), id(new), asked)
        if key in self._parts:
            self._parts.move_to_end(key)
            return self._parts[key][2]
        found = make()
        self._parts[key] = (base, new, found)  # the runs live as long, so that no other has their ids
        while len(self._parts) > self._most:
            self._parts.popitem(last=False)
        return found
