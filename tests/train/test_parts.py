"""Rates and decay by part, layers that learn, and the kinds of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import small_networks as networks
import torch
from safetensors.torch import load_file
from small_training import WRITERS, make_recipe

import mini_internvl
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.merge import load_adapted, merge
from mini_internvl_train.optimizer import make_optimizer
from mini_internvl_train.recipe import Optimizer, Parts, read_recipe
from mini_internvl_train.start import learned_parameters, load_start, prepare
from mini_internvl_train.step import TrainingStep

QUIET: dict[str, Any] = {"say": lambda line: None, "quiet": True}
IDS = torch.randint(3, 200, (1, 12), generator=torch.Generator().manual_seed(0))
TILES = torch.randint(0, 255, (1, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def logits(network: Any) -> torch.Tensor:
    """Of some words after an image, so that the encoder has its say."""
    image = torch.full((1, network.config.num_image_token), network.image_token_id)
    with torch.no_grad():
        found: torch.Tensor = network(input_ids=torch.cat([image, IDS], 1), pixel_values=TILES)
    return found


def learned(folder: Path, **settings: Any) -> set[str]:
    recipe = make_recipe(folder, **settings)
    start = load_start(recipe)
    prepare(start.network, recipe)
    return {name for name, _ in learned_parameters(start.network)}


def test_each_part_has_its_rate_and_decay(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    start = load_start(recipe)
    prepare(start.network, recipe)
    step = TrainingStep(start.network)
    parts = Parts(
        encoder_lr=1e-3, projector_lr=2e-3, encoder_weight_decay=0.05, projector_weight_decay=0.0,
        encoder_layer_decay=0.5,
    )  # fmt: skip
    groups = make_optimizer(step, Optimizer(lr=4e-3, weight_decay=0.1), parts, 2).param_groups
    names = {id(parameter): name for name, parameter in step.named_parameters()}
    found = {
        names[id(parameter)].removeprefix("network."): (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert found.keys() == {name for name, _ in start.network.named_parameters()}
    assert found["vision_model.encoder.layers.1.attn.qkv.weight"] == (1e-3, 0.05)
    assert found["vision_model.encoder.layers.1.attn.qkv.bias"] == (1e-3, 0.0)
    assert found["vision_model.encoder.layers.0.mlp.fc1.weight"] == (5e-4, 0.05)
    assert found["vision_model.embeddings.patch_embedding.weight"] == (2.5e-4, 0.05)
    assert found["mlp1.1.weight"] == (2e-3, 0.0)
    assert found["language_model.lm_head.weight"] == (4e-3, 0.1)


def test_a_training_takes_the_rates(tmp_path: Path) -> None:
    """With a rate too small to see, a part stays where it was."""
    recipe = make_recipe(
        tmp_path, parts__encoder_lr=1e-12, parts__language_lr=1e-12, optimizer__weight_decay=0.0,
        steps__max_steps=2,
    )  # fmt: skip
    final = load_file(train(recipe, **QUIET) / "model.safetensors")
    base = load_file(tmp_path / "model/model.safetensors")
    moved = {name for name in base if not torch.allclose(base[name], final[name], atol=1e-8)}
    assert moved and all(name.startswith("mlp1.") for name in moved)
    decayed = {"output": str(tmp_path / "decayed"), "parts.encoder_layer_decay": "0.9"}
    train(read_recipe(tmp_path / "recipe.yaml", decayed), **QUIET)


def test_only_the_last_layers_of_the_encoder_learn(tmp_path: Path) -> None:
    full = learned(tmp_path)
    last = learned(tmp_path, parts__encoder_layers=1)
    gone = full - last
    assert gone and all(name.startswith("vision_model.") for name in gone)
    assert not any(".layers.1." in name for name in gone)
    assert {name for name in last if name.startswith("vision_model.")} == {
        name for name in full if name.startswith("vision_model.encoder.layers.1.")
    }
    adapted = learned(tmp_path, trainable="lora", lora__encoder=True, parts__encoder_layers=1)
    encoder = {name for name in adapted if name.startswith("vision_model.")}
    assert len(encoder) == 2 * 4 and all(".layers.1." in name for name in encoder)
    some = learned(tmp_path, trainable="lora", lora__targets=["q_proj", "down_proj"])
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in some} == {"q_proj", "down_proj"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora__encoder": True}, "need trainable: lora"),
        ({"trainable": "frozen_vit", "parts__encoder_layers": 1}, "needs trainable: full"),
        ({"parts__encoder_layers": 3}, "the encoder has 2"),
        ({"trainable": "lora", "lora__targets": ["wqkv"]}, "wqkv is none of q_proj"),
        ({"trainable": "lora", "lora__targets": ["fc1"]}, "with lora.encoder it is"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        learned(tmp_path, **settings)


KINDS: dict[str, dict[str, Any]] = {
    "encoder": {"lora__encoder": True},
    "rslora": {"lora__rslora": True, "lora__alpha": 4},
    "dora": {"lora__dora": True, "lora__encoder": True},
    "some": {"lora__targets": ["q_proj", "v_proj", "qkv_proj"]},
}


@pytest.mark.parametrize(
    ("family", "kind"),
    [*(("qwen2", kind) for kind in KINDS), ("internlm2", "encoder"), ("phi3", "dora")],
)
def test_every_kind_is_folded_and_opened_as_an_adapter(tmp_path: Path, family: str, kind: str) -> None:
    settings = dict(KINDS[kind])
    if "lora__targets" in settings:
        settings["lora__targets"] = ["q_proj", "v_proj"]
    recipe = make_recipe(
        tmp_path,
        family=family,
        trainable="lora_projector",
        steps__max_steps=2,
        optimizer__lr=0.05,
        **settings,
    )
    final = train(recipe, **QUIET)
    step = tmp_path / "out/step-000002"
    expected = logits(mini_internvl.load(final))
    assert torch.allclose(logits(load_adapted(step)), expected, atol=1e-5)
    assert torch.allclose(logits(mini_internvl.load(step)), expected, atol=1e-5)
    assert not torch.allclose(logits(mini_internvl.load(tmp_path / "model")), expected, atol=1e-3)
    if family == "qwen2":
        base = mini_internvl.load(tmp_path / "model")
        opened = peft.PeftModel.from_pretrained(base, step).eval()
        assert torch.allclose(logits(opened), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_transformers_own_class_opens_an_adapted_encoder(tmp_path: Path) -> None:
    from transformers import InternVLForConditionalGeneration

    base = tmp_path / "model"
    networks.save_native("qwen2", base)
    WRITERS["qwen2"](base)
    recipe = make_recipe(
        tmp_path,
        trainable="lora",
        steps__max_steps=2,
        optimizer__lr=0.05,
        lora__encoder=True,
        lora__dora=True,
    )
    expected = mini_internvl.load(train(recipe, **QUIET))
    step = tmp_path / "out/step-000002"
    network = InternVLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    opened: Any = peft.PeftModel.from_pretrained(network, step).eval()
    pixels = torch.randn(1, 3, expected.config.image_size, expected.config.image_size)
    with torch.no_grad():
        found = opened.base_model.model.model.get_image_features(pixels)
        theirs, ours = getattr(found, "pooler_output", found), expected.encode_images(pixels)
    assert torch.allclose(ours.flatten(), theirs.flatten(), atol=1e-4)
    assert torch.allclose(opened(input_ids=IDS).logits, expected(input_ids=IDS), atol=2e-5)


def test_merging_by_the_command_keeps_the_scale_of_rslora(tmp_path: Path) -> None:
    recipe = make_recipe(
        tmp_path, trainable="lora", steps__max_steps=2, optimizer__lr=0.05, lora__rslora=True
    )
    final = train(recipe, **QUIET)
    merged = merge(tmp_path / "out/step-000002", tmp_path / "merged")
    assert torch.equal(logits(mini_internvl.load(merged.folder)), logits(mini_internvl.load(final)))


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_lora_adapts_every_linear_layer_of_the_language_model(family: str, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, family=family, trainable="lora")
    start = load_start(recipe)
    layers = start.network.language_model.model
    linear = {name for name, layer in layers.named_modules() if isinstance(layer, torch.nn.Linear)}
    prepare(start.network, recipe)
    adapted = {
        name for name, layer in layers.named_modules() if isinstance(layer, peft.tuners.lora.LoraLayer)
    }
    assert linear and adapted == linear
