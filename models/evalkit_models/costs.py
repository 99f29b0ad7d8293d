"""Work and memory of a Mini-InternVL, from its config.json or, before it is downloaded, published sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalkit.pipeline.cost_estimate import Costs
from mini_internvl.config import VisionConfig
from mini_internvl.releases import TINY, TINY_FOLDER, find_release

#: hidden, intermediate, layers, heads, key heads, vocabulary of the released language models.
_SIZES = {
    "1b": (896, 4864, 24, 14, 2, 151655),
    "2b": (2048, 8192, 24, 16, 8, 92553),
    "4b": (3072, 8192, 32, 32, 32, 32020),
}
_BYTES = 2  # of a bfloat16


def costs(spec: str, checkpoint: str | None) -> Costs | None:
    """Costs of a released name, a hub id of such a name, or a folder; None where neither tells."""
    release = find_release(spec)
    folder = TINY_FOLDER if release is not None and release.name == TINY else Path(spec).expanduser()
    config = Path(checkpoint).expanduser() / "config.json" if checkpoint else folder / "config.json"
    if config.is_file():
        return _from_config(json.loads(config.read_text(encoding="utf-8")))
    if release is None:
        return None
    size = next((size for part, size in _SIZES.items() if f"-{part}" in release.name), None)
    return None if size is None else _costs(VisionConfig(), size, 0.5)


def _from_config(config: dict[str, Any]) -> Costs | None:
    try:
        llm, vision = config["llm_config"], config["vision_config"]
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        heads = llm.get("num_key_value_heads") or llm["num_attention_heads"]
        size = (*(int(llm[name]) for name in names), int(heads), int(llm["vocab_size"]))
        known = {name: vision[name] for name in VisionConfig.__dataclass_fields__ if name in vision}
        return _costs(VisionConfig(**known), size, float(config.get("downsample_ratio", 0.5)))
    except (KeyError, TypeError, ValueError):
        return None  # loading the checkpoint will say what is wrong with it


def _costs(vision: VisionConfig, size: tuple[int, ...], ratio: float) -> Costs:
    hidden, inner, layers, heads, key_heads, vocabulary = size
    keys = hidden // heads * key_heads
    decoder = layers * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner)
    positions = vision.grid**2 + 1
    wide = vision.hidden_size
    encoder = vision.num_hidden_layers * (4 * wide * wide + 2 * wide * vision.intermediate_size)
    attention = 4 * vision.num_hidden_layers * positions**2 * wide
    return Costs(
        tokens_per_tile=int(vision.grid**2 * ratio**2),
        tile_flops=2.0 * encoder * positions + attention,
        token_flops=2.0 * decoder,
        weight_bytes=float(_BYTES * (decoder + encoder + 2 * vocabulary * hidden)),
        step_bytes=float(_BYTES * (decoder + vocabulary * hidden)),
        token_bytes=float(2 * layers * keys * _BYTES),
    )
