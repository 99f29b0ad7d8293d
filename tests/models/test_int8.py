"""8-bit weights: near the layer's own products, for few rows and many, and through a whole model."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_networks as networks
import torch
from torch import nn

import mini_internvl
from mini_internvl import linear_layers
from mini_internvl.linear_layers import Int8Linear, quantise


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 16, 17, 200])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_near(
    dtype: torch.dtype, rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_layers, "WIDENED_AT_ONCE", 1000)
    torch.manual_seed(0)
    layer = nn.Linear(64, 96, bias=bias)
    x = torch.randn(2, rows, 64).to(dtype)
    rounded = Int8Linear(layer.to(dtype))(x)
    assert rounded.dtype == dtype and rounded.shape == (2, rows, 96)
    exact = layer(x).float()
    assert (rounded.float() - exact).abs().max() < 0.02 * exact.abs().max()


def test_weights_are_within_half_a_step() -> None:
    layer = nn.Linear(8, 4)
    layer.weight.data[1] = 0
    rounded = Int8Linear(layer)
    back = rounded.weight * rounded.scale[:, None]
    step = layer.weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((back - layer.weight).abs() <= step / 2 + 1e-7).all()
    assert rounded.weight.abs().amax(dim=1).tolist() == [127, 0, 127, 127]


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_a_loaded_model_answers_nearly_the_same(family: str, tmp_path: Path) -> None:
    networks.save_native(family, tmp_path)
    exact = mini_internvl.load(tmp_path, dtype="float32", device="cpu")
    small = mini_internvl.load(tmp_path, dtype="int8", device="cpu")
    assert small.int8 and not exact.int8 and small.dtype == torch.bfloat16
    assert isinstance(small.language_model.lm_head, Int8Linear)
    assert not any(isinstance(module, Int8Linear) for module in small.vision_model.modules())
    batch = networks.inputs(((2, 9), (1, 4)))
    near, far = small(**batch).float(), exact(**batch)
    assert torch.nn.functional.cosine_similarity(near.flatten(), far.flatten(), dim=0) > 0.97
    assert small.generate(**batch, max_new_tokens=4).shape == (2, 4)


def test_nothing_but_linear_layers_is_replaced() -> None:
    stack = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 4)))
    quantise(stack)
    kinds = [type(module) for module in stack.modules()]
    assert kinds.count(Int8Linear) == 2 and nn.LayerNorm in kinds and nn.Linear not in kinds
