"""Parts of a network run by what `torch.compile` makes of them: the encoder's layers and the decoding step.

The two parts of a step around attention are compiled; attention is not, since its keys grow by one a step.
All layers share one compiled function for each part; only the number of rows or tiles varies. On a GPU the
parts of a step are CUDA graphs as well, one for each padded number of rows (`decode_step.padded_rows`):
launching the kernels of a few rows one by one may take longer there than running them. On a CPU reading the
weights bounds a step, and compiling it saves nothing (docs/performance.md): only the encoder is compiled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mini_internvl.decode_step import Layer, Step
from mini_internvl.errors import CompileError
from mini_internvl.linear_layers import order_for_decoding
from mini_internvl.model import CompiledStep, MiniInternVL

DEVICES = ("cpu", "cuda")

WARM_UP = (1, 2)
"""Rows and tiles that are tried first. Two sizes, so that torch marks the dimension dynamic."""

STEPS = 3
"""Steps of each: CUDA graphs run once uncaptured, then are captured, then replayed."""

GRAPHS: dict[str, Any] = {
    "triton.cudagraphs": True,  # what mode="reduce-overhead" stands for
    "triton.cudagraph_or_error": True,  # no silent fall back to single launches
}


def compile_network(network: MiniInternVL, *, step: bool | None = None) -> None:
    """Compiles a network in place, for inference, and tries each part, so that a run does not fail at it.

    Args:
        network: to be used from this thread.
        step: whether the decoding step is compiled; None where it may pay, on a GPU.

    Raises:
        CompileError: torch.compile does not work on this device, with this Python, or on this machine.
    """
    kind = network.device.type
    if kind not in DEVICES:
        raise CompileError(f"{kind} is not compiled for, only {' and '.join(DEVICES)}; run without it")
    order_for_decoding(network.language_model)  # later on it would be another layout, compiled again
    try:
        network.vision_model.run_layer = torch.compile(_encode, fullgraph=True)
        if kind == "cuda" if step is None else step:
            network.compiled = _step_parts(kind == "cuda")
        _try(network)
    except Exception as error:  # torch raises nearly anything
        network.compiled = network.vision_model.run_layer = None
        raise CompileError(f"torch.compile does not work on {network.device}: {_cause(error)}") from error


def _encode(layer: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = layer(x)
    return out


def _step_parts(graphs: bool) -> CompiledStep:
    settings: dict[str, Any] = {"fullgraph": True}
    if graphs:
        settings["options"] = dict(GRAPHS)
    return CompiledStep(
        torch.compile(Layer.before, **settings), torch.compile(Layer.after, **settings), graphs=graphs
    )


@torch.inference_mode()
def _try(network: MiniInternVL) -> None:
    side = network.config.image_size
    for count in WARM_UP:
        network.encode_images(torch.zeros(count, 3, side, side, dtype=torch.uint8))
        if network.compiled is None:
            continue
        step: Any = Step(network)
        blank = torch.zeros(count, dtype=torch.long, device=network.device)
        for position in range(STEPS):
            step(blank, blank + position, _NoCache(), None)


class _NoCache:
    """A cache without earlier keys and values."""

    def advance(self) -> Any:
        return []

    def update(self, keys: Tensor, values: Tensor, _: int) -> tuple[Tensor, Tensor]:
        return keys, values


def _cause(error: Exception) -> str:
    """The first line of what torch says, and the fix."""
    line = next(iter(str(error).splitlines()), type(error).__name__)[:200].rstrip(". ")
    if "CxxCompiler" in line or "CppCompile" in line:
        return f"{line}; it needs a C++ compiler with OpenMP: install g++, name one by CXX, or run without it"
    return f"{line}; run without it"
