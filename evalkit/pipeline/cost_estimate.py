"""Roughly what a plan will take: tokens from the plan, costs from the model family, speed of this CPU."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from evalkit.pipeline.plan import Outlook

#: Share of the measured peaks that encoding, prefill and decoding reach here (docs/performance.md).
REACHED = 0.6


@dataclass(frozen=True, slots=True)
class Costs:
    """What a model's work costs.

    Attributes:
        tokens_per_tile: image tokens.
        tile_flops: of encoding one tile. token_flops: of the prefill of one token.
        weight_bytes: of all weights. step_bytes: read for each generated token.
        token_bytes: of the keys and values of one token.
    """

    tokens_per_tile: int
    tile_flops: float
    token_flops: float
    weight_bytes: float
    step_bytes: float
    token_bytes: float


@runtime_checkable
class CostAware(Protocol):
    """A model family that knows costs without loading weights."""

    def costs(self, spec: str, checkpoint: str | None) -> Costs | None:
        """Costs of the model that `spec` names, None where they are not known."""
        ...


@dataclass(frozen=True, slots=True)
class Speed:
    """Of this CPU: float32 products and reading memory, each a second."""

    flops: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Work of a plan, with or without prefix caching.

    Attributes:
        encoded: image tokens made. prefilled: prompt tokens. seconds: on this CPU.
    """

    encoded: int
    prefilled: int
    seconds: float


def estimate(outlook: Outlook, costs: Costs, speed: Speed, shared: bool, batch: int) -> Estimate:
    """Tokens and time; answers are counted half as long as they may be.

    Args:
        batch: sequences decoded together.
    """
    tiles = outlook.tiles if shared else outlook.tile_uses
    prefilled = outlook.prefilled(costs.tokens_per_tile, shared)
    work = tiles * costs.tile_flops + prefilled * costs.token_flops
    steps = outlook.new_tokens_at_most / 2 / batch
    seconds = work / (REACHED * speed.flops) + steps * costs.step_bytes / (REACHED * speed.bytes)
    return Estimate(tiles * costs.tokens_per_tile, prefilled, seconds)


def memory(outlook: Outlook, costs: Costs, batch: int) -> float:
    """Bytes of the weights, and of the keys and values of a batch over one copy of the largest prefix."""
    each = max(outlook.requests, 1)
    image = outlook.tile_uses / each * costs.tokens_per_tile
    text = (outlook.text_tokens + outlook.new_tokens_at_most) / each
    return costs.weight_bytes + (image + text * batch) * costs.token_bytes


def measure() -> Speed:
    """A quarter of a second of arithmetic and reading."""
    import numpy as np

    square = np.ones((1024, 1024), dtype=np.float32)
    row = np.ones(1 << 25, dtype=np.float32)
    flops, read = 0.0, 0.0
    for _ in range(3):
        started = time.perf_counter()
        square @ square
        flops = max(flops, 2 * 1024**3 / (time.perf_counter() - started))
        started = time.perf_counter()
        row.sum()
        read = max(read, row.nbytes / (time.perf_counter() - started))
    return Speed(flops, read)
