"""Weights, gradients and AdamW's state sharded over processes by torch's FSDP2, on GPUs and CPUs alike.

A launch by `accelerate launch` with `distributed_type: FSDP` asks for it (docs/training.md). Accelerate knows
no FSDP on CPUs, so torch's `fully_shard` is called here; each layer is sharded for itself, the rest together.
Products are taken under autocast from gathered float32 weights, as without sharding.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mini_internvl_train.errors import TrainingError
from mini_internvl_train.recipe import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator

ASKED = "ACCELERATE_USE_FSDP"


@dataclass(frozen=True, slots=True)
class Sharding:
    """How weights are sharded.

    Attributes:
        reshard: whether a layer's weights are freed again after its forward pass; else they are sharded for
            the optimizer alone.
    """

    reshard: bool

    @classmethod
    def asked(cls, precision: Precision) -> Sharding | None:
        """What the launcher asks for, or None.

        Raises:
            TrainingError: a kind that is not supported.
        """
        if not _flag(ASKED) or int(os.environ.get("WORLD_SIZE") or 1) < 2:
            return None
        if os.environ.get("FSDP_VERSION", "2") != "2":
            raise TrainingError(
                "FSDP of version 1 is asked for: set fsdp_version: 2 in the launch configuration"
            )
        if _flag("FSDP_OFFLOAD_PARAMS"):
            raise TrainingError("fsdp_offload_params is not supported: set it to false")
        if precision == "fp16":
            raise TrainingError("fp16 cannot be sharded: set precision: bf16, or leave FSDP out")
        return cls(os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false")

    def shard(self, module: nn.Module, device: torch.device) -> None:
        """Shards a module over all processes, in place; its parameters become DTensors on the device."""
        from torch.distributed import get_world_size
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (get_world_size(),))
        for layer in list(module.modules()):
            if type(layer).__name__ in LAYERS:
                fully_shard(layer, mesh=mesh, reshard_after_forward=self.reshard)
        fully_shard(module, mesh=mesh)


#: Layers that are sharded one by one.
LAYERS = ("EncoderLayer", "Qwen2DecoderLayer", "LlamaDecoderLayer", "Phi3DecoderLayer", "Qwen3DecoderLayer")


def _flag(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"


@contextlib.contextmanager
def without_accelerates_own() -> Iterator[None]:
    """Hides the launcher's wish from Accelerate, whose FSDP has no CPUs."""
    wished = os.environ.pop(ASKED, None)
    try:
        yield
    finally:
        if wished is not None:
            os.environ[ASKED] = wished


def is_sharded(module: nn.Module) -> bool:
    """Whether a module is sharded."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def accumulating(accelerator: Accelerator, module: Any, *, last: bool) -> AbstractContextManager[Any]:
    """For one micro-step's passes: gradients are exchanged in the last one of a step."""
    if is_sharded(module):
        module.set_requires_gradient_sync(last)
        return nullcontext()
    return nullcontext() if last else accelerator.no_sync(module)


def reshard(module: Any) -> None:
    """Frees gathered weights after passes without a backward one."""
    if is_sharded(module):
        module.reshard()
