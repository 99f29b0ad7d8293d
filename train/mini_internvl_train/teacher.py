"""The encoder that is learned from: that of a Mini-InternVL, or an InternViT published by itself."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mini_internvl_train.errors import TrainingError

if TYPE_CHECKING:
    from mini_internvl.vision import InternViT


def load_vision(name: str, dtype: torch.dtype) -> InternViT:
    """An encoder, in evaluation mode, without gradients.

    Args:
        name: of a Mini-InternVL or of a bare InternViT (`OpenGVLab/InternViT-6B-448px-V1-5`): a short name, a
            folder or a hub id.
        dtype: of its weights.

    Raises:
        MiniInternVLError: it cannot be loaded. TrainingError: its weights do not fit its settings.
    """
    import mini_internvl
    from mini_internvl.config import read_json
    from mini_internvl.releases import locate

    folder = locate(name)
    raw = read_json(folder / "config.json")
    if raw.get("model_type") == "intern_vit_6b":
        encoder = _bare(folder, raw, dtype)
    else:
        encoder = mini_internvl.load(folder, dtype=dtype, device="cpu").vision_model
    return encoder.requires_grad_(False).eval()


def _bare(folder: Path, raw: dict[str, object], dtype: torch.dtype) -> InternViT:
    from mini_internvl.config import VisionConfig
    from mini_internvl.vision import InternViT
    from mini_internvl.weights import WeightReader, weight_files

    known = {item.name for item in fields(VisionConfig)}
    config = VisionConfig(**{k: v for k, v in raw.items() if k in known and v is not None})  # type: ignore[arg-type]
    reader = WeightReader(weight_files(folder))
    with torch.device("meta"):
        encoder = InternViT(config)
    shapes = {key: tensor.shape for key, tensor in encoder.state_dict().items()}
    stored = set(reader.names())
    if shapes.keys() != stored:
        odd = sorted(shapes.keys() ^ stored)
        raise TrainingError(f"{folder}: {len(odd)} weights do not fit config.json, first {odd[0]}")
    state = {key: reader.fetch(key).to(dtype) for key in shapes}
    wrong = [key for key, tensor in state.items() if tensor.shape != shapes[key]]
    if wrong:
        raise TrainingError(
            f"{folder}: {wrong[0]} is {list(state[wrong[0]].shape)}, not {list(shapes[wrong[0]])}"
        )
    encoder.load_state_dict(state, assign=True)
    return encoder
