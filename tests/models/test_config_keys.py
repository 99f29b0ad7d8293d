"""Keys of config.json that change the network: honoured, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_networks as networks
import torch

import mini_internvl
from mini_internvl.errors import CheckpointError, ConfigError

FAMILIES = networks.FAMILIES


def released(family: str, folder: Path, **changes: Any) -> Path:
    """A released checkpoint with other entries in llm_config; None takes an entry out."""
    networks.save_native(family, folder / "native")
    mini_internvl.save_checkpoint(mini_internvl.load(folder / "native"), folder / "released")
    return change(folder / "released", "llm_config", **changes)


def change(folder: Path, part: str, **changes: Any) -> Path:
    path = folder / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw[part] = {k: v for k, v in {**raw[part], **changes}.items() if v is not None}
    path.write_text(json.dumps(raw), encoding="utf-8")
    return folder


def rope_parameters(family: str) -> dict[str, Any]:
    """As transformers 5 writes them."""
    text = networks.text_config(family)
    scaling = text.get("rope_scaling") or {"rope_type": "default"}
    found = {**scaling, "rope_theta": text["rope_theta"]}
    if "original_max_position_embeddings" in text:
        found["original_max_position_embeddings"] = text["original_max_position_embeddings"]
        found["partial_rotary_factor"] = 1.0
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_rope_parameters_are_read_in_the_released_layout(family: str, tmp_path: Path) -> None:
    folder = released(family, tmp_path)
    batch = networks.inputs(((1, 30),))
    expected = mini_internvl.load(folder)(**batch)
    change(
        folder,
        "llm_config",
        rope_parameters=rope_parameters(family),
        rope_theta=None,
        rope_scaling=None,
        original_max_position_embeddings=None,
    )
    assert torch.equal(mini_internvl.load(folder)(**batch), expected)
    other = {**rope_parameters(family), "rope_theta": 777.0}
    change(folder, "llm_config", rope_parameters=other)
    assert not torch.equal(mini_internvl.load(folder)(**batch), expected)
    again = mini_internvl.MiniInternVLConfig.from_dict(mini_internvl.read_config(folder)[0].to_dict())
    assert again == mini_internvl.read_config(folder)[0]


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3"])
def test_a_head_width_of_its_own_is_refused(family: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"llm_config.head_dim 32 is not supported, only 16"):
        mini_internvl.load(released(family, tmp_path, head_dim=32))


def test_qwen3_has_a_head_width_of_its_own(tmp_path: Path) -> None:
    folder = released("qwen3", tmp_path)
    assert mini_internvl.read_config(folder)[0].llm["head_dim"] == 32
    with pytest.raises(CheckpointError, match="of another shape"):
        mini_internvl.load(change(folder, "llm_config", head_dim=16))


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
@pytest.mark.parametrize(
    "changes,message",
    [
        ({"mlp_bias": True}, "mlp_bias True is not supported"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "sliding attention"),
        ({"embedding_multiplier": 12.0}, "1 unknown key: embedding_multiplier 12.0"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}, "differ"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32}}, "beta_fast 32"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_what_would_change_the_network_is_refused_by_name(
    family: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = released(family, tmp_path, **changes)
    with pytest.raises(ConfigError, match=message):
        mini_internvl.load(folder)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"use_moe": True}, "use_moe True is not supported"),
        ({"window_size": 7}, "vision_config has 1 unknown key: window_size 7"),
    ],
)
@pytest.mark.parametrize("native", [True, False])
def test_the_encoder_too(native: bool, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    released("qwen2", tmp_path)
    folder = change(tmp_path / ("native" if native else "released"), "vision_config", **changes)
    with pytest.raises(ConfigError, match=message):
        mini_internvl.load(folder)


def test_a_native_text_model_too(tmp_path: Path) -> None:
    released("internlm2", tmp_path)
    with pytest.raises(ConfigError, match=r"text_config has 1 unknown key: residual_multiplier 0\.2"):
        mini_internvl.load(change(tmp_path / "native", "text_config", residual_multiplier=0.2))


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_harmless_keys_are_passed_over(family: str, tmp_path: Path) -> None:
    window = {"sliding_window": 262144} if family == "phi3" else {}
    if family.startswith("qwen"):
        window = {"sliding_window": 1024, "use_sliding_window": False, "max_window_layers": 24}
    folder = released(
        family,
        tmp_path,
        dtype="bfloat16",
        _name_or_path="x",
        temperature=1.0,
        new_key=None,
        other=False,
        **window,
    )
    change(folder, "vision_config", use_flash_attn=True, use_moe=False, num_experts=8)
    batch = networks.inputs(((1, 6),))
    assert torch.equal(mini_internvl.load(folder)(**batch), mini_internvl.load(tmp_path / "native")(**batch))


def test_a_small_window_is_refused_where_it_is_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sliding_window 2047"):
        mini_internvl.load(released("phi3", tmp_path, sliding_window=2047))


def test_the_architecture_names_the_family_where_model_type_is_left_out(tmp_path: Path) -> None:
    for family, architecture in (("qwen2", "Qwen2ForCausalLM"), ("phi3", "Phi3ForCausalLM")):
        folder = released(family, tmp_path / family, model_type=None, architectures=[architecture])
        assert mini_internvl.read_config(folder)[0].family == family
    change(folder, "llm_config", architectures=["GemmaForCausalLM"])
    with pytest.raises(ConfigError, match="gemma"):
        mini_internvl.read_config(folder)
