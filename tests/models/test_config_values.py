"""Values in config.json: of the wrong kind, absurd or missing, each is one line and never a long wait."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_training import write_checkpoint

import mini_internvl
from mini_internvl.checkpoint import read_config
from mini_internvl.errors import ConfigError, TokenizerError


@pytest.fixture(scope="module", params=["qwen2", "internlm2", "phi3"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "model", request.param)


def changed(folder: Path, path: str, value: Any) -> str:
    """config.json with one value replaced, or left out where it is ..."""
    raw = json.loads((folder / "config.json").read_text())
    *parents, last = path.split(".")
    part = raw
    for name in parents:
        part = part[name]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("llm_config.num_hidden_layers", 10**12),
        ("llm_config.num_hidden_layers", 1e12),
        ("vision_config.num_hidden_layers", 10**12),
        ("llm_config.vocab_size", 10**15),
        ("llm_config.hidden_size", "32"),
        ("llm_config.hidden_size", True),
        ("llm_config.hidden_size", ...),
        ("llm_config.num_attention_heads", 0),
        ("llm_config.rms_norm_eps", "small"),
        ("llm_config.rope_theta", [1]),
        ("llm_config.eos_token_id", {"a": 1}),
        ("llm_config.architectures", {"Qwen2ForCausalLM": 1}),
        ("vision_config.patch_size", -7),
        ("vision_config.num_channels", 0),
        ("vision_config.attention_dropout", 2),
        ("vision_config.norm_type", 3),
        ("force_image_size", "big"),
        ("downsample_ratio", 0),
        ("select_layer", 0.5),
        ("template", ["Hermes-2"]),
        ("vision_config", []),
    ],
)
def test_a_wrong_value_is_named(checkpoint: Path, tmp_path: Path, path: str, value: Any) -> None:
    (tmp_path / "config.json").write_text(changed(checkpoint, path, value))
    with pytest.raises(ConfigError, match=path.split(".")[-1]) as error:
        read_config(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[" * 3000 + "]" * 3000, '{"a": 1, "a": 2}', '{"a": ' + "9" * 5000 + "}"])
def test_json_that_python_would_choke_on_or_guess_at(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read as JSON"):
        read_config(tmp_path)


def test_a_network_that_cannot_be_built_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(changed(checkpoint, "llm_config.hidden_act", "silly"))
    with pytest.raises(ConfigError, match=r"config\.json: no network can be built of it .*silly"):
        mini_internvl.load(tmp_path, device="cpu")


def test_tokenizer_files_of_another_form(checkpoint: Path, tmp_path: Path) -> None:
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(TokenizerError, match="tokenizer_config"):
        mini_internvl.load(tmp_path, device="cpu")
