"""How much of each data set an epoch holds: repeat_time, and the paper's ratio of general to domain data.

A fraction is a seeded random choice of lines, never the first ones: published files are sorted by source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mini_internvl_train.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Pool:
    """A data set's samples by index, with how often each comes in an epoch.

    Attributes:
        name: of the data set. first: index of its first sample. count: how many samples it has.
        repeat_time: whole number of copies, or a share below 1.
    """

    name: str
    first: int
    count: int
    repeat_time: float = 1.0

    @property
    def wanted(self) -> float:
        """Samples of an epoch."""
        return self.count * self.repeat_time


def mix(
    domain: Sequence[Pool],
    general: Sequence[Pool],
    *,
    ratio: float | None,
    share: float | None,
    seed: int,
) -> list[int]:
    """Sample indices of one epoch, before shuffling.

    Args:
        domain, general: the pools; a pool's repeat_time is applied first.
        ratio: general samples for each domain sample (paper section 3.3's r), every general set at the same
            fraction; more than the pool holds repeats it.
        share: in place of the ratio, the fraction of the general pool.
        seed: of the choice of lines.

    Raises:
        RecipeError: a ratio is asked for and there is no general data.
    """
    chosen = [index for pool in domain for index in _take(pool, pool.wanted, seed)]
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


def _take(pool: Pool, wanted: float, seed: int) -> list[int]:
    """`wanted` (rounded) indices of the pool: whole copies, then a random part of one more."""
    total = round(wanted)
    if not pool.count or not total:
        return []
    copies, rest = divmod(total, pool.count)
    indices = list(range(pool.first, pool.first + pool.count)) * copies
    if rest:
        name = int.from_bytes(hashlib.sha256(pool.name.encode()).digest()[:4], "big")
        generator = np.random.Generator(np.random.PCG64([seed, name]))
        part = generator.choice(pool.count, size=rest, replace=False)
        indices.extend(pool.first + int(index) for index in np.sort(part))
    return indices
