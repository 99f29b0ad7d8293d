"""Half-precision weights multiplied in float32 on a CPU that has no instructions for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small_networks as networks
import torch
from torch import nn

import mini_internvl
from mini_internvl import linear_layers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 4, 5, 64])
def test_products_equal_float32_rounded_once(
    dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_layers, "WIDENED_AT_ONCE", 100)
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(32, 48)).to(dtype)
    x = torch.randn(rows, 32).to(dtype)
    expected = nn.functional.linear(x.float(), layer[0].weight.float(), layer[0].bias.float()).to(dtype)
    linear_layers.widen_products(layer)
    tolerance = 0.0 if rows > linear_layers.FEW_ROWS else 0.02
    assert (layer(x) - expected).abs().max() <= tolerance
    assert list(layer.state_dict()) == ["0.weight", "0.bias"]


def test_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4)).bfloat16()
    x = torch.randn(2, 3, 16, 16).bfloat16()
    expected = nn.functional.conv2d(
        x.float(),
        layer[0].weight.float(),
        layer[0].bias.float(),
        stride=4,  # type: ignore[union-attr]
    ).bfloat16()
    linear_layers.widen_products(layer)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("native", [True, False])
def test_loading_widens_where_the_cpu_needs_it(
    native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mini_internvl import loading

    networks.save_native("qwen2", tmp_path)
    monkeypatch.setattr(loading, "has_half_products", lambda dtype: native)
    model = mini_internvl.load(tmp_path, dtype="bfloat16", device="cpu")
    wide = sum(isinstance(m, linear_layers.WideLinear) for m in model.modules())
    assert (wide == 0) == native
    exact = mini_internvl.load(tmp_path, dtype="float32", device="cpu")
    assert not any(isinstance(m, linear_layers.WideLinear) for m in exact.modules())
    batch = networks.inputs(((2, 9),))
    assert (model(**batch).float() - exact(**batch)).abs().mean() < 0.1


@pytest.mark.parametrize(
    "supported,known,expected",
    [
        (False, {"architecture": "x86_64", "avx512_bf16": True}, False),
        (True, {"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False}, False),
        (True, {"architecture": "x86_64", "avx512_bf16": True}, True),
        (True, {"architecture": "x86_64", "amx_bf16": True}, True),
        (True, {"architecture": "aarch64"}, True),
    ],
)
def test_half_products_need_their_own_instructions(
    supported: bool, known: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert linear_layers.has_half_products(torch.bfloat16) == expected
