"""Which samples each step sees: mix, shuffle, packs and steps, planned ahead.

An epoch's mix takes each data set by its `repeat_time` and the paper's ratio of general to domain data. A
fraction is a seeded random choice of lines, never the first ones: published files are sorted by source. A
sample goes, in its shuffled order, into the fullest of a few waiting packs that takes it: near-full packs,
while each step sees about the mix of an arrival order (`benchmarks/packing.py`). All of it is a pure function
of lengths, recipe and epoch, not of ranks or workers, so a resumed or re-sharded run sees the same packs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mini_internvl_train.errors import RecipeError, TrainingDataError
from mini_internvl_train.recipe import Recipe, Weighting


@dataclass(frozen=True, slots=True)
class SamplePool:
    """A data set's samples by index, with how often each comes in an epoch.

    Attributes:
        name: of the data set. indices: of the samples that are learned, ascending.
        repeat_time: whole number of copies, or a share below 1.
    """

    name: str
    indices: Sequence[int]
    repeat_time: float = 1.0

    @property
    def wanted(self) -> float:
        """Samples of an epoch."""
        return len(self.indices) * self.repeat_time


def mix(
    domain: Sequence[SamplePool],
    general: Sequence[SamplePool],
    *,
    ratio: float | None,
    share: float | None,
    domain_share: float = 1.0,
    seed: int,
) -> list[int]:
    """Sample indices of one epoch, before shuffling.

    Args:
        domain, general: the pools; a pool's repeat_time is applied first.
        ratio: general samples for each domain sample (paper section 3.3's r), every general set at the same
            fraction; more than the pool holds repeats it.
        share: instead of a ratio, the fraction of the general pool.
        domain_share: of each domain set's samples, before they are repeated.
        seed: of the choice of lines.

    Raises:
        RecipeError: a ratio is asked for and there is no general data.
    """
    chosen = [index for pool in domain for index in _take(pool, pool.wanted, seed, domain_share)]
    available = sum(pool.wanted for pool in general)
    if ratio is None and share is None:
        fraction = 1.0
    elif not available:
        raise RecipeError("data: a general ratio or share is asked for, and the general sets are empty")
    else:
        fraction = share if share is not None else (ratio or 0.0) * len(chosen) / available
    for pool in general:
        chosen.extend(_take(pool, pool.wanted * fraction, seed))
    return chosen


def _take(pool: SamplePool, wanted: float, seed: int, share: float = 1.0) -> list[int]:
    """`wanted` (rounded) indices of the pool: whole copies, then a random part of one more.

    Args:
        share: of the pool's samples, of which as large a part of `wanted` is then taken.
    """
    known = pool.indices
    if share < 1.0:  # one order for every share, so that smaller ones lie in larger ones
        order = set_generator(seed, pool.name, 1).permutation(len(known))
        known = sorted(known[int(place)] for place in order[: round(len(known) * share)])
    total = round(wanted * share)
    if not known or not total:
        return []
    copies, rest = divmod(total, len(known))
    indices = [*known] * copies
    if rest:
        part = set_generator(seed, pool.name).choice(len(known), size=rest, replace=False)
        indices.extend(known[int(place)] for place in np.sort(part))
    return indices


def set_generator(seed: int, name: str, *more: int) -> np.random.Generator:
    """Random numbers of a data set: a function of the seed and its name."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return np.random.Generator(np.random.PCG64([seed, number, *more]))


OPEN = 16
"""Packs that wait for more samples; more pack no tighter and mix less."""
FULL = 0.995
"""Share of a bound at which a pack waits for no more."""


@dataclass(frozen=True, slots=True)
class Length:
    """Size of a sample.

    Attributes:
        tokens: of its whole sequence, visual ones included. tiles: of all its images.
        trained: tokens that carry loss.
        regime: which of the language model's rotary tables its length falls under (Phi-3 has two); samples
            of different ones never share a pack, or the longest would decide for its neighbours.
    """

    tokens: int
    tiles: int
    trained: int = 0
    regime: int = 0


def token_weight(trained: int, weighting: Weighting) -> float:
    """Weight of each of a sample's n = `trained` tokens: 1 (token), 1/n (sample), 1/sqrt(n) (square).

    These are the weights of InternVL's loss reduction.
    """
    if weighting == "token":
        return 1.0
    return 1.0 / trained if weighting == "sample" else 1.0 / math.sqrt(trained)


def sample_weight(trained: int, weighting: Weighting) -> float:
    """Sum of a sample's token weights: its part of the denominator."""
    return trained * token_weight(trained, weighting)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of one pack."""

    max_tokens: int
    max_tiles: int

    def excess(self, length: Length) -> str | None:
        """Why a sample fits no pack, or None."""
        if length.tokens <= self.max_tokens and length.tiles <= self.max_tiles:
            return None
        return (
            f"{length.tokens} tokens and {length.tiles} tiles exceed a pack of {self.max_tokens} tokens and "
            f"{self.max_tiles} tiles: raise packing.max_tokens and packing.max_tiles, or lower max_tiles (of "
            "videos: frames)"
        )


def plan_packs(
    lengths: Sequence[Length], order: Sequence[int], bounds: Bounds, *, enabled: bool = True
) -> list[tuple[int, ...]]:
    """Packs of sample indices for one pass over `order`.

    Args:
        lengths: of every sample, by index.
        order: sample indices of this pass (an index may come more than once).
        bounds: tokens and tiles of one pack.
        enabled: False makes every sample its own pack.

    Returns:
        Packs in training order; every element of `order` is in exactly one.

    Raises:
        TrainingDataError: a sample that fits no pack.
    """
    for index in order:
        excess = bounds.excess(lengths[index])
        if excess is not None:
            raise TrainingDataError(f"sample {index}: {excess}")
    if not enabled:
        return [(index,) for index in order]
    full: list[tuple[int, ...]] = []
    waiting: list[_OpenPack] = []
    for index in order:
        pack = _best_fit(waiting, lengths[index], bounds)
        if pack is None:
            pack = _OpenPack(lengths[index].regime)
            waiting.append(pack)
        pack.add(index, lengths[index], bounds)
        if pack.fill >= FULL or len(waiting) > OPEN:
            fullest = max(waiting, key=lambda each: each.fill)
            waiting.remove(fullest)
            full.append(tuple(fullest.samples))
    return [*full, *(tuple(pack.samples) for pack in waiting)]


class _OpenPack:
    """A pack that takes more samples; those of one regime alone."""

    def __init__(self, regime: int) -> None:
        self.samples: list[int] = []
        self.regime = regime
        self.tokens = self.tiles = 0
        self.fill = 0.0

    def add(self, index: int, length: Length, bounds: Bounds) -> None:
        """Takes a sample, whether or not it fits."""
        self.samples.append(index)
        self.tokens += length.tokens
        self.tiles += length.tiles
        self.fill = max(self.tokens / bounds.max_tokens, self.tiles / bounds.max_tiles)

    def takes(self, length: Length, bounds: Bounds) -> bool:
        """Whether a sample fits."""
        return (
            self.regime == length.regime
            and self.tokens + length.tokens <= bounds.max_tokens
            and self.tiles + length.tiles <= bounds.max_tiles
        )


def _best_fit(waiting: Sequence[_OpenPack], length: Length, bounds: Bounds) -> _OpenPack | None:
    """The fullest pack that takes a sample; the oldest of equal ones."""
    return max((pack for pack in waiting if pack.takes(length, bounds)), key=lambda p: p.fill, default=None)


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Indices 0..count-1 shuffled for one epoch, a pure function of seed and epoch."""
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    return [int(index) for index in generator.permutation(count)]


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
        damaged: samples that steps leave out; packs are planned with them, so that a repaired file or a
            later `skip_bad` moves no other sample.

    Raises:
        TrainingDataError: a sample fits no pack.
    """

    def __init__(
        self,
        lengths: Sequence[Length],
        mixed: Sequence[int],
        recipe: Recipe,
        damaged: Container[int] = (),
    ) -> None:
        if not mixed:
            raise TrainingDataError(f"{recipe.data.meta}: an epoch of this mix has no sample")
        self._lengths = lengths
        self._mixed = mixed
        self._recipe = recipe
        self._damaged = damaged
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
            # two epochs are kept: the loader may be in the next one already
            self._cached = {n: p for n, p in self._cached.items() if abs(n - number) == 1}
            self._cached[number] = [Pack(number, pack) for pack in packs]
        return self._cached[number]

    def step(self, step: int) -> list[Pack]:
        """The packs of one optimizer step, counted from 0, over all ranks and micro-steps.

        They are without damaged samples; packs, and even a step, of nothing else are empty and left out.
        """
        each = self._recipe.steps.packs_per_step
        first, last = step * each, (step + 1) * each
        if self.total_packs is not None:
            last = min(last, self.total_packs)
        packs = [self._pack(position) for position in range(first, last)]
        whole = [replace(p, samples=tuple(i for i in p.samples if i not in self._damaged)) for p in packs]
        return [pack for pack in whole if pack.samples]

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
