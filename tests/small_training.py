"""A small checkpoint with tokenizer, a small training set and recipes, for tests of training."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import small_tokenizers
import yaml
from PIL import Image

from mini_internvl import MiniInternVL, MiniInternVLConfig, VisionConfig, initialise, read_tokenizer
from mini_internvl.checkpoint import save_checkpoint
from mini_internvl_train.recipe import Recipe, read_recipe

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "white": (250, 250, 250)}
TEMPLATES = {
    "qwen2": "Hermes-2",
    "internlm2": "internlm2-chat",
    "phi3": "phi3-chat",
    "qwen3": "internvl2_5",
}
WRITERS = {
    "qwen2": small_tokenizers.write_qwen2,
    "internlm2": small_tokenizers.write_internlm2,
    "phi3": small_tokenizers.write_phi3,
    "qwen3": small_tokenizers.write_qwen3,
}
SIZE = 28


def write_checkpoint(folder: Path, family: str = "qwen2", *, seed: int = 0, tied: bool = False) -> Path:
    """A network of some ten thousand parameters with its family's tokenizer."""
    WRITERS[family](folder)
    tokenizer = read_tokenizer(folder)
    assert tokenizer is not None
    llm: dict[str, Any] = {
        "model_type": family,
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied,
        "eos_token_id": tokenizer.eos_id,
    }
    if family == "qwen3":
        llm["head_dim"] = 12  # its own setting, not hidden_size / num_attention_heads
    vision = VisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=7,
        image_size=SIZE,
    )
    config = MiniInternVLConfig(
        vision=vision,
        llm=llm,
        template=TEMPLATES[family],
        system_message="Be short.",
        image_token_id=tokenizer.token_id("<IMG_CONTEXT>"),
    )
    save_checkpoint(initialise(config, MiniInternVL, seed=seed), folder)
    return folder


def write_data(
    folder: Path, samples: int = 12, *, seed: int = 0, text_only: Sequence[int] = (), name: str = "colours"
) -> Path:
    """Coloured pictures with their colour's name as the answer; returns the meta file.

    Args:
        folder: is made.
        samples: lines. seed: of the pictures.
        text_only: positions of lines without a picture.
        name: of the data set.
    """
    rng = random.Random(seed)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines = []
    for position in range(samples):
        colour = rng.choice(list(COLOURS))
        line: dict[str, Any] = {"id": position}
        if position in text_only:
            turns = ("Say a colour.", colour)
        else:
            size = rng.choice([(30, 30), (60, 30), (30, 90)])
            Image.new("RGB", size, COLOURS[colour]).save(folder / "pictures" / f"{position}.png")
            line["image"] = f"{position}.png"
            turns = ("<image>\nWhat colour?", colour)
        spoken = [{"from": "human", "value": turns[0]}, {"from": "gpt", "value": turns[1]}]
        if position % 3 == 0:
            spoken += [{"from": "human", "value": "Are you sure?"}, {"from": "gpt", "value": "yes"}]
        lines.append({**line, "conversations": spoken})
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    meta = folder / f"{name}.json"
    meta.write_text(json.dumps({name: {"root": "pictures", "annotation": f"{name}.jsonl"}}))
    return meta


def write_recipe(folder: Path, model: Path, meta: Path, **settings: Any) -> Path:
    """A recipe file of six short steps in float32; dotted keys override."""
    raw: dict[str, Any] = {
        "name": "small",
        "model": str(model),
        "output": str(folder / "out"),
        "data": {"meta": str(meta), "max_tiles": 2, "max_tokens": 400},
        "optimizer": {"lr": 1e-3, "warmup_ratio": 0.2, "weight_decay": 0.01},
        "packing": {"max_tiles": 9, "max_tokens": 500},
        "steps": {"packs_per_step": 2, "max_steps": 6},
        "checkpoints": {"every": 2, "keep": 2},
        "precision": "float32",
        "gradient_checkpointing": False,
        "drop_path": 0.2,
        "seed": 7,
    }
    for key, value in settings.items():
        group = raw
        *parents, last = key.split("__")
        for parent in parents:
            group = group.setdefault(parent, {})
        group[last] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def make_recipe(folder: Path, *, family: str = "qwen2", samples: int = 12, **settings: Any) -> Recipe:
    """Checkpoint, data and recipe in one folder."""
    model = folder / "model"
    if not model.exists():
        write_checkpoint(model, family)
    meta = write_data(folder / "data", samples)
    return read_recipe(write_recipe(folder, model, meta, **settings))
