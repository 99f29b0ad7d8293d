"""How linear layers are stored and multiplied: order in memory, half precision on a CPU, 8 bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_ROWS = 4
"""Up to this many rows a plain half-precision product is faster than widening the weight."""

FEW_ROWS_INT8 = 16
"""Up to this many rows the packed 8-bit product is faster on a CPU than widening the weight."""

WIDENED_AT_ONCE = 1 << 24
"""Most weights widened at a time, which bounds the memory taken."""


def order_for_decoding(language_model: nn.Module) -> None:
    """Store the weights of an input together where that makes decoding on a CPU faster.

    A step multiplies every weight by a few rows, and reading the weights bounds it. Where a float32 matrix
    has more outputs than inputs, torch's product then reads it about 1.5 times as fast, and large products
    are as fast as before (docs/performance.md). Half precision is left alone: there this order is many times
    slower.
    Values, shapes and names stay. Weights that are trained, or shared with the embedding, stay as they are.
    """
    embedding = language_model.get_input_embeddings().weight  # type: ignore[operator]
    for layer in language_model.modules():
        if type(layer) is not nn.Linear:
            continue
        weight = layer.weight
        free = weight is not embedding and not weight.requires_grad
        pays = weight.device.type == "cpu" and weight.dtype == torch.float32
        if free and pays and layer.out_features > layer.in_features:
            weight.data = weight.data.t().contiguous().t()


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


def widen_products(network: nn.Module) -> None:
    """Make every linear layer and convolution multiply in float32. Parameters and their names stay.

    For a CPU without half-precision instructions, where torch multiplies bfloat16 matrices many times more
    slowly than float32 ones. Each large product is rounded once, as the instructions would do it.
    """
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = WideLinear
        elif type(module) is nn.Conv2d:
            module.__class__ = WideConv2d


class WideLinear(nn.Linear):
    """A linear layer that multiplies in float32 and rounds the result; `[…, in]` to `[…, out]`."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[:-1].numel() <= FEW_ROWS:  # as in decoding, bound by reading the weights
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


def quantise(network: nn.Module) -> None:
    """Replace every linear layer within by an `Int8Linear`. For inference only."""
    for name, child in list(network.named_children()):
        if isinstance(child, nn.Linear):
            setattr(network, name, Int8Linear(child))
        else:
            quantise(child)


class Int8Linear(nn.Module):
    """A linear layer over int8 weights, one scale an output channel, the largest weight of a channel at 127.

    Activations stay in half precision. A generated token reads every weight once, so half the bytes take
    nearly half the time. The weights are rounded, and answers with them: a run says `dtype:int8`.

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
        if x.device.type == "cpu" and x.dtype == torch.bfloat16 and rows <= FEW_ROWS_INT8:
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
