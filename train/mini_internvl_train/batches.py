"""Packs as tensors: several samples in one row, decoded by threads ahead of the network, in order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from mini_internvl_train.encoding import IGNORED, Encoded
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.packing import Pack, token_weight
from mini_internvl_train.recipe import Recipe, Weighting
from mini_internvl_train.sample_images import THREADS, Tiling, sample_tiles
from mini_internvl_train.samples import TrainingSample, TrainingSet


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of packs.

    Attributes:
        input_ids, labels, position_ids: int64 `[rows, length]`; padding is on the right.
        weights: float `[rows, length]`. sets: int64 `[rows, length]`, the number of each token's data set.
        segment_lengths: tokens of each row's samples, in order; what is left of the row is padding.
        tiles: uint8 `[tiles, 3, size, size]` of all rows in order, or None.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    weights: Tensor
    sets: Tensor
    segment_lengths: tuple[tuple[int, ...], ...]
    tiles: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(
            self.input_ids.to(device),
            self.labels.to(device),
            self.position_ids.to(device),
            self.weights.to(device),
            self.sets.to(device),
            self.segment_lengths,
            None if self.tiles is None else self.tiles.to(device),
        )


def collate(
    packs: Sequence[Sequence[Encoded]],
    tiles: Tensor | None,
    weighting: Weighting,
    pad_id: int,
    sets: Sequence[Sequence[int]] | None = None,
) -> Batch:
    """Rows from packs.

    Args:
        packs: each pack's samples, in order.
        tiles: tiles of all samples of all packs, in order.
        weighting: of the loss.
        pad_id: of padding, which is on the right and carries neither loss nor attention.
        sets: number of each sample's data set, as `packs`; all are of the first if it is left out.
    """
    length = max(sum(len(sample.input_ids) for sample in pack) for pack in packs)
    shape = (len(packs), length)
    ids = torch.full(shape, pad_id)
    labels = torch.full(shape, IGNORED)
    positions = torch.zeros(shape, dtype=torch.long)
    weights = torch.zeros(shape)
    owners = torch.zeros(shape, dtype=torch.long)
    for row, pack in enumerate(packs):
        start = 0
        for number, sample in enumerate(pack):
            place = slice(start, start + len(sample.input_ids))
            ids[row, place] = torch.tensor(sample.input_ids)
            labels[row, place] = torch.tensor(sample.labels)
            labels[row, start] = IGNORED  # nothing of the neighbour before predicts a sample's first token
            positions[row, place] = torch.arange(len(sample.input_ids))
            weights[row, place] = token_weight(sample.trained, weighting)
            owners[row, place] = 0 if sets is None else sets[row][number]
            start = place.stop
    segments = tuple(tuple(len(sample.input_ids) for sample in pack) for pack in packs)
    return Batch(ids, labels, positions, weights, owners, segments, tiles)


def silent_batch(pad_id: int) -> Batch:
    """A batch without loss: what a rank runs that has no pack in a micro-step."""
    ids = torch.full((1, 2), pad_id)
    nothing = torch.zeros_like(ids)
    return Batch(ids, torch.full((1, 2), IGNORED), nothing, torch.zeros(1, 2), nothing, ((2,),), None)


AHEAD = THREADS + 1
"""Micro-batches made ready ahead of the network."""


class Order(Protocol):
    """Packs by step."""

    def step(self, step: int) -> Sequence[Pack]: ...


@dataclass(frozen=True, slots=True)
class BatchLoader:
    """Makes micro-batches of packs.

    Attributes:
        data, order: the samples and their packs by step.
        tiling: how images are cut. pad_id: fills rows.
        rank, ranks: this process among all; a step's packs are dealt to the ranks in turn.
        augmented: whether images are changed as recipe and data sets say.
    """

    data: TrainingSet
    order: Order
    recipe: Recipe
    tiling: Tiling
    pad_id: int
    rank: int = 0
    ranks: int = 1
    augmented: bool = True

    def micro_steps(self, packs: Sequence[Pack]) -> int:
        """Micro-steps of a step, the same on every rank."""
        return math.ceil(math.ceil(len(packs) / self.ranks) / self.recipe.steps.packs_per_micro_step)

    def batches(self, first: int, last: int) -> Generator[Batch | TrainingDataError, None, None]:
        """Micro-batches of the steps from `first` to before `last`, in order.

        An image that cannot be decoded is told in place of its batch, so that all ranks can stop together.
        """
        waiting: deque[Future[Batch | TrainingDataError]] = deque()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="batches") as threads:
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

    def _jobs(self, first: int, last: int) -> Iterator[Callable[[], Batch | TrainingDataError]]:
        for step in range(first, last):
            packs = self.order.step(step)
            own = packs[self.rank :: self.ranks]
            each = self.recipe.steps.packs_per_micro_step
            for micro in range(self.micro_steps(packs)):
                part = own[micro * each : (micro + 1) * each]
                yield partial(self._batch, part) if part else partial(silent_batch, self.pad_id)

    def _batch(self, packs: Sequence[Pack]) -> Batch | TrainingDataError:
        try:
            return self.batch(packs)
        except TrainingDataError as error:
            return error

    def batch(self, packs: Sequence[Pack]) -> Batch:
        """One micro-batch."""
        rows = [[self._sample(index, pack.epoch) for index in pack.samples] for pack in packs]
        tiles = [
            part
            for row in rows
            for sample in row
            for part in sample_tiles(sample.conversation, sample.grids, self.tiling, sample.change.of)
        ]
        return collate(
            [[sample.encoded for sample in row] for row in rows],
            torch.cat(tiles) if tiles else None,
            self.recipe.weighting,
            self.pad_id,
            [[self.data.owner(index) for index in pack.samples] for pack in packs],
        )

    def _sample(self, index: int, epoch: int) -> TrainingSample:
        return self.data.augmented(index, epoch) if self.augmented else self.data.sample(index)
