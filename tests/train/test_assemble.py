"""A Mini-InternVL from its parts: language models of every family, encoders of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_training import SIZE, make_recipe, write_checkpoint
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

import mini_internvl
from evalkit.cli.main import invoke
from mini_internvl.model import IMAGENET_MEAN, IMAGENET_STD
from mini_internvl_train.assemble import TOKENS, assemble
from mini_internvl_train.clip_student import MEAN, STD, read_clip, resized
from mini_internvl_train.distill import load_vision
from mini_internvl_train.errors import RecipeError, TrainingError
from mini_internvl_train.fine_tuning import train

PADDING = 7


def write_language_model(folder: Path, family: str, *, tied: bool = False) -> Path:
    """The language model of a small Mini-InternVL alone, before any token of images was added."""
    write_checkpoint(folder, family, tied=tied)
    raw = json.loads((folder / "config.json").read_text())["llm_config"]
    known = raw["vocab_size"] - len(TOKENS)
    weights = {
        name.removeprefix("language_model."): tensor.clone()
        for name, tensor in load_file(folder / "model.safetensors").items()
        if name.startswith("language_model.")
    }
    for name in [name for name in weights if "embed" in name or name in ("lm_head.weight", "output.weight")]:
        padding = torch.full((PADDING, weights[name].shape[1]), 99.0)
        weights[name] = torch.cat([weights[name][:known], padding])
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**raw, "vocab_size": known + PADDING}))
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(_without(content)))
    return folder


def _without(content: Any) -> Any:
    """Without the tokens of images and boxes."""
    if isinstance(content, list):
        return [item for item in content if item not in TOKENS]
    if not isinstance(content, dict):
        return content
    kept = {key: value for key, value in content.items() if key not in TOKENS}
    kept = {k: v for k, v in kept.items() if not (isinstance(v, dict) and v.get("content") in TOKENS)}
    return {key: _without(value) for key, value in kept.items()}


def write_clip(folder: Path, activation: str = "gelu", side: int = 21) -> CLIPVisionModel:
    """A small CLIP vision encoder."""
    torch.manual_seed(3)
    model = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=side,
            patch_size=7,
            hidden_act=activation,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def _normal(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@pytest.mark.parametrize(
    ("family", "tied"),
    [("qwen2", False), ("qwen2", True), ("internlm2", False), ("phi3", False), ("qwen3", False)],
)
def test_every_family_keeps_what_it_knew(tmp_path: Path, family: str, tied: bool) -> None:
    language = write_language_model(tmp_path / "language", family, tied=tied)
    vision = write_checkpoint(tmp_path / "vision", seed=1)
    made = assemble(vision, language, tmp_path / "made")
    before = load_file(language / "model.safetensors")
    network = mini_internvl.load(tmp_path / "made", dtype="float32", device="cpu")
    tokenizer = network.tokenizer
    assert tokenizer is not None
    known = len(tokenizer) - len(TOKENS)
    assert made.added == TOKENS
    assert [tokenizer.token_id(token) for token in TOKENS] == list(range(known, known + len(TOKENS)))
    assert made.rows == known + len(TOKENS) == network.language_model.lm_head.weight.shape[0]
    table = next(tensor for name, tensor in before.items() if "embed" in name)
    head = before.get("lm_head.weight", before.get("output.weight", table))
    ours = network.language_model
    for new, old in ((ours.model.embed_tokens.weight, table), (ours.lm_head.weight, head)):
        assert torch.equal(new[:known], old[:known])
        mean = old[:known].mean(0).expand(len(TOKENS), -1)
        assert torch.allclose(new[known:], mean, atol=1e-6)
    write_checkpoint(tmp_path / "whole", family, tied=tied)
    whole = mini_internvl.load(tmp_path / "whole", dtype="float32", device="cpu")
    ids = torch.arange(5, 15)[None]
    assert torch.allclose(network(ids)[..., :known], whole(ids)[..., :known], atol=1e-5)
    tiles = torch.rand(1, 3, SIZE, SIZE)
    encoder = load_vision(str(vision), torch.float32)
    assert torch.equal(network.vision_model(tiles).last_hidden_state, encoder(tiles).last_hidden_state)
    assert network.config.template == whole.config.template


def test_it_is_drawn_from_a_seed_and_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    language = write_language_model(tmp_path / "language", "qwen2")
    vision = write_checkpoint(tmp_path / "vision", seed=1)
    flags = ["--vision", str(vision), "--llm", str(language)]
    model = tmp_path / "model"
    assert invoke(["train", "assemble", *flags, "-o", str(model), "--seed", "5"]) == 0
    assert "9 tokens added" in capsys.readouterr().out
    again = assemble(vision, language, tmp_path / "again", seed=5).folder
    other = assemble(vision, language, tmp_path / "other", seed=6).folder
    weights = [load_file(folder / "model.safetensors") for folder in (model, again, other)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    differing = {name for name, tensor in weights[0].items() if not torch.equal(tensor, weights[2][name])}
    assert differing == {f"mlp1.{layer}.{kind}" for layer in (1, 3) for kind in ("weight", "bias")}
    recipe = make_recipe(tmp_path, trainable="projector", steps__max_steps=2)
    final = train(recipe, say=lambda line: None, quiet=True)
    trained = load_file(final / "model.safetensors")
    moved = {name for name, tensor in trained.items() if not torch.equal(tensor, weights[0][name])}
    assert moved == {name for name in trained if name.startswith("mlp1.")}


def test_clip_layers_and_class_token_are_exact(tmp_path: Path) -> None:
    theirs = write_clip(tmp_path / "clip")
    ours = read_clip(tmp_path / "clip", 21)
    pixels = torch.rand(4, 3, 21, 21)
    states = theirs(pixel_values=_normal(pixels, MEAN, STD), output_hidden_states=True).hidden_states
    for number, layer in enumerate(ours.encoder.layers):
        assert torch.allclose(layer(states[number]), states[number + 1], atol=1e-5)
    embedded = ours.embeddings(_normal(pixels, IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose(embedded[:, 0], states[0][:, 0], atol=1e-5)


def test_clip_patches_differ_by_the_divisor_of_one_norm_alone(tmp_path: Path) -> None:
    theirs = write_clip(tmp_path / "clip")
    ours = read_clip(tmp_path / "clip", 21)
    noise = torch.randn(16, 3, 21, 21)
    pixels = noise * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]
    states = theirs(pixel_values=_normal(pixels, MEAN, STD), output_hidden_states=True).hidden_states
    offset = dict(theirs.named_parameters())["pre_layrnorm.bias"]
    want, found = states[0][:, 1:] - offset, ours.embeddings(noise)[:, 1:] - offset
    assert torch.cosine_similarity(want, found, dim=-1).min() > 0.9999
    assert 0.8 < (found.norm(dim=-1) / want.norm(dim=-1)).median() < 1.25


def test_a_position_table_grows_and_keeps_its_class_token() -> None:
    table = torch.randn(1 + 24 * 24, 8)
    grown = resized(table, 32)
    assert grown.shape == (1 + 32 * 32, 8)
    assert torch.equal(grown[0], table[0])
    ramp = torch.cat([torch.zeros(1, 1), torch.arange(24.0).repeat(24)[:, None]])
    rows = resized(ramp, 32)[1:].reshape(32, 32)
    assert torch.allclose(rows[3], rows[20], atol=1e-4)
    assert torch.all(rows[5, 2:-2].diff() > 0)
    with pytest.raises(RecipeError, match="not that of a square image"):
        resized(torch.zeros(1 + 23 * 24, 8), 32)


@pytest.mark.parametrize("whole", [False, True])
def test_a_student_from_clip_answers(tmp_path: Path, whole: bool) -> None:
    folder = tmp_path / "clip"
    write_clip(folder, "quick_gelu")
    if whole:  # with its text encoder: the settings are one level down
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": raw}))
    language = write_language_model(tmp_path / "language", "qwen2")
    made = assemble(folder, language, tmp_path / "made", image_size=SIZE)
    assert made.vision == "CLIP"
    network = mini_internvl.load(tmp_path / "made", dtype="float32", device="cpu")
    assert network.config.vision.grid == SIZE // 7
    assert network.config.vision.layer_norm_eps == 1e-5


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    language = write_language_model(tmp_path / "language", "qwen2")
    vision = write_checkpoint(tmp_path / "vision")
    made = tmp_path / "made"
    with pytest.raises(RecipeError, match="give its language model alone"):
        assemble(vision, vision, made)
    with pytest.raises(RecipeError, match="28 pixels a side, not 448"):
        assemble(vision, language, made, image_size=448)
    with pytest.raises(RecipeError, match="--template odd"):
        assemble(vision, language, made, template="odd")
    weights = load_file(language / "model.safetensors")
    lost = next(name for name in weights if "q_proj.weight" in name)
    rest = {name: tensor for name, tensor in weights.items() if name != lost}
    save_file(rest, language / "model.safetensors")
    with pytest.raises(RecipeError, match=f"the weight {lost} is missing"):
        assemble(vision, language, made)
    save_file({**weights, "model.extra": torch.zeros(1)}, language / "model.safetensors")
    with pytest.raises(RecipeError, match=r"first model\.extra"):
        assemble(vision, language, made)
    assert not made.exists()
    made.mkdir()
    (made / "mine.txt").write_text("kept")
    with pytest.raises(TrainingError, match="exists already"):
        assemble(vision, language, made)
