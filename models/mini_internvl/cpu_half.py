"""Half-precision weights on a CPU without half-precision matrix instructions.

There torch multiplies bfloat16 matrices many times more slowly than float32 ones. So the weights stay in half
precision, and the memory with them, but each large product is taken in float32 and rounded once, as the
instructions would do it. A few rows, as in decoding, are bound by reading the weights and stay as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_ROWS = 4
"""Up to so many rows the plain product is faster than widening the weight."""

WIDENED_AT_ONCE = 1 << 24
"""Most weights widened at a time, which bounds the memory taken."""


def widen_products(network: nn.Module) -> None:
    """Makes every linear layer and convolution multiply in float32. Parameters and their names stay."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = WideLinear
        elif type(module) is nn.Conv2d:
            module.__class__ = WideConv2d


def has_half_products(dtype: torch.dtype) -> bool:
    """Whether this CPU has instructions for matrix products of a half-precision type.

    oneDNN also takes bfloat16 on a CPU with AVX-512 alone, but there it multiplies in float32 inside.
    """
    kind = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{kind}_supported", None)
    if supported is None or not supported():
        return False
    known = torch.cpu.get_capabilities()
    if known.get("architecture") != "x86_64":
        return True
    return bool(known.get(f"avx512_{kind}") or known.get(f"amx_{kind}"))


class WideLinear(nn.Linear):
    """A linear layer that multiplies in float32 and rounds the result."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[:-1].numel() <= FEW_ROWS:
            return F.linear(x, self.weight, self.bias)
        wide = x.float()
        rows = max(1, WIDENED_AT_ONCE // self.in_features)
        parts = []
        for start in range(0, self.out_features, rows):
            bias = None if self.bias is None else self.bias[start : start + rows].float()
            parts.append(F.linear(wide, self.weight[start : start + rows].float(), bias).to(x.dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


class WideConv2d(nn.Conv2d):
    """A convolution that multiplies in float32 and rounds the result."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        product: Tensor = self._conv_forward(x.float(), self.weight.float(), bias)
        return product.to(x.dtype)
