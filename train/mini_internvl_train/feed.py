"""Micro-batches of one rank, decoded by threads ahead of the network and handed over in order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from mini_internvl_train.batch import Batch, collate
from mini_internvl_train.order import Pack, PackOrder
from mini_internvl_train.pictures import THREADS, sample_tiles
from mini_internvl_train.recipe import Recipe
from mini_internvl_train.samples import TrainingSet
from mini_internvl_train.tiling import Tiling

AHEAD = THREADS + 1
"""Micro-batches made ready ahead of the network."""


@dataclass(frozen=True, slots=True)
class Feed:
    """What makes micro-batches of packs.

    Attributes:
        data, order: the training set and its packs by step.
        tiling: how pictures are cut. pad_id: fills rows.
        rank, ranks: this process among all; a step's packs are dealt to the ranks in turn.
    """

    data: TrainingSet
    order: PackOrder
    recipe: Recipe
    tiling: Tiling
    pad_id: int
    rank: int = 0
    ranks: int = 1

    def micro_steps(self, packs: Sequence[Pack]) -> int:
        """Micro-steps of a step, the same on every rank."""
        return math.ceil(math.ceil(len(packs) / self.ranks) / self.recipe.steps.packs_per_micro_step)

    def batches(self, first: int, last: int) -> Generator[Batch, None, None]:
        """Micro-batches of the steps from `first` to before `last`, in order."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="feed") as threads:
            try:
                for job in self._jobs(first, last):
                    waiting.append(threads.submit(job))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _jobs(self, first: int, last: int) -> Iterator[Callable[[], Batch]]:
        for step in range(first, last):
            packs = self.order.step(step)
            own = packs[self.rank :: self.ranks]
            each = self.recipe.steps.packs_per_micro_step
            for micro in range(self.micro_steps(packs)):
                part = own[micro * each : (micro + 1) * each]
                if part:
                    yield lambda part=part: self.batch(part)  # type: ignore[misc]
                else:
                    yield lambda pack=packs[0]: self.batch([pack]).silent()  # type: ignore[misc]

    def batch(self, packs: Sequence[Pack]) -> Batch:
        """One micro-batch."""
        rows = [[self.data.sample(index) for index in pack.samples] for pack in packs]
        tiles = [
            part
            for pack, row in zip(packs, rows, strict=True)
            for sample in row
            for part in sample_tiles(
                sample.conversation, sample.grids, self.tiling, seed=self.recipe.seed, epoch=pack.epoch
            )
        ]
        return collate(
            [[sample.encoded for sample in row] for row in rows],
            torch.cat(tiles) if tiles else None,
            self.recipe.weighting,
            self.pad_id,
        )
