"""Small random checkpoints for tests: transformers' native InternVL of each family, saved in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

IMAGE_TOKEN = 500
TOKENS_PER_TILE = 4
FAMILIES = ("qwen2", "internlm2", "phi3", "qwen3", "internlm2-dynamic", "phi3-long", "qwen2-dynamic")

_TEXT = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}


def text_config(family: str) -> dict[str, Any]:
    """Settings of a small language model, in transformers' own words."""
    length = 24 if family.endswith("dynamic") else 32768
    scaling = {"type": "dynamic", "rope_type": "dynamic", "factor": 2.0}
    if family.startswith("qwen2"):
        found = {**_TEXT, "model_type": "qwen2", "max_position_embeddings": length, "rope_theta": 1e6}
        return {**found, "rope_scaling": scaling} if family.endswith("dynamic") else found
    if family == "qwen3":  # heads of their own size, not hidden_size / num_attention_heads
        qwen3 = {"model_type": "qwen3", "max_position_embeddings": 40960, "rope_theta": 1e6, "head_dim": 32}
        return {**_TEXT, **qwen3}
    if family.startswith("internlm2"):
        return {
            **_TEXT,
            "model_type": "llama",
            "max_position_embeddings": length,
            "rope_theta": 1e6,
            "rope_scaling": scaling,
        }
    original = 24 if family.endswith("long") else 4096
    return {
        **_TEXT,
        "model_type": "phi3",
        "max_position_embeddings": original * 32,
        "original_max_position_embeddings": original,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "type": "longrope",
            "rope_type": "longrope",
            "short_factor": [1.0 + 0.05 * i for i in range(8)],
            "long_factor": [1.0 + 0.6 * i for i in range(8)],
        },
    }


def native_model(
    family: str, *, tied: bool = False, seed: int = 0, image_token: int = IMAGE_TOKEN, **text_changes: Any
) -> Any:
    """transformers' own InternVL with random weights, large enough to tell errors apart.

    Args:
        text_changes: other settings of the language model.
    """
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    text = {**text_config(family), "tie_word_embeddings": tied, **text_changes}
    config = InternVLConfig(
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "attention_bias": True,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        },
        text_config=text,
        image_token_id=image_token,
        image_seq_length=TOKENS_PER_TILE,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            elif "lambda" in name:
                parameter.uniform_(0.2, 1.0)
            else:
                parameter.normal_(std=0.12)
    return model


def save_native(family: str, folder: Path, *, tied: bool = False) -> Any:
    """The model, and its folder as `save_pretrained` writes it."""
    model = native_model(family, tied=tied)
    model.save_pretrained(folder)
    return model


def inputs(rows: tuple[tuple[int, int], ...], seed: int = 1) -> dict[str, torch.Tensor]:
    """A left-padded batch.

    Args:
        rows: (tiles, text tokens) of each row.
        seed: of the random ids and pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = []
    for tiles, text in rows:
        words = torch.randint(3, 498, (text,), generator=generator).tolist()
        ids.append([1, *words[:3], 498, *[IMAGE_TOKEN] * (TOKENS_PER_TILE * tiles), 499, *words[3:]])
    longest = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[2] * (longest - len(row)) + row for row in ids]),
        "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids]),
        "pixel_values": torch.randn(sum(t for t, _ in rows), 3, 56, 56, generator=generator),
    }


def single(batch: dict[str, torch.Tensor], row: int, tiles: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """One row of a batch without its padding, with its own tiles."""
    real = int(batch["attention_mask"][row].sum())
    start = sum(tiles[:row])
    return {
        "input_ids": batch["input_ids"][row : row + 1, -real:],
        "attention_mask": batch["attention_mask"][row : row + 1, -real:],
        "pixel_values": batch["pixel_values"][start : start + tiles[row]],
    }
