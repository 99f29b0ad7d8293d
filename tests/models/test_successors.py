"""InternVL2.5, 3 and 3.5 at their published sizes: parameters counted, costs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit_models.costs import costs
from mini_internvl.config import MiniInternVLConfig
from mini_internvl.errors import ConfigError
from mini_internvl.model import MiniInternVL

QWEN2 = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 151674,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "sliding_window": None,
    "max_window_layers": 70,
    "use_sliding_window": False,
}
DYNAMIC = {"rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}}
QWEN3 = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 151936,
    "head_dim": 128,
    "attention_bias": False,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_scaling": None,
    "sliding_window": None,
    "max_window_layers": 28,
    "use_sliding_window": False,
}
INTERNLM2 = {
    "model_type": "internlm2",
    "architectures": ["InternLM2ForCausalLM"],
    "vocab_size": 92553,
    "bias": False,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "rope_scaling": {"factor": 2.0, "type": "dynamic"},
}
# base settings, hidden, mlp, layers, heads, key heads, parameters, bytes of keys and values a token
SIZES: dict[str, tuple[dict[str, Any], int, int, int, int, int, int, int]] = {
    "internvl2.5-1b": (QWEN2, 896, 4864, 24, 14, 2, 938_193_024, 12_288),
    "internvl2.5-2b-mpo": (INTERNLM2, 2048, 8192, 24, 16, 8, 2_205_754_368, 98_304),
    "internvl2.5-4b": (QWEN2, 2048, 11008, 36, 16, 2, 3_712_637_952, 36_864),
    "internvl3-1b-instruct": ({**QWEN2, **DYNAMIC}, 896, 4864, 24, 14, 2, 938_193_024, 12_288),
    "internvl3-2b": ({**QWEN2, **DYNAMIC}, 1536, 8960, 28, 12, 2, 2_088_957_440, 28_672),
    "internvl3.5-1b": (QWEN3, 1024, 3072, 28, 16, 8, 1_060_897_792, 114_688),
    "internvl3.5-2b-hf": (QWEN3, 2048, 6144, 28, 16, 8, 2_348_347_392, 114_688),
    "internvl3.5-4b": (QWEN3, 2560, 9728, 36, 32, 8, 4_732_489_216, 147_456),
}


def config_of(name: str, **changes: Any) -> dict[str, Any]:
    """`config.json` as published, as far as it was seen in print."""
    base, hidden, mlp, layers, heads, key_heads, *_ = SIZES[name]
    llm = {
        **base,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "eos_token_id": 151643,
        "moe_config": None,
        "_name_or_path": "Qwen/Qwen2.5-32B-Instruct",
    }
    vision = {
        "model_type": "intern_vit_6b",
        "image_size": 448,
        "qk_normalization": False,
        "use_flash_attn": True,
    }
    top = {
        "model_type": "internvl_chat",
        "template": "internvl2_5",
        "system_message": None,
        "ps_version": "v2",
    }
    return {**top, "llm_config": llm, "vision_config": vision, "force_image_size": 448, **changes}


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_those_of_the_published_checkpoint(name: str) -> None:
    """Equal to the last one: shapes, biases, head norms, and a head of its own."""
    config = MiniInternVLConfig.from_dict(config_of(name))
    with torch.device("meta"):
        network = MiniInternVL(config)
    assert sum(weight.numel() for weight in network.parameters()) == SIZES[name][6]
    assert config.template == "internvl2_5" and config.system_message is None


@pytest.mark.parametrize("name", SIZES)
def test_costs_count_the_heads_own_width(name: str, tmp_path: Path) -> None:
    found = costs(name, None)
    assert found is not None and found.token_bytes == SIZES[name][7] and found.tokens_per_tile == 256
    assert found.weight_bytes == pytest.approx(2 * SIZES[name][6], rel=0.01)
    (tmp_path / "config.json").write_text(json.dumps(config_of(name)), encoding="utf-8")
    assert costs(str(tmp_path), None) == found


def test_costs_of_the_native_layout(tmp_path: Path) -> None:
    text = config_of("internvl3.5-1b")["llm_config"]
    vision = {"model_type": "internvl_vision", "image_size": [448, 448], "patch_size": [14, 14]}
    vision |= {"attention_bias": True, "hidden_size": 1024}
    raw = {"model_type": "internvl", "text_config": text, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    assert costs(str(tmp_path), None) == costs("internvl3.5-1b", None)
    del text["head_dim"]  # transformers then takes Qwen3's own, 128
    (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    assert costs(str(tmp_path), None) == costs("internvl3.5-1b", None)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    assert costs(str(tmp_path), None) is None


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"flash_mode": True}, "flash_mode"),
        ({"flash_relative_threshold": 0.4}, "flash_relative_threshold"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantization_config"),
    ],
)
def test_other_networks_of_the_line_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MiniInternVLConfig.from_dict(config_of("internvl3.5-1b", **changes))


def test_larger_language_models_are_refused_by_name() -> None:
    raw = config_of("internvl3.5-1b")
    raw["llm_config"]["model_type"] = "qwen3_moe"
    with pytest.raises(ConfigError, match="qwen3_moe"):
        MiniInternVLConfig.from_dict(raw)


def test_qwen3_settings_that_contradict_are_refused() -> None:
    for changes in (
        {"qkv_bias": True},
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ):
        raw = config_of("internvl3.5-1b")
        raw["llm_config"] |= changes
        with pytest.raises(ConfigError, match=r"qkv_bias|sliding"):
            MiniInternVLConfig.from_dict(raw)
