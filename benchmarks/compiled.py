"""What `--compile` saves: encoding a tile and a decoding step, plain and compiled, on this machine.

    python benchmarks/compiled.py [--device cuda] [--dtype bfloat16] [--layers N] [--model tiny] [--threads N]

The network has InternVL2-1B's widths and random weights (`--layers` cuts both its stacks), or is the embedded
model. Plain and compiled take turns in one process, and the better round counts. A ratio above 1 says that
compiling pays; the seconds that it took are printed too. On a CPU `--compile` leaves the step as it is, for
there it does not pay; here it is compiled all the same, to see.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

READ = 300
"""Tokens read before the steps."""

ROUNDS = 3


def build(options: argparse.Namespace) -> Any:
    """The network, on its device."""
    import throughput
    import torch

    import mini_internvl

    if options.model == "tiny":
        return mini_internvl.load("mini-internvl-tiny", device=options.device, dtype=options.dtype)
    network = throughput.build("1b", options.layers)
    return network.to(device=options.device, dtype=getattr(torch, options.dtype))


def step(network: Any, rows: int, steps: int) -> Callable[[], None]:
    """Decodes so many tokens of every row after a prompt of `READ` tokens."""
    import torch

    from mini_internvl.decode_step import Step
    from mini_internvl.prefix_cache import SharedPrefixCache

    config = network.language_model.config
    heads = config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    read = torch.zeros(rows, heads, READ, width, dtype=network.dtype, device=network.device)
    tokens = torch.zeros(rows, dtype=torch.long, device=network.device)

    def run() -> None:
        cache = SharedPrefixCache([(rows, None)], READ)
        for layer in range(config.num_hidden_layers):
            cache.store(read, read, layer, 0)
        run_step = Step(network)
        for place in range(steps):
            run_step(tokens, tokens + READ + place, cache, None)

    return run


def encode(network: Any, tiles: int) -> Callable[[], None]:
    """Encodes so many tiles."""
    import torch

    side = network.config.image_size
    pixels = torch.zeros(tiles, 3, side, side, dtype=torch.uint8, device=network.device)
    return lambda: network.encode_images(pixels)


def seconds(work: Callable[[], None], device: str) -> float:
    """Of one go."""
    import torch

    started = time.perf_counter()
    with torch.inference_mode():
        work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="1b", choices=["1b", "tiny"])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    import torch

    from mini_internvl.compiled import compile_network
    from mini_internvl.linear_layers import order_for_decoding

    if options.threads:
        torch.set_num_threads(options.threads)
    network = build(options)
    order_for_decoding(network.language_model)
    works = {
        f"step of {rows} {'row' if rows == 1 else 'rows'}": (
            step(network, rows, options.steps),
            options.steps,
        )
        for rows in (1, 12)
    }
    works |= {
        f"encoding {tiles} {'tile' if tiles == 1 else 'tiles'}": (encode(network, tiles), 1)
        for tiles in (1, 4)
    }
    started = time.perf_counter()
    compile_network(network, step=True)
    print(f"compiled in {time.perf_counter() - started:.1f} s")
    ways = {
        "plain": (None, None),
        "compiled": (network.compiled, network.vision_model.run_layer),
    }
    print(f"{'':20}{'plain, ms':>12}{'compiled, ms':>14}{'ratio':>8}")
    for name, (work, count) in works.items():
        best = dict.fromkeys(ways, float("inf"))
        for turn in range(1 + ROUNDS):
            for way, (parts, run_layer) in ways.items():
                network.compiled, network.vision_model.run_layer = parts, run_layer
                taken = seconds(work, options.device)
                if turn:  # the first is for warming up
                    best[way] = min(best[way], taken / count)
        plain, compiled = best["plain"] * 1e3, best["compiled"] * 1e3
        print(f"{name:20}{plain:12.2f}{compiled:14.2f}{plain / compiled:8.2f}", flush=True)


if __name__ == "__main__":
    main()
