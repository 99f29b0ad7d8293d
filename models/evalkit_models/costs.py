"""Work and memory of a Mini-InternVL, from its config.json or, before it is downloaded, published sizes."""

from __future__ import annotations

from pathlib import Path

from evalkit.pipeline.cost_estimate import Costs
from mini_internvl.config import MiniInternVLConfig, VisionConfig, config_from_native, read_json
from mini_internvl.releases import TINY, TINY_FOLDER, find_release

#: hidden, intermediate, layers, heads, key heads, head width, vocabulary of the released language models.
_SIZES = {
    "Qwen2-0.5B": (896, 4864, 24, 14, 2, 64, 151655),
    "InternLM2-1.8B": (2048, 8192, 24, 16, 8, 128, 92553),
    "Phi-3-mini": (3072, 8192, 32, 32, 32, 96, 32020),
    "Qwen2.5-0.5B": (896, 4864, 24, 14, 2, 64, 151674),
    "InternLM2.5-1.8B": (2048, 8192, 24, 16, 8, 128, 92553),
    "Qwen2.5-1.5B": (1536, 8960, 28, 12, 2, 128, 151674),
    "Qwen2.5-3B": (2048, 11008, 36, 16, 2, 128, 151674),
    "Qwen3-0.6B": (1024, 3072, 28, 16, 8, 128, 151936),
    "Qwen3-1.7B": (2048, 6144, 28, 16, 8, 128, 151936),
    "Qwen3-4B": (2560, 9728, 36, 32, 8, 128, 151936),
}
_QWEN3_HEAD = 128  # where config.json does not say
_BYTES = 2  # of a bfloat16


def costs(spec: str, checkpoint: str | None) -> Costs | None:
    """Costs of a released name, a hub id of such a name, or a folder; None where neither tells."""
    release = find_release(spec)
    folder = TINY_FOLDER if release is not None and release.name == TINY else Path(spec).expanduser()
    config = Path(checkpoint).expanduser() / "config.json" if checkpoint else folder / "config.json"
    if config.is_file():
        return _from_config(config)
    size = None if release is None else _SIZES.get(release.language_model)
    return None if size is None else _costs(VisionConfig(), size, 0.5)


def _from_config(path: Path) -> Costs | None:
    try:
        raw = read_json(path)
        native = raw.get("model_type") == "internvl"
        config = config_from_native(raw) if native else MiniInternVLConfig.from_dict(raw)
        llm = config.llm
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        hidden, inner, layers, heads = (int(llm[name]) for name in names)
        key_heads = int(llm.get("num_key_value_heads") or heads)
        width = int(llm.get("head_dim") or (_QWEN3_HEAD if config.family == "qwen3" else hidden // heads))
        size = (hidden, inner, layers, heads, key_heads, width, int(llm["vocab_size"]))
        return _costs(config.vision, size, config.downsample_ratio)
    except Exception:
        return None  # loading the checkpoint will say what is wrong with it


def _costs(vision: VisionConfig, size: tuple[int, ...], ratio: float) -> Costs:
    hidden, inner, layers, heads, key_heads, head_width, vocabulary = size
    keys = head_width * key_heads
    decoder = layers * (2 * hidden * head_width * heads + 2 * hidden * keys + 3 * hidden * inner)
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
