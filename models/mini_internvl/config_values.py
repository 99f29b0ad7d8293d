"""Kinds and bounds of the values in `config.json`, checked before anything is built from them.

A value of another kind would end in an error of Python's or torch's own, and an absurd number in hours or in
all of the memory. The bounds lie far beyond any network of the family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mini_internvl.errors import ConfigError

Check = Callable[[Any], bool]


def _whole(least: int, most: int) -> tuple[str, Check]:
    def check(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return f"a whole number from {least} to {most}", check


def _number(least: float, most: float) -> tuple[str, Check]:
    def check(value: Any) -> bool:
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        return plain and math.isfinite(value) and least <= value <= most

    return f"a number from {least:g} to {most:g}", check


def _side(value: Any) -> bool:
    sides = value if isinstance(value, list) and value else [value]
    return all(
        isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= 1 << 14 for side in sides
    )


def _ids(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(isinstance(i, int) and not isinstance(i, bool) and -1 <= i < 1 << 31 for i in items)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(_number(0, 1e9)[1](item) for item in value)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_WIDTH, _COUNT, _LENGTH = _whole(1, 1 << 18), _whole(1, 4096), _whole(1, 1 << 40)
_SHARE, _FLAG = _number(0, 1), ("true or false", lambda value: isinstance(value, bool))
_TEXT = ("a text", lambda value: isinstance(value, str) and len(value) < 10_000)
_IDS = ("a token id or a list of them", _ids)

_KINDS: Mapping[str, tuple[str, Check]] = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "head_dim"), _WIDTH),
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), _COUNT),
    **dict.fromkeys(
        ("max_position_embeddings", "original_max_position_embeddings", "sliding_window"), _LENGTH
    ),
    **dict.fromkeys(("image_size", "patch_size"), ("a whole number from 1 to 16384", _side)),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps"), _SHARE),
    **dict.fromkeys(("dropout", "attention_dropout", "drop_path_rate", "resid_pdrop", "embd_pdrop"), _SHARE),
    **dict.fromkeys(("initializer_factor", "initializer_range"), _number(0, 1e6)),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), _IDS),
    **dict.fromkeys(("tie_word_embeddings", "bias", "qkv_bias", "attention_bias", "qk_normalization"), _FLAG),
    **dict.fromkeys(("use_qk_norm", "use_sliding_window", "dynamic_image_size", "use_thumbnail"), _FLAG),
    **dict.fromkeys(("model_type", "hidden_act", "norm_type", "template", "ps_version"), _TEXT),
    "system_message": ("a text", lambda value: isinstance(value, str)),
    "vocab_size": _whole(1, 1 << 24),
    "num_channels": _whole(1, 16),
    "max_window_layers": _whole(0, 4096),
    "rope_theta": _number(1e-6, 1e15),
    "factor": _number(1e-6, 1e6),
    "short_factor": ("a list of numbers", _numbers),
    "long_factor": ("a list of numbers", _numbers),
    "layer_types": ("a list of texts", _texts),
    "architectures": ("a list of texts", _texts),
    "downsample_ratio": _number(1e-3, 1),
    "select_layer": _whole(-4097, 4096),
    "vision_feature_layer": _whole(-4097, 4096),
    "force_image_size": _whole(1, 1 << 14),
    "min_dynamic_patch": _whole(1, 4096),
    "max_dynamic_patch": _whole(1, 4096),
    "image_token_id": _whole(0, 1 << 31),
}
#: Parts that are objects with values of their own.
_PARTS = ("vision_config", "llm_config", "text_config", "rope_scaling", "rope_parameters")
#: Values that must be there, by part.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("llm_config", "text_config"),
        ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    ),
}


def check_values(raw: Mapping[str, Any], part: str = "") -> None:
    """Refuses a value of another kind or beyond its bounds; None says nothing.

    Args:
        raw: the parsed `config.json`, or a part of it. part: its name in messages.

    Raises:
        ConfigError: names the key, what is expected and what was found.
    """
    where = f"{part}." if part else ""
    for name in _NEEDED.get(part, ()):
        if raw.get(name) is None:
            raise ConfigError(f"config.json: {where}{name} is missing")
    for name, value in raw.items():
        if value is None:
            continue
        if name in _PARTS:
            if not isinstance(value, Mapping):
                raise ConfigError(f"config.json: {where}{name}: expected an object, found {_shown(value)}")
            check_values(value, name)
        elif name in _KINDS and not _KINDS[name][1](value):
            raise ConfigError(
                f"config.json: {where}{name}: expected {_KINDS[name][0]}, found {_shown(value)}"
            )


def _shown(value: Any) -> str:
    if isinstance(value, (int, float)):
        return str(value) if abs(value) < 1e15 else f"{value:.3g}" if value < 1e300 else "a huge number"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
