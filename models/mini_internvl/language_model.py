"""The language model inside: transformers' own classes, built from the released `llm_config`.

Their rotary positions are replaced. transformers picks long-rope factors and the dynamic-NTK base by the
longest sequence of the batch and keeps the choice as state, so that a short question beside a long one would
be answered differently from the same question alone. `RotaryEmbedding` chooses for each sequence and keeps
nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mini_internvl.errors import ConfigError

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
    "qwen3": ("head_dim", "attention_bias", "use_sliding_window", "sliding_window", "max_window_layers"),
}
_ROPE_KINDS = {
    "qwen2": ("dynamic",),
    "internlm2": ("dynamic",),
    "phi3": ("longrope",),
    "qwen3": ("dynamic",),
}


def build_language_model(llm: Mapping[str, Any], attention: str = "sdpa") -> nn.Module:
    """transformers' own class of the family, `LlamaForCausalLM` for InternLM2, with random weights.

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
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    family = str(llm.get("model_type"))
    classes = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "internlm2": (LlamaConfig, LlamaForCausalLM),
        "phi3": (Phi3Config, Phi3ForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
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
    )  # untied in InternVL checkpoints, though the small Qwen models tie
    settings["pad_token_id"] = None  # a padding row in the embedding would be zeroed and never trained
    if family == "internlm2":
        settings["attention_bias"] = bool(llm.get("bias", False))
    scaling = settings.pop("rope_scaling", None)
    if scaling:
        settings["rope_scaling"] = _rope_scaling(family, scaling)
    if family == "phi3" and scaling:
        original = settings.setdefault("original_max_position_embeddings", 4096)
        settings["rope_scaling"]["original_max_position_embeddings"] = original
        factor = settings["max_position_embeddings"] / original
        if float(scaling.get("factor") or factor) != factor:
            raise ConfigError(
                f"llm_config: the long rope's factor {scaling['factor']} is not max_position_embeddings / "
                f"original_max_position_embeddings, {factor:g}"
            )
        settings["rope_scaling"]["factor"] = factor
    return settings


def _rope_scaling(family: str, scaling: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the scaling and gives it its present name: Phi-3's `su` is long rope."""
    kind = scaling.get("rope_type", scaling.get("type"))
    kind = "longrope" if kind == "su" else kind
    if kind not in _ROPE_KINDS[family]:
        known = ", ".join(_ROPE_KINDS[family]) or "none"
        raise ConfigError(f"llm_config: rope_scaling {kind!r} is not supported for {family} (known: {known})")
    rest = {k: v for k, v in scaling.items() if k not in ("type", "rope_type", "rope_theta")}
    return {**rest, "rope_type": kind, "type": kind}


class RotaryEmbedding(nn.Module):
    """cos and sin for `[batch, length]` positions; stands in for `rotary_emb` of transformers' models.

    Has no buffers, so a model built on the meta device needs nothing computed after loading.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        parameters = config.rope_parameters
        self.kind = parameters["rope_type"]
        self.base = float(parameters["rope_theta"])
        self.dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self.max_positions = int(config.max_position_embeddings)
        self.scaling = 1.0
        if self.kind == "dynamic":
            self.factor = float(parameters["factor"])
        elif self.kind == "longrope":
            self.original_positions = int(parameters["original_max_position_embeddings"])
            self.factors = (tuple(parameters["short_factor"]), tuple(parameters["long_factor"]))
            ratio = self.max_positions / self.original_positions
            if ratio > 1.0:  # LongRoPE, arXiv 2402.13753
                self.scaling = math.sqrt(1 + math.log(ratio) / math.log(self.original_positions))

    def regime(self, length: int) -> int:
        """What the angles depend on besides the position: equal for lengths whose rows have equal angles."""
        if self.kind == "longrope":
            return int(length > self.original_positions)
        if self.kind == "dynamic":
            return max(0, length - self.max_positions)
        return 0

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, each `[batch, length, head_dim]`, in the type of `x`.

        Args:
            x: gives type and device.
            position_ids: `[batch, length]`; a row's length is its largest position plus one.
        """
        inverse = self.inverse_frequencies(position_ids.to(x.device))
        angles = position_ids[..., None].float().to(x.device) * inverse
        angles = torch.cat((angles, angles), dim=-1)
        return (angles.cos() * self.scaling).to(x.dtype), (angles.sin() * self.scaling).to(x.dtype)

    def inverse_frequencies(self, position_ids: Tensor) -> Tensor:
        """Broadcastable to `[batch, length, head_dim / 2]`."""
        exponents = torch.arange(0, self.dim, 2, dtype=torch.float, device=position_ids.device) / self.dim
        if self.kind == "default":
            return 1.0 / (self.base**exponents)
        lengths = position_ids.amax(dim=-1)[:, None, None] + 1
        if self.kind == "longrope":
            short, long = (exponents.new_tensor(f) * self.base**exponents for f in self.factors)
            return torch.where(lengths > self.original_positions, 1.0 / long, 1.0 / short)
        # dynamic NTK: the base grows with the length (arXiv 2309.00071, section 3.3 and appendix B.2)
        lengths = lengths.clamp(min=self.max_positions).float()
        growth = self.factor * lengths / self.max_positions - (self.factor - 1)
        base = self.base * growth ** (self.dim / (self.dim - 2))
        return 1.0 / (base**exponents)
