"""How mixed and how full packs are: `python benchmarks/packing.py`.

For drawn lengths of the paper's mixes, it prints the standard deviation of a step's share of general samples,
in arrival order (neighbours share a pack) and as packed, and the share of a pack that is used, as packed and
by first-fit decreasing over windows of 512 samples, which packs tightly and sorts samples by kind.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mini_internvl_train.packing import Bounds, Length, plan_packs

BOUNDS = Bounds(16384, 48)
PACKS_PER_STEP = 8
WINDOW = 512
TOKENS_PER_TILE = 256

Pack = Sequence[int]


@dataclass(frozen=True, slots=True)
class Mixing:
    """Deviations of the share of general samples in a step, and fills: shares of the larger bound."""

    arrival: float
    packed: float
    sorted_: float
    fill: float
    sorted_fill: float


def _sample(rng: random.Random, tiles: int, least: int, most: int) -> Length:
    return Length(tiles * TOKENS_PER_TILE + rng.randint(least, most), tiles)


def _general(rng: random.Random) -> Length:
    return _sample(rng, rng.choice([0, 1, 3, 5, 7, 7, 9, 13]), 50, 900)


#: Domain samples, how many of them, and how many general ones.
MIXES: dict[str, tuple[Callable[[random.Random], Length], int, int]] = {
    "drivelm": (lambda rng: _sample(rng, 13, 80, 400), 4000, 1000),
    "bdd-x": (lambda rng: _sample(rng, 8, 100, 200), 2600, 2600),
    "medical": (lambda rng: _sample(rng, rng.choice([1, 5, 7]), 30, 200), 2500, 2500),
    "remote-sensing": (lambda rng: _sample(rng, rng.choice([1, 5]), 30, 80), 3000, 2000),
}


def measured(name: str, seed: int = 0) -> Mixing:
    """The measures of one mix."""
    rng = random.Random(seed)
    draw, domain, general = MIXES[name]
    lengths = [draw(rng) for _ in range(domain)] + [_general(rng) for _ in range(general)]
    order = list(range(len(lengths)))
    rng.shuffle(order)
    packed, tight = plan_packs(lengths, order, BOUNDS), first_fit_decreasing(lengths, order)
    ordered = in_arrival_order(lengths, order)
    return Mixing(
        *(_spread(ordered, domain), _spread(packed, domain), _spread(tight, domain)),
        *(_fill(packed, lengths), _fill(tight, lengths)),
    )


def in_arrival_order(lengths: Sequence[Length], order: Sequence[int]) -> list[Pack]:
    """Neighbours share a pack; the next begins where one does not fit."""
    packs: list[list[int]] = [[]]
    tokens = tiles = 0
    for index in order:
        tokens, tiles = tokens + lengths[index].tokens, tiles + lengths[index].tiles
        if tokens > BOUNDS.max_tokens or tiles > BOUNDS.max_tiles:
            packs.append([])
            tokens, tiles = lengths[index].tokens, lengths[index].tiles
        packs[-1].append(index)
    return list(packs)


def first_fit_decreasing(lengths: Sequence[Length], order: Sequence[int]) -> list[Pack]:
    """The largest first, each into the first pack of its window that takes it."""
    found: list[Pack] = []
    for start in range(0, len(order), WINDOW):
        window = order[start : start + WINDOW]
        packs: list[list[int]] = []
        for index in sorted(window, key=lambda i: (-lengths[i].tiles, -lengths[i].tokens)):
            fitting = (pack for pack in packs if _fits([*pack, index], lengths))
            pack = next(fitting, None)
            if pack is None:
                packs.append([index])
            else:
                pack.append(index)
        places = {index: place for place, index in enumerate(window)}
        found += sorted(packs, key=lambda pack: min(places[index] for index in pack))
    return found


def _fits(pack: Pack, lengths: Sequence[Length]) -> bool:
    tokens, tiles = sum(lengths[i].tokens for i in pack), sum(lengths[i].tiles for i in pack)
    return tokens <= BOUNDS.max_tokens and tiles <= BOUNDS.max_tiles


def _spread(packs: Sequence[Pack], domain: int) -> float:
    steps = [packs[k : k + PACKS_PER_STEP] for k in range(0, len(packs) - PACKS_PER_STEP + 1, PACKS_PER_STEP)]
    return statistics.pstdev(
        statistics.fmean(index >= domain for pack in step for index in pack) for step in steps
    )


def _fill(packs: Sequence[Pack], lengths: Sequence[Length]) -> float:
    tokens = sum(lengths[i].tokens for pack in packs for i in pack)
    tiles = sum(lengths[i].tiles for pack in packs for i in pack)
    return max(tokens / BOUNDS.max_tokens, tiles / BOUNDS.max_tiles) / len(packs)


def main() -> None:
    """Prints all mixes."""
    print("| mix | spread, arrival order | packed | sorted by size | fill, packed | sorted by size |")
    print("|---|---|---|---|---|---|")
    for name in MIXES:
        m = measured(name)
        spreads = f"{m.arrival:.4f} | {m.packed:.4f} | {m.sorted_:.4f}"
        print(f"| {name} | {spreads} | {m.fill:.1%} | {m.sorted_fill:.1%} |")


if __name__ == "__main__":
    main()
