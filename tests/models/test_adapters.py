"""Adapters of other programs, merged while the base is read: equal to PEFT's networks, or refused by name."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_networks as networks
import small_tokenizers
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import mini_internvl
from mini_internvl.errors import CheckpointError

peft = pytest.importorskip("peft", reason="PEFT, by which adapters are held right, is in the extra train")

FAMILIES = ("qwen2", "internlm2", "phi3")
LINEAR = {
    "qwen2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "internlm2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
}
RELEASED_LINEAR = {
    "qwen2": [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")],
    "internlm2": ["attention.wqkv", "attention.wo", *(f"feed_forward.w{i}" for i in (1, 2, 3))],
    "phi3": ["mlp.down_proj", "mlp.gate_up_proj", "self_attn.o_proj", "self_attn.qkv_proj"],
}
ENCODER_LINEAR = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
ENCODER = r".*vision_tower.*\.(q_proj|v_proj|projection_layer|fc1)|.*language_model.*down_proj|.*linear_1"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`FAMILY/native` and `FAMILY/released`: the same weights in both layouts."""
    folder = tmp_path_factory.mktemp("bases")
    for family in FAMILIES:
        networks.save_native(family, folder / family / "native")
        model = mini_internvl.load(folder / family / "native")
        mini_internvl.save_checkpoint(model, folder / family / "released")
    return folder


def write_peft(family: str, base: Path, folder: Path, **settings: Any) -> Tensor:
    """An adapter as peft saves it, with random weights; returns the unmerged network's logits."""
    from transformers import InternVLForConditionalGeneration

    network = InternVLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": LINEAR[family], **settings})
    wrapped = peft.get_peft_model(network, config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(parameter + 0.05 * noise if "magnitude" not in name else parameter + noise)
        wrapped.save_pretrained(folder)
        logits: Tensor = wrapped(**networks.inputs(((1, 9), (2, 4)))).logits
    return logits


def logits(*arguments: Any, **settings: Any) -> Tensor:
    model = mini_internvl.load(*arguments, image_token_id=networks.IMAGE_TOKEN, dtype="float32", **settings)
    found: Tensor = model(**networks.inputs(((1, 9), (2, 4))))
    return found


def alike(one: Tensor, other: Tensor) -> bool:
    """On real tokens: the second row of the inputs is padded."""
    mask = networks.inputs(((1, 9), (2, 4)))["attention_mask"].bool()
    return torch.allclose(one[mask], other[mask], atol=2e-5)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {
        "rank_pattern": {"down_proj": 2, r"layers\.1\.self_attn\.o_proj": 6},
        "alpha_pattern": {"o_proj": 5},
    },
    "encoder": {"target_modules": ENCODER},
    "encoder dora": {"target_modules": ENCODER, "use_dora": True, "use_rslora": True},
    "all-linear": {"target_modules": "all-linear"},
    "whole modules": {"modules_to_save": ["lm_head", "multi_modal_projector"]},
    "biases": {"target_modules": ENCODER, "bias": "all"},
    "bias of B": {"target_modules": r".*vision_tower.*fc1", "lora_bias": True},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "embedding": {"target_modules": ["embed_tokens", "down_proj"]},
    "one layer": {"layers_to_transform": [1], "layers_pattern": "layers"},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_peft_adapter_gives_the_logits_of_pefts_network(
    kind: str, family: str, bases: Path, tmp_path: Path
) -> None:
    native, released = (bases / family / layout for layout in ("native", "released"))
    expected = write_peft(family, native, tmp_path, **SETTINGS[kind])
    assert not alike(expected, logits(native))
    for base in (native, released):
        assert alike(logits(tmp_path, folder=base), expected), base
    assert alike(logits(released, folder=tmp_path), expected)


def test_the_base_is_the_one_that_the_adapter_names(bases: Path, tmp_path: Path) -> None:
    expected = write_peft("qwen2", bases / "qwen2/native", tmp_path / "adapter")
    assert alike(logits(tmp_path / "adapter"), expected)
    shutil.copytree(tmp_path / "adapter", tmp_path / "moved")
    set_config(tmp_path / "moved", base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match=r"whose base is not at hand .* give it by --checkpoint"):
        logits(tmp_path / "moved")
    set_config(tmp_path / "moved", base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="names no base"):
        logits(tmp_path / "moved")


def set_config(folder: Path, name: str = "adapter_config.json", **changes: Any) -> None:
    raw = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**raw, **changes}))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], Any], name: str = "adapter_model") -> None:
    state = load_file(folder / f"{name}.safetensors")
    change(state)
    save_file(state, folder / f"{name}.safetensors")


def write_released(
    family: str, base: Path, folder: Path, prefix: str = "base_model.model."
) -> dict[str, Tensor]:
    """An adapter under the released names (ms-swift's), made by hand; returns the merged weights."""
    state = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    adapter: dict[str, Tensor] = {}
    modules = [f"language_model.model.layers.{i}.{name}" for i in (0, 1) for name in RELEASED_LINEAR[family]]
    modules += [f"vision_model.encoder.layers.{i}.{name}" for i in (0, 2) for name in ENCODER_LINEAR]
    for module in modules:
        rows, columns = state[f"{module}.weight"].shape
        a, b = (torch.randn(shape, generator=generator) * 0.1 for shape in ((4, columns), (rows, 4)))
        adapter |= {f"{prefix}{module}.lora_A.weight": a, f"{prefix}{module}.lora_B.weight": b}
        state[f"{module}.weight"] += 2.0 * b @ a
    folder.mkdir(parents=True, exist_ok=True)
    save_file(adapter, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return state


@pytest.mark.parametrize(
    "family,prefix",
    list(zip(FAMILIES, ["base_model.model.", "module.base_model.model.", "_orig_mod."], strict=True)),
)
def test_released_names_on_both_layouts(prefix: str, family: str, bases: Path, tmp_path: Path) -> None:
    base = bases / family / "released"
    state = write_released(family, base, tmp_path / "adapter", prefix)
    shutil.copytree(base, tmp_path / "merged")
    save_file(state, tmp_path / "merged/model.safetensors")
    expected = logits(tmp_path / "merged")
    assert not alike(expected, logits(base))
    for layout in ("released", "native"):
        assert alike(logits(tmp_path / "adapter", folder=bases / family / layout), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_internvls_own_form(family: str, bases: Path, tmp_path: Path) -> None:
    base = bases / family / "released"
    merged = write_released(family, base, tmp_path / "adapter", "")
    adapter, state = load_file(tmp_path / "adapter/adapter_model.safetensors"), {}
    adapted = {name.partition(".lora_")[0] for name in adapter}
    for name, tensor in load_file(base / "model.safetensors").items():
        module, _, kind = name.rpartition(".")
        state[wrapped(f"{module}.base_layer.{kind}" if module in adapted else name)] = tensor
    state |= {wrapped(name.replace(".weight", ".default.weight")): t for name, t in adapter.items()}
    folder = tmp_path / "internvl"
    shutil.copytree(base, folder)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"use_backbone_lora of config.json is 0|use_llm_lora"):
        logits(folder)
    set_config(folder, "config.json", use_llm_lora=4, use_backbone_lora=4)
    shutil.copytree(base, tmp_path / "merged")
    save_file(merged, tmp_path / "merged/model.safetensors")
    assert alike(logits(folder), logits(tmp_path / "merged"))
    model = mini_internvl.load(folder, image_token_id=networks.IMAGE_TOKEN)
    mini_internvl.save_checkpoint(model, tmp_path / "again", tokenizer_from=folder)
    raw = json.loads((tmp_path / "again/config.json").read_text())
    assert (raw["use_llm_lora"], raw["use_backbone_lora"]) == (0, 0)
    assert alike(logits(tmp_path / "again"), logits(tmp_path / "merged"))
    with pytest.raises(CheckpointError, match="holds an adapter of its own"):
        logits(tmp_path / "adapter", folder=folder)


def wrapped(name: str) -> str:
    """A released name as PEFT's wrapping of encoder and language model makes it."""
    part, _, rest = name.partition(".")
    return name if part == "mlp1" else f"{part}.base_model.model.{rest}"


@pytest.mark.parametrize("family", FAMILIES)
def test_another_base_is_refused(family: str, bases: Path, tmp_path: Path) -> None:
    write_released(family, bases / family / "released", tmp_path)
    for other in FAMILIES:
        if other != family and (family, other) != ("qwen2", "internlm2"):  # in these two sizes tell
            with pytest.raises(CheckpointError, match=r"have no place in the base|does not fit"):
                logits(tmp_path, folder=bases / other / "released")
    config = json.loads((bases / family / "released/config.json").read_text())
    assert config["llm_config"]["hidden_size"] == 64
    rewrite(tmp_path, narrow)
    with pytest.raises(CheckpointError, match="trained on another base"):
        logits(tmp_path, folder=bases / family / "released")


def narrow(state: dict[str, Tensor]) -> None:
    """As of a language model of another width."""
    for name in [name for name in state if "layers.0" in name and "lora_A" in name]:
        state[name] = state[name][:, :48].contiguous()


def test_a_release_of_another_name_is_refused(bases: Path, tmp_path: Path) -> None:
    write_released("qwen2", bases / "qwen2/released", tmp_path / "adapter")
    base = tmp_path / "InternVL2-1B"
    shutil.copytree(bases / "qwen2/released", base)
    for named in ("OpenGVLab/Mini-InternVL2-1B-DA-RS", "/data/models/Mini-InternVL2-1B-DA-RS"):
        set_config(tmp_path / "adapter", base_model_name_or_path=named)
        with pytest.raises(CheckpointError, match="was trained on OpenGVLab/Mini-InternVL2-1B-DA-RS, not on"):
            logits(tmp_path / "adapter", folder=base)
    set_config(tmp_path / "adapter", base_model_name_or_path="/data/models/InternVL2-1B")
    logits(tmp_path / "adapter", folder=base)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"peft_type": "ADALORA"}, "adapter of type 'ADALORA'; only LORA"),
        ({"peft_type": "IA3"}, "adapter of type 'IA3'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights 'pissa_niter_4' changes the weights"),
        ({"r": 8}, "is of rank 4, adapter_config.json says 8"),
        ({"rank_pattern": {"fc1": 2}}, "vision_model.encoder.layers.0.mlp.fc1 is of rank 4, .* says 2"),
        ({"trainable_token_indices": [5]}, r"trainable_token_indices \[5\]: not supported"),
        ({"layer_replication": [[0, 2]]}, "layer_replication .* not supported"),
        ({"scale_by_something": 2}, "scale_by_something 2: not supported"),
        ({"use_dora": True}, "use_dora is True, but the adapter has no magnitudes"),
        ({"target_modules": ["wo", "q_proj"]}, r"layers such as .* are not among target_modules"),
        ({"target_modules": r"vision_model\..*"}, "are not among target_modules"),
        ({"lora_alpha": None}, "r and lora_alpha must be numbers"),
    ],
)
def test_settings_that_cannot_be_merged_are_refused_by_name(
    changes: dict[str, Any], message: str, bases: Path, tmp_path: Path
) -> None:
    write_released("phi3", bases / "phi3/released", tmp_path)
    logits(tmp_path, folder=bases / "phi3/released")
    set_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        logits(tmp_path, folder=bases / "phi3/released")


def test_damaged_adapters_are_refused_by_name(bases: Path, tmp_path: Path) -> None:
    base = bases / "internlm2/released"
    name = "base_model.model.language_model.model.layers.1.attention.wqkv.lora_B.weight"
    for change, message in (
        (lambda state: state.pop(name), "attention.wqkv lacks one of its two matrices"),
        (lambda state: state.update({name: torch.zeros(0)}), "is empty: shards of ZeRO-3 or FSDP"),
        (lambda state: state.update({name.replace("lora_B", "lora_E"): torch.ones(1)}), "of this kind"),
        (
            lambda state: state.update({name.replace(".w", ".two.w", 2): torch.ones(1)}),
            "have no place|adapters",
        ),
        (lambda state: state.update({"base_model.model.new.weight": torch.ones(1)}), "new.weight"),
    ):
        shutil.rmtree(tmp_path)
        write_released("internlm2", base, tmp_path)
        rewrite(tmp_path, change)
        with pytest.raises(CheckpointError, match=message):
            logits(tmp_path, folder=base)
    write_released("internlm2", base, tmp_path)
    save_file({"vit.weight": torch.ones(1)}, tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match=r"holds vit\.safetensors beside the adapter"):
        logits(tmp_path, folder=base)
    (tmp_path / "vit.safetensors").unlink()
    torch.save({}, tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin is refused"):
        logits(tmp_path, folder=base)
    shutil.copy(base / "model.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds a model and an adapter"):
        logits(tmp_path, folder=base)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_a_half_precision_base_is_rounded_once(stored: torch.dtype, bases: Path, tmp_path: Path) -> None:
    write_released("qwen2", bases / "qwen2/released", tmp_path / "adapter")
    model = mini_internvl.load(bases / "qwen2/released")
    mini_internvl.save_checkpoint(model, tmp_path / "half", dtype=stored)
    name = "language_model.model.layers.0.mlp.down_proj"
    adapter = load_file(tmp_path / "adapter/adapter_model.safetensors")
    change = (
        2.0
        * adapter[f"base_model.model.{name}.lora_B.weight"]
        @ adapter[f"base_model.model.{name}.lora_A.weight"]
    )
    half = load_file(tmp_path / "half/model.safetensors")[f"{name}.weight"]
    for dtype in (torch.float32, stored):
        merged = mini_internvl.load(tmp_path / "adapter", folder=tmp_path / "half", dtype=dtype)
        weight = merged.state_dict()[f"{name}.weight"]
        assert torch.equal(weight, (half.float() + change).to(dtype))


def test_added_tokens_come_with_the_adapter(bases: Path, tmp_path: Path) -> None:
    """A fine-tuning with tokens of its own: embedding and head whole, with more rows, and a tokenizer."""
    base = tmp_path / "base"
    shutil.copytree(bases / "qwen2/released", base)
    small_tokenizers.write_qwen2(base)
    adapter = tmp_path / "adapter"
    write_released("qwen2", base, adapter)
    state = load_file(base / "model.safetensors")
    wider = {
        f"base_model.model.{name}": torch.cat([state[name], torch.full((2, 64), 0.5)])
        for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
    }
    rewrite(adapter, lambda held: held.update(wider))
    small_tokenizers.write_qwen2(adapter)
    added = json.loads((adapter / "added_tokens.json").read_text())
    last = max(added.values())
    for name, put in (("added_tokens.json", {"<loc>": last + 1}),):
        (adapter / name).write_text(json.dumps({**added, **put}))
    settings = json.loads((adapter / "tokenizer_config.json").read_text())
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings["added_tokens_decoder"][str(last + 1)] = {"content": "<loc>", **flags}
    (adapter / "tokenizer_config.json").write_text(json.dumps(settings))
    model = mini_internvl.load(adapter, folder=base)
    assert model.config.llm["vocab_size"] == 514 and len(model.language_model.lm_head.weight) == 514
    assert model.tokenizer is not None and model.tokenizer.token_id("<loc>") == last + 1
    assert last + 1 not in model.rules.forbidden
    plain = mini_internvl.load(base)
    assert plain.tokenizer is not None and plain.tokenizer.token_id("<loc>") is None


@pytest.mark.filterwarnings("ignore")
def test_a_tied_head_is_not_adapted_silently(tmp_path: Path) -> None:
    base = tmp_path / "tied"
    networks.save_native("qwen2", base, tied=True)
    expected = write_peft("qwen2", base, tmp_path / "head", target_modules=["lm_head"])  # saves its own copy
    assert alike(logits(tmp_path / "head", folder=base), expected)
    write_peft("qwen2", base, tmp_path / "embedding", target_modules=["embed_tokens"])
    with pytest.raises(CheckpointError, match="has both as one weight"):
        logits(tmp_path / "embedding", folder=base)


def test_the_adapter_is_in_the_identity(bases: Path, tmp_path: Path) -> None:
    base = bases / "qwen2/released"
    write_released("qwen2", base, tmp_path)
    plain = mini_internvl.load(base)
    one = mini_internvl.load(tmp_path, folder=base)
    swapped = mini_internvl.load(base, folder=tmp_path)
    assert one.fingerprint == swapped.fingerprint != plain.fingerprint
    assert one.weights_fingerprint != plain.weights_fingerprint
    set_config(tmp_path, lora_alpha=4)
    other = mini_internvl.load(tmp_path, folder=base)
    assert other.fingerprint != one.fingerprint and other.weights_fingerprint == one.weights_fingerprint
    rewrite(tmp_path, lambda state: [tensor.mul_(2) for tensor in state.values()])
    assert mini_internvl.load(tmp_path, folder=base).weights_fingerprint != one.weights_fingerprint


def test_scale_is_a_function_of_rank_and_alpha(bases: Path, tmp_path: Path) -> None:
    """Plain and rank-stabilised LoRA differ by the root of the rank."""
    base = bases / "qwen2/released"
    write_released("qwen2", base, tmp_path)
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    before = mini_internvl.load(base).state_dict()[name]
    plain = mini_internvl.load(tmp_path, folder=base).state_dict()[name] - before
    set_config(tmp_path, use_rslora=True)
    stabilised = mini_internvl.load(tmp_path, folder=base).state_dict()[name] - before
    assert torch.allclose(stabilised, math.sqrt(4) * plain, atol=1e-5)
