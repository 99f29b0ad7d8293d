"""Weights of the language model in 8 bits, one scale an output channel; activations stay in half precision.

A generated token reads every weight once, so half the bytes are nearly half the time where memory bounds it.
The weights are rounded, and answers with them: a run says `dtype:int8` in its signature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_ROWS = 16
"""Up to so many rows the packed product is faster on a CPU than widening the weight."""

WIDENED_AT_ONCE = 1 << 24
"""Most weights widened at a time, which bounds the memory taken."""


def quantise(network: nn.Module) -> None:
    """Puts an `Int8Linear` in the place of every linear layer within. For inference only."""
    for name, child in list(network.named_children()):
        if isinstance(child, nn.Linear):
            setattr(network, name, Int8Linear(child))
        else:
            quantise(child)


class Int8Linear(nn.Module):
    """A linear layer over int8 weights: symmetric rounding, the largest weight of a channel at 127.

    Args:
        layer: whose weights are rounded.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        wide = layer.weight.detach().float()
        scale = wide.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (wide / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(layer.weight.dtype))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[:-1].numel()
        if x.device.type == "cpu" and x.dtype == torch.bfloat16 and rows <= FEW_ROWS:
            flat = torch._weight_int8pack_mm(x.reshape(rows, -1).contiguous(), self.weight, self.scale)
            out = flat.reshape(*x.shape[:-1], self.out_features)
            return out if self.bias is None else out + self.bias
        wide = x.float() if x.device.type == "cpu" else x
        step = max(1, WIDENED_AT_ONCE // self.in_features)
        parts = []
        for start in range(0, self.out_features, step):
            part = slice(start, start + step)
            weight = self.weight[part].to(wide.dtype) * self.scale[part, None].to(wide.dtype)
            bias = None if self.bias is None else self.bias[part].to(wide.dtype)
            parts.append(F.linear(wide, weight, bias).to(x.dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
