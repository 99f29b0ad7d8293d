"""Values in config.json of the wrong kind, or absurd: each is one line that names the key, and no wait."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from small_training import write_checkpoint

from mini_internvl.checkpoint import read_config
from mini_internvl.config import MiniInternVLConfig, VisionConfig, config_from_native
from mini_internvl.errors import ConfigError


@pytest.fixture(scope="module", params=["qwen2", "internlm2", "phi3"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "model", request.param)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("llm_config.num_hidden_layers", 10**12),
        ("vision_config.num_hidden_layers", 1e12),
        ("llm_config.hidden_size", "32"),
        ("llm_config.hidden_size", True),
        ("llm_config.rms_norm_eps", "small"),
        ("llm_config.rope_theta", [1]),
        ("vision_config.layer_norm_eps", {}),
        ("vision_config.attention_dropout", "0.1"),
        ("vision_config.patch_size", -7),
        ("select_layer", 0.5),
        ("select_layer", -4),
        ("select_layer", True),
    ],
)
def test_a_wrong_value_is_named(checkpoint: Path, tmp_path: Path, path: str, value: Any) -> None:
    raw = json.loads((checkpoint / "config.json").read_text())
    *parents, last = path.split(".")
    part = raw
    for name in parents:
        part = part[name]
    part[last] = value
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=last) as error:
        read_config(tmp_path)
    assert "\n" not in str(error.value)


_SIZES = "num_hidden_layers num_attention_heads hidden_size intermediate_size"
_VISION = {
    **dict.fromkeys([*_SIZES.split(), "image_size", "patch_size", "num_channels"], int),
    **dict.fromkeys(["layer_norm_eps", "initializer_factor", "initializer_range", "dropout"], float),
    **dict.fromkeys(["attention_dropout", "drop_path_rate"], float),
}
_LANGUAGE = {
    **dict.fromkeys([*_SIZES.split(), "num_key_value_heads", "vocab_size", "max_position_embeddings"], int),
    **dict.fromkeys(["rms_norm_eps", "rope_theta", "initializer_range", "attention_dropout"], float),
    **dict.fromkeys(["resid_pdrop", "embd_pdrop", "sliding_window", "max_window_layers"], float),
}


@pytest.mark.parametrize(
    ("part", "members"),
    [
        ("vision_config", _VISION),
        ("llm_config", _LANGUAGE),
        ("llm_config.rope_scaling", {"rope_theta": float}),
        ("llm_config.rope_parameters", {"rope_theta": float}),
    ],
)
def test_every_size_and_number_is_checked(
    checkpoint: Path, part: str, members: dict[str, type[int | float]]
) -> None:
    raw = json.loads((checkpoint / "config.json").read_text())
    numeric = {f.name for f in dataclasses.fields(VisionConfig) if f.type in ("int", "float")}
    assert part != "vision_config" or set(members) == numeric
    for name, kind in members.items():
        largest, least = (10**12, 0) if kind is int else (math.inf, math.nan)
        for wrong in (-1, "1", True, [1], {"a": 1}, largest, least):
            config = copy.deepcopy(raw)
            inner = functools.reduce(lambda at, step: at.setdefault(step, {}), part.split("."), config)
            inner[name] = wrong
            with pytest.raises(ConfigError, match=f": {name} is "):
                MiniInternVLConfig.from_dict(config)
            if part.startswith("llm_config"):
                text = {**config["llm_config"], "model_type": "qwen2"}
                native = {"vision_config": {}, "text_config": text}
                with pytest.raises(ConfigError, match=f": {name} is "):
                    config_from_native(native)


def test_a_key_that_occurs_twice_costs_no_time(tmp_path: Path) -> None:
    names = ", ".join(f'"t{number}": {number}' for number in range(150_000))
    (tmp_path / "config.json").write_text(f'{{{names}, "t149999": 0}}')
    with pytest.raises(ConfigError, match="'t149999' occurs twice"):
        read_config(tmp_path)
