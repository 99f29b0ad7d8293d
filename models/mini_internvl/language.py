"""The language model inside: transformers' own classes, built from the released `llm_config`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from mini_internvl.errors import ConfigError
from mini_internvl.rope import RotaryEmbedding

_SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "attention_dropout",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "rope_theta",
    "rope_scaling",
)
_OWN = {
    "qwen2": ("use_sliding_window", "sliding_window", "max_window_layers"),
    "internlm2": (),
    "phi3": ("original_max_position_embeddings", "resid_pdrop", "embd_pdrop"),
}
_ROPE_KINDS = {"qwen2": (), "internlm2": ("dynamic",), "phi3": ("longrope",)}


def build_language_model(llm: Mapping[str, Any], attention: str = "sdpa") -> nn.Module:
    """A `Qwen2ForCausalLM`, `LlamaForCausalLM` (for InternLM2) or `Phi3ForCausalLM` with random weights.

    Args:
        llm: the `llm_config` of a released checkpoint. Only the fields of the architecture are taken from it;
            old-style `rope_theta` and `rope_scaling` are understood, type `su` as long rope.
        attention: name of an implementation in transformers' attention registry.

    Raises:
        ConfigError: the family or its rope scaling is not supported.
    """
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        Phi3Config,
        Phi3ForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    family = str(llm.get("model_type"))
    classes = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "internlm2": (LlamaConfig, LlamaForCausalLM),
        "phi3": (Phi3Config, Phi3ForCausalLM),
    }
    if family not in classes:
        raise ConfigError(f"llm_config: language model {family!r} is not supported; {', '.join(classes)} are")
    config_class, model_class = classes[family]
    config = config_class(**language_settings(llm))
    config._attn_implementation = attention
    model: nn.Module = model_class(config)
    decoder: Any = model.model
    decoder.rotary_emb = RotaryEmbedding(config)
    return model


def language_settings(llm: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `llm_config` that make the architecture, in the words of transformers' native classes."""
    family = str(llm["model_type"])
    fields = (*_SHARED, *_OWN[family])
    settings = {name: copy.deepcopy(llm[name]) for name in fields if llm.get(name) is not None}
    settings.setdefault(
        "tie_word_embeddings", False
    )  # untied in InternVL checkpoints, though Qwen2-0.5B ties
    settings["pad_token_id"] = None  # a padding row in the embedding would be zeroed and never trained
    if family == "internlm2":
        settings["attention_bias"] = bool(llm.get("bias", False))
    scaling = settings.pop("rope_scaling", None)
    if scaling:
        settings["rope_scaling"] = _rope_scaling(family, scaling)
    if family == "phi3" and scaling:
        original = settings.setdefault("original_max_position_embeddings", 4096)
        settings["rope_scaling"]["original_max_position_embeddings"] = original
        settings["rope_scaling"]["factor"] = settings["max_position_embeddings"] / original
    return settings


def _rope_scaling(family: str, scaling: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the scaling and gives it its present name: Phi-3's `su` is long rope."""
    kind = scaling.get("rope_type", scaling.get("type"))
    kind = "longrope" if kind == "su" else kind
    if kind not in _ROPE_KINDS[family]:
        known = ", ".join(_ROPE_KINDS[family]) or "none"
        raise ConfigError(f"llm_config: rope_scaling {kind!r} is not supported for {family} (known: {known})")
    rest = {k: v for k, v in scaling.items() if k not in ("type", "rope_type")}
    return {**rest, "rope_type": kind, "type": kind}
