"""Packs planned ahead: which samples share one sequence, as a pure function of lengths, seed and epoch.

First-fit decreasing inside shuffled windows: near-full packs, while every part of training still sees a
random mix. Nothing here depends on ranks or workers, so a resumed or re-sharded run meets the same packs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mini_internvl_train.errors import TrainingDataError

#: Samples packed together; larger packs tighter, smaller mixes better.
WINDOW = 512


@dataclass(frozen=True, slots=True)
class Length:
    """What a sample costs.

    Attributes:
        tokens: of its whole sequence, visual ones included. tiles: of all its pictures.
        trained: tokens that carry loss.
        regime: which of the language model's rotary tables its length falls under (Phi-3 has two); samples
            of different ones never share a pack, or the longest would decide for its neighbours.
    """

    tokens: int
    tiles: int
    trained: int = 0
    regime: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one pack may hold."""

    max_tokens: int
    max_tiles: int

    def excess(self, length: Length) -> str | None:
        """Why a sample fits no pack, or None."""
        if length.tokens <= self.max_tokens and length.tiles <= self.max_tiles:
            return None
        return (
            f"{length.tokens} tokens and {length.tiles} tiles exceed a pack of {self.max_tokens} tokens and "
            f"{self.max_tiles} tiles: raise packing.max_tokens and packing.max_tiles, or lower max_tiles"
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
    packs: list[tuple[int, ...]] = []
    for start in range(0, len(order), WINDOW):
        packs.extend(_first_fit(lengths, order[start : start + WINDOW], bounds))
    return packs


def _first_fit(lengths: Sequence[Length], window: Sequence[int], bounds: Bounds) -> list[tuple[int, ...]]:
    """First-fit decreasing; packs come back in the order of their first sample in the window."""
    by_size = sorted(
        range(len(window)), key=lambda i: (-lengths[window[i]].tiles, -lengths[window[i]].tokens, i)
    )
    packs: list[list[int]] = []
    tokens: list[int] = []
    tiles: list[int] = []
    regimes: list[int] = []
    for position in by_size:
        length = lengths[window[position]]
        for pack in range(len(packs)):
            if (
                regimes[pack] == length.regime
                and tokens[pack] + length.tokens <= bounds.max_tokens
                and tiles[pack] + length.tiles <= bounds.max_tiles
            ):
                break
        else:
            pack = len(packs)
            packs.append([])
            tokens.append(0)
            tiles.append(0)
            regimes.append(length.regime)
        packs[pack].append(position)
        tokens[pack] += length.tokens
        tiles[pack] += length.tiles
    packs.sort(key=min)
    return [tuple(window[position] for position in sorted(pack)) for pack in packs]


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Indices 0..count-1 shuffled for one epoch, a pure function of seed and epoch."""
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    return [int(index) for index in generator.permutation(count)]
