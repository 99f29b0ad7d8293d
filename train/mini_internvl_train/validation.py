"""The loss on held-out samples, by data set and over all of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from mini_internvl_train.batches import BatchLoader, silent_batch
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.log import Validated
from mini_internvl_train.packing import Bounds, Pack, plan_packs, sample_weight
from mini_internvl_train.recipe import Recipe
from mini_internvl_train.samples import TrainingSet
from mini_internvl_train.sharding import reshard

if TYPE_CHECKING:
    from mini_internvl_train.loop import Loop


class HeldOut:
    """The held-out samples in packs; a data set is a step.

    Attributes:
        names, counts, weights: of each set: its name, samples and sum of loss weights; damaged samples are
            left out, and sets of nothing else.
    """

    def __init__(self, samples: TrainingSet, recipe: Recipe) -> None:
        bounds = Bounds(recipe.packing.max_tokens, recipe.packing.max_tiles)
        self.names: list[str] = []
        self.counts: list[int] = []
        self.weights: list[float] = []
        self._packs: list[list[Pack]] = []
        for pool in samples.held_out:
            whole = [index for index in pool.indices if index not in samples.damaged]
            if not whole:
                continue
            packs = plan_packs(samples.lengths, whole, bounds, enabled=recipe.packing.enabled)
            self.names.append(pool.name)
            self.counts.append(len(whole))
            trained = (samples.lengths[index].trained for index in whole)
            self.weights.append(math.fsum(sample_weight(n, recipe.weighting) for n in trained))
            self._packs.append([Pack(0, pack) for pack in packs])

    def step(self, step: int) -> Sequence[Pack]:
        """The packs of one data set."""
        return self._packs[step]


def validation_loss(loop: Loop, loader: BatchLoader, held_out: HeldOut) -> Validated:
    """The mean loss on all held-out samples, weighted as in training; without dropout and augmentation.

    All ranks take part.

    Raises:
        TrainingDataError: an image cannot be decoded; on all ranks.
    """
    own, device = replace(loader, order=held_out, augmented=False), loop.accelerator.device
    sums = torch.zeros(len(held_out.names), device=device)
    damage: str | None = None
    loop.module.eval()
    with torch.no_grad(), contextlib.closing(own.batches(0, len(held_out.names))) as batches:
        for place, weight in enumerate(held_out.weights):
            for _ in range(own.micro_steps(held_out.step(place))):
                found = next(batches)
                if isinstance(found, TrainingDataError):
                    damage, found = damage or str(found), silent_batch(loader.pad_id)
                sums[place] += loop.forward(found.to(device), weight)
    reshard(loop.module)
    loop.module.train()
    loop.agree(damage)
    losses = loop.accelerator.reduce(sums, "sum").tolist()
    total = math.fsum(loss * weight for loss, weight in zip(losses, held_out.weights, strict=True))
    sets = {
        name: (loss, count) for name, loss, count in zip(held_out.names, losses, held_out.counts, strict=True)
    }
    return Validated(total / math.fsum(held_out.weights), sets)
