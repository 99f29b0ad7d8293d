"""A decoding step gives what transformers' own layers give, and the order of the weights changes nothing."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import small_networks as networks
import torch

import mini_internvl
from mini_internvl import GenerationSettings
from mini_internvl.config import VisionConfig
from mini_internvl.decode_step import Step
from mini_internvl.linear_layers import Int8Linear, order_for_decoding
from mini_internvl.prefill import PromptTail, prefill
from mini_internvl.vision import InternViT


def load(family: str, folder: Path, dtype: str) -> Any:
    """A small model; its image token is set."""
    networks.save_native(family, folder)
    model = mini_internvl.load(folder, dtype=dtype, device="cpu")
    model.image_token_id = networks.IMAGE_TOKEN
    return model


@pytest.mark.parametrize("family", networks.FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.inference_mode()
def test_a_step_equals_the_layers_of_transformers(family: str, dtype: str, tmp_path: Path) -> None:
    model = load(family, tmp_path, dtype)
    random_ = random.Random(0)
    texts = [[first, *(random_.randrange(3, 400) for _ in range(first))] for first in (5, 21, 22, 39)]
    read, regime = {text[0]: len(text) for text in texts}, model.language_model.model.rotary_emb.regime
    embed = model.language_model.get_input_embeddings()
    batch = prefill(model, [(None, [PromptTail(embed(torch.tensor(text))) for text in texts])], room=1)
    assert batch.pads is not None
    for token in (7, 8):
        columns = torch.arange(batch.cache.end + 1)
        hidden = (columns[None, :] < batch.pads[:, None])[:, None, :]
        mask = torch.zeros(hidden.shape, dtype=model.dtype).masked_fill_(hidden, float("-inf"))
        mask = mask[:, None].expand(-1, 1, 2, -1)  # two query heads a key head
        logits = Step(model)(torch.full((4,), token), batch.positions, batch.cache, mask)
        batch.positions = batch.positions + 1
        for text, row in zip(texts, logits, strict=True):
            text.append(token)
            own = model(input_ids=torch.tensor([text]))[0, -1]
            if regime(len(text)) == regime(read[text[0]]):  # else the keys so far have other positions
                assert (row - own).abs().max() < (2e-5 if dtype == "float32" else 0.1)


def test_layers_of_another_kind_are_called(tmp_path: Path) -> None:
    model = load("qwen2", tmp_path, "int8")
    step = Step(model)
    assert isinstance(step._head, Int8Linear)
    assert all(isinstance(product, Int8Linear) for layer in step._layers for product in layer._inner)


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_the_order_of_the_weights_changes_no_value(family: str, tmp_path: Path) -> None:
    model = load(family, tmp_path, "float32")
    before = copy.deepcopy(model.state_dict())
    order_for_decoding(model.language_model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    turned = [name for name, weight in after.items() if not weight.is_contiguous()]
    assert any("lm_head" in name for name in turned) and any("mlp" in name for name in turned)
    assert all("language_model" in name and "embed" not in name for name in turned)
    mini_internvl.save_checkpoint(model, tmp_path / "saved")
    again = mini_internvl.load(tmp_path / "saved", dtype="float32", device="cpu", image_token_id=500)
    assert all(torch.equal(again.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("changes", [{}, {"qk_normalization": True, "norm_type": "rms_norm"}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_encoding_without_gradients_keeps_every_bit(changes: dict[str, Any], dtype: torch.dtype) -> None:
    sizes = VisionConfig(
        image_size=28, patch_size=7, hidden_size=32, intermediate_size=64, num_attention_heads=4,
        num_hidden_layers=2, **changes,
    )  # fmt: skip
    torch.manual_seed(0)
    encoder = InternViT(sizes).to(dtype).eval()
    tiles = torch.randn(2, 3, 28, 28)
    with_gradients = encoder(tiles, output_hidden_states=True).hidden_states
    with torch.inference_mode():
        without = encoder(tiles, output_hidden_states=True).hidden_states
    assert all(torch.equal(one, other) for one, other in zip(with_gradients, without, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_what_pays_is_turned(dtype: str, tmp_path: Path) -> None:
    model = load("qwen2", tmp_path, dtype)
    model.language_model.lm_head.weight.requires_grad_(True)
    model.generate(input_ids=torch.tensor([[3, 4]]), settings=GenerationSettings(max_new_tokens=2))
    turned = [name for name, weight in model.named_parameters() if not weight.is_contiguous()]
    assert bool(turned) == (dtype == "float32") and not any("lm_head" in name for name in turned)
