"""Roughly what a plan will take: tokens from the plan, costs from the model family, speed of this CPU."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from evalkit.contracts import ImageHandle, ImagePolicy, Request
from evalkit.errors import ImageError
from evalkit.pipeline.plan import Plan

#: Share of the measured peaks that encoding, prefill and decoding reach here (docs/performance.md).
REACHED = 0.6

#: Distinct images opened to estimate tiles.
_PROBES = 48


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


def tile_count(width: int, height: int, policy: ImagePolicy, tile: int = 448) -> int:
    """Tiles of one image, thumbnail included (InternVL 1.5 dynamic tiling, arXiv 2404.16821, section 3.3).

    Among grids of min_tiles to max_tiles tiles the one with the nearest aspect ratio; on a tie the larger one
    if the image has more than half its area.
    """
    if policy.grid is not None:
        chosen = policy.grid[0] * policy.grid[1]
    else:
        span = range(1, policy.max_tiles + 1)
        fits = {(c, r) for c in span for r in span if policy.min_tiles <= c * r <= policy.max_tiles}
        best, chosen = float("inf"), 1
        for columns, rows in sorted(fits, key=lambda grid: grid[0] * grid[1]):
            distance = abs(width / height - columns / rows)
            area = columns * rows
            if distance < best or (distance == best and width * height > 0.5 * tile * tile * area):
                best, chosen = distance, area
    return chosen + 1 if policy.thumbnail and chosen > 1 else chosen


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a plan would cost: tiles estimated from a probe of the images, text at 4 characters a token.

    Attributes:
        images: distinct ones; image_uses: counted once for every request that shows them.
        tiles: of the distinct images; tile_uses: counted once a use, as without prefix caching.
        unreadable: one line for each probed image that cannot be opened.
        group_tiles: counted once a group, as they are prefilled with prefix caching.
        text_tokens: of all prompts; repeated_text_tokens: those that prefix caching does not prefill again.
        new_tokens_at_most: max_new_tokens of all requests together.
    """

    requests: int
    groups: int
    images: int
    image_uses: int
    tiles: int
    tile_uses: int
    group_tiles: int
    text_tokens: int
    repeated_text_tokens: int
    new_tokens_at_most: int
    unreadable: tuple[str, ...]

    def prefilled(self, tokens_per_tile: int, shared: bool) -> int:
        """Prompt tokens that are prefilled, image tokens included.

        Args:
            tokens_per_tile: of the model.
            shared: with prefix caching: what the requests of a group begin with is prefilled once.
        """
        if shared:
            return self.group_tiles * tokens_per_tile + self.text_tokens - self.repeated_text_tokens
        return self.tile_uses * tokens_per_tile + self.text_tokens

    def to_json(self) -> dict[str, object]:
        """Field names to values; images are called pictures there, as in earlier versions."""
        names = {"images": "pictures", "image_uses": "picture_uses"}
        return {names.get(name, name): value for name, value in dataclasses.asdict(self).items()}


def _common(texts: Sequence[str]) -> int:
    """Characters that all begin with."""
    low, high = min(texts), max(texts)
    return next((at for at, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))


def estimate_cost(plan: Plan, request: Callable[[int], Request]) -> CostEstimate:
    """Estimate a plan's cost, opening a few dozen images at most."""
    uses: dict[str, int] = {}
    handles: dict[str, tuple[ImageHandle, ImagePolicy]] = {}
    characters = repeated = answers = group_uses = 0
    for group in plan.groups:
        texts: list[str] = []
        for position in group:
            asked = request(position)
            texts.append("".join(message.text for message in asked.messages))
            answers += asked.generation.max_new_tokens
            for image in asked.images:
                name = image.identity()
                uses[name] = uses.get(name, 0) + 1
                handles.setdefault(name, (image, asked.image_policy))
        group_uses += len(asked.images)
        characters += sum(map(len, texts))
        repeated += (len(texts) - 1) * _common(texts)
    names = list(handles)
    step = max(1, len(names) // _PROBES)
    tiles: list[int] = []
    unreadable: list[str] = []
    for name in names[::step]:
        image, policy = handles[name]
        try:
            width, height = image.open().size
            tiles.append(tile_count(width, height, policy))
        except ImageError as error:
            unreadable.append(str(error))
    mean = sum(tiles) / len(tiles) if tiles else 0.0
    return CostEstimate(
        requests=plan.size,
        groups=len(plan.groups),
        images=len(names),
        image_uses=sum(uses.values()),
        tiles=round(mean * len(names)),
        tile_uses=round(mean * sum(uses.values())),
        group_tiles=round(mean * group_uses),
        text_tokens=characters // 4,
        repeated_text_tokens=repeated // 4,
        new_tokens_at_most=answers,
        unreadable=tuple(unreadable),
    )


@dataclass(frozen=True, slots=True)
class WorkEstimate:
    """Work of a plan, with or without prefix caching.

    Attributes:
        encoded: image tokens made. prefilled: prompt tokens. seconds: on this CPU.
    """

    encoded: int
    prefilled: int
    seconds: float


def estimate_work(cost: CostEstimate, costs: Costs, speed: Speed, shared: bool, batch: int) -> WorkEstimate:
    """Tokens and time; answers are counted half as long as they may be.

    Args:
        batch: sequences decoded together.
    """
    tiles = cost.tiles if shared else cost.tile_uses
    prefilled = cost.prefilled(costs.tokens_per_tile, shared)
    work = tiles * costs.tile_flops + prefilled * costs.token_flops
    steps = cost.new_tokens_at_most / 2 / batch
    seconds = work / (REACHED * speed.flops) + steps * costs.step_bytes / (REACHED * speed.bytes)
    return WorkEstimate(tiles * costs.tokens_per_tile, prefilled, seconds)


def memory(cost: CostEstimate, costs: Costs, batch: int) -> float:
    """Bytes of the weights, and of the keys and values of a batch over one copy of the largest prefix."""
    each = max(cost.requests, 1)
    image = cost.tile_uses / each * costs.tokens_per_tile
    text = (cost.text_tokens + cost.new_tokens_at_most) / each
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
