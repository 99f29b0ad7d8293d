"""How much a batch may take of a device's memory, and what running out of it looks like."""

from __future__ import annotations

from pathlib import Path

import torch

from mini_internvl.model import MiniInternVL

SHARE = 0.5
"""Of the free memory, for the keys and values of a batch; the rest is for what a pass takes besides."""


def most_tokens(network: MiniInternVL) -> int | None:
    """Tokens whose keys and values a batch may hold; None where the free memory is not known."""
    free = free_bytes(network.device)
    return None if free is None else max(1, int(free * SHARE) // bytes_per_token(network))


def bytes_per_token(network: MiniInternVL) -> int:
    """Of the keys and values of one token in all layers."""
    config = network.language_model.config
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return (
        2 * int(config.num_hidden_layers) * int(config.num_key_value_heads) * width * network.dtype.itemsize
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    words = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in words or "not enough memory" in words or "can't allocate memory" in words)
    )
