"""Which packs each step sees: a pure function of the training set's lengths, the recipe and the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.loss import sample_weight
from mini_internvl_train.packing import Bounds, Length, epoch_order, plan_packs
from mini_internvl_train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Pack:
    """Samples of one sequence, and the epoch they are seen in."""

    epoch: int
    samples: tuple[int, ...]


class PackOrder:
    """The packs of every step, epoch after epoch.

    Args:
        lengths: of every sample, by index.
        mixed: sample indices of one epoch, before shuffling.
        recipe: seed, bounds and numbers of steps.

    Raises:
        TrainingDataError: a sample fits no pack.
    """

    def __init__(self, lengths: Sequence[Length], mixed: Sequence[int], recipe: Recipe) -> None:
        if not mixed:
            raise TrainingDataError(f"{recipe.data.meta}: an epoch of this mix has no sample")
        self._lengths = lengths
        self._mixed = mixed
        self._recipe = recipe
        self._starts = [0]
        self._cached: dict[int, list[Pack]] = {}
        self.total_steps = recipe.steps.max_steps or self._steps_of_epochs(recipe.steps.epochs)
        self.total_packs = (
            None if recipe.steps.max_steps is not None else self._packs_of_epochs(recipe.steps.epochs)
        )

    def epoch(self, number: int) -> list[Pack]:
        """All packs of one epoch."""
        if number not in self._cached:
            packing = self._recipe.packing
            shuffled = epoch_order(len(self._mixed), self._recipe.seed, number)
            order = [self._mixed[position] for position in shuffled]
            bounds = Bounds(packing.max_tokens, packing.max_tiles)
            packs = plan_packs(self._lengths, order, bounds, enabled=packing.enabled)
            # two epochs are kept: the feed may be in the next one already
            self._cached = {n: p for n, p in self._cached.items() if abs(n - number) == 1}
            self._cached[number] = [Pack(number, pack) for pack in packs]
        return self._cached[number]

    def step(self, step: int) -> list[Pack]:
        """The packs of one optimizer step, counted from 0, over all ranks and micro-steps."""
        each = self._recipe.steps.packs_per_step
        first, last = step * each, (step + 1) * each
        if self.total_packs is not None:
            last = min(last, self.total_packs)
        return [self._pack(position) for position in range(first, last)]

    def denominator(self, packs: Sequence[Pack]) -> float:
        """Sum of the loss weights of a step."""
        weighting = self._recipe.weighting
        return math.fsum(
            sample_weight(self._lengths[index].trained, weighting) for pack in packs for index in pack.samples
        )

    def _pack(self, position: int) -> Pack:
        while self._start_after(len(self._starts) - 1) <= position:
            self._starts.append(self._start_after(len(self._starts) - 1))
        number = max(i for i, start in enumerate(self._starts) if start <= position)
        return self.epoch(number)[position - self._starts[number]]

    def _start_after(self, number: int) -> int:
        """Position of the first pack of the epoch after `number`, whose own start is known."""
        if number + 1 < len(self._starts):
            return self._starts[number + 1]
        return self._starts[number] + len(self.epoch(number))

    def _steps_of_epochs(self, epochs: float) -> int:
        return math.ceil(self._packs_of_epochs(epochs) / self._recipe.steps.packs_per_step)

    def _packs_of_epochs(self, epochs: float) -> int:
        whole = int(epochs)
        packs = sum(len(self.epoch(number)) for number in range(whole))
        return packs + (round((epochs - whole) * len(self.epoch(whole))) if epochs > whole else 0)
