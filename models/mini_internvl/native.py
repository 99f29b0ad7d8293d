"""transformers' native InternVL `config.json` (model_type `internvl`, the `*-hf` repositories)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mini_internvl.config import DEFAULT_TEMPLATES, MiniInternVLConfig, VisionConfig
from mini_internvl.errors import ConfigError

_FAMILY = {"qwen2": "qwen2", "llama": "internlm2", "phi3": "phi3"}


def config_from_native(raw: Mapping[str, Any]) -> MiniInternVLConfig:
    """The same settings in this package's terms. A Llama text model is taken for InternLM2.

    Raises:
        ConfigError: a part is missing or asks for something this package does not do.
    """
    for part in ("vision_config", "text_config"):
        if not isinstance(raw.get(part), Mapping):
            raise ConfigError(f"config.json: no {part}; is this a native InternVL checkpoint?")
    text = dict(raw["text_config"])
    if text.get("model_type") not in _FAMILY:
        raise ConfigError(
            f"config.json: text model {text.get('model_type')!r} is not one of {', '.join(_FAMILY)}"
        )
    strategy = raw.get("vision_feature_select_strategy", "default")
    if strategy != "default":
        raise ConfigError(f"config.json: vision_feature_select_strategy {strategy!r} is not supported")
    family = _FAMILY[text["model_type"]]
    tied = raw.get("tie_word_embeddings", text.get("tie_word_embeddings", True))
    llm = {
        **text,
        **_old_rope(text),
        "model_type": family,
        "tie_word_embeddings": tied,
        "bias": text.get("attention_bias", False),
    }
    return MiniInternVLConfig(
        vision=_vision(raw["vision_config"]),
        llm=llm,
        downsample_ratio=float(raw.get("downsample_ratio", 0.5)),
        select_layer=int(raw.get("vision_feature_layer", -1)),
        template=DEFAULT_TEMPLATES[family],
        image_token_id=raw.get("image_token_id", 151667),
    )


def _vision(raw: Mapping[str, Any]) -> VisionConfig:
    if raw.get("use_mean_pooling", True) is not True:
        raise ConfigError("config.json: vision_config with a final layer norm is not supported")

    def side(name: str, default: int) -> int:
        value = raw.get(name, default)
        if isinstance(value, (list, tuple)):
            if len(set(value)) != 1:
                raise ConfigError(f"config.json: vision_config.{name} {value} is not square")
            value = value[0]
        return int(value)

    return VisionConfig(
        hidden_size=int(raw.get("hidden_size", 1024)),
        intermediate_size=int(raw.get("intermediate_size", 4096)),
        num_hidden_layers=int(raw.get("num_hidden_layers", 24)),
        num_attention_heads=int(raw.get("num_attention_heads", 16)),
        num_channels=int(raw.get("num_channels", 3)),
        patch_size=side("patch_size", 14),
        image_size=side("image_size", 448),
        layer_norm_eps=float(raw.get("layer_norm_eps", 1e-6)),
        hidden_act=str(raw.get("hidden_act", "gelu")),
        norm_type=str(raw.get("norm_type", "layer_norm")),
        qkv_bias=bool(raw.get("attention_bias", False)),
        qk_normalization=bool(raw.get("use_qk_norm", False)),
    )


def _old_rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_parameters` of transformers 5 as the `rope_theta` and `rope_scaling` of the released configs."""
    parameters = text.get("rope_parameters")
    if not isinstance(parameters, Mapping):
        return {}
    kind = parameters.get("rope_type", "default")
    rope: dict[str, Any] = {"rope_theta": parameters.get("rope_theta", 10000.0), "rope_scaling": None}
    if kind != "default":
        left_out = ("rope_theta", "rope_type", "type", "partial_rotary_factor")
        rest = {k: v for k, v in parameters.items() if k not in left_out}
        rope["rope_scaling"] = {"type": kind, **rest}
        if "original_max_position_embeddings" in rest:
            rope["original_max_position_embeddings"] = rest["original_max_position_embeddings"]
    return rope
