"""Precision of weights and products, on a CPU without half-precision matrix instructions too.

There torch multiplies bfloat16 matrices ten to fifty times more slowly than float32 ones. So what does not
learn stays in half precision, and the memory with it, while every product is taken in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mini_internvl.linear_layers import has_half_products
from mini_internvl_train.recipe import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "float32": torch.float32,
}


def store_frozen(network: nn.Module, dtype: torch.dtype) -> None:
    """Casts what does not learn to `dtype`, in place; what learns stays float32, its master weights."""
    for parameter in network.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def emulated(precision: Precision, device: torch.device) -> bool:
    """Whether products of this precision have to be taken in float32 on this device."""
    return device.type == "cpu" and precision != "float32" and not has_half_products(DTYPES[precision])


def store_frozen_layers(network: nn.Module, dtype: torch.dtype) -> None:
    """Keeps linear layers that do not learn in `dtype`, in place; they multiply in float32."""
    shared = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    for module in network.modules():
        if type(module) is nn.Linear and not module.weight.requires_grad and id(module.weight) not in shared:
            module.weight.data = module.weight.data.to(dtype)
            module.__class__ = _FloatLinear


class _FloatLinear(nn.Linear):
    """A linear layer that multiplies in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.float(), self.weight.float(), self.bias)
