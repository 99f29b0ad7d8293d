"""CLIP's vision encoder in InternViT's layout (paper section 3.2: the student starts from CLIP-ViT-L/14-336).

The two differ, and how they meet is not published. Exact: CLIP's pixel statistics become ImageNet's inside
the patch embedding; queries, keys and values are joined; layer scale, which CLIP lacks, is 1. Our choice, for
what InternViT has no place for: of the norm before the first layer, the centring and the gains are folded
into patches and positions, and its divisor is the spread that unit noise would have; the norm after the last
layer is left out; QuickGELU becomes GELU; the position table is resized bicubically (24 to 32 a side).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mini_internvl.config import VisionConfig, read_json
from mini_internvl.model import IMAGENET_MEAN, IMAGENET_STD
from mini_internvl.vision import InternViT
from mini_internvl.weights import WeightReader, weight_files
from mini_internvl_train.errors import RecipeError

KINDS = ("clip", "clip_vision_model")
"""`model_type` of a folder that holds CLIP, or its vision encoder alone."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's pixels, where the folder does not say."""

_ACTIVATIONS = ("quick_gelu", "gelu")
_NORM = "pre_layrnorm"
"""As CLIP's own weights spell it."""

Fetch = Callable[[str], Tensor]


def read_clip(folder: Path, image_size: int) -> InternViT:
    """CLIP's vision encoder as an InternViT, in float32.

    Args:
        folder: a checkpoint as transformers writes it.
        image_size: side of a tile in pixels; the position table is resized to it.

    Raises:
        RecipeError: settings that no InternViT has. MiniInternVLError: weights or settings cannot be read.
    """
    raw = read_json(folder / "config.json")
    settings = raw.get("vision_config", raw) if raw.get("model_type") == "clip" else raw
    config = _config(folder, settings, image_size)
    reader = WeightReader(weight_files(folder))
    names = set(reader.names())
    prefix = next((p for p in ("vision_model.", "") if f"{p}embeddings.class_embedding" in names), None)
    if prefix is None:
        raise RecipeError(f"{folder}: holds no CLIP vision encoder (vision_model.embeddings.class_embedding)")
    mean, std = _statistics(folder)

    def fetch(name: str) -> Tensor:
        if prefix + name not in names:
            raise RecipeError(f"{folder}: the weight {prefix}{name} is missing")
        return reader.fetch(prefix + name).float()

    state = _embeddings(fetch, config, mean, std)
    for number in range(config.num_hidden_layers):
        state |= _layer(fetch, number, config)
    encoder = InternViT(config)
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        raise RecipeError(f"{folder}: the weights do not fit config.json ({error})") from None
    return encoder.eval()


def _config(folder: Path, settings: Mapping[str, Any], image_size: int) -> VisionConfig:
    """InternViT's settings; what config.json leaves out is CLIP's default."""
    activation = settings.get("hidden_act", "quick_gelu")
    if activation not in _ACTIVATIONS:
        raise RecipeError(f"{folder}: hidden_act {activation!r} is not one of {', '.join(_ACTIVATIONS)}")
    return VisionConfig(
        hidden_size=int(settings.get("hidden_size", 768)),
        intermediate_size=int(settings.get("intermediate_size", 3072)),
        num_hidden_layers=int(settings.get("num_hidden_layers", 12)),
        num_attention_heads=int(settings.get("num_attention_heads", 12)),
        patch_size=int(settings.get("patch_size", 32)),
        image_size=image_size,
        layer_norm_eps=float(settings.get("layer_norm_eps", 1e-5)),
    )


def _statistics(folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of CLIP's pixels, by channel."""
    path = folder / "preprocessor_config.json"
    said = read_json(path) if path.is_file() else {}
    return torch.tensor(said.get("image_mean", MEAN)), torch.tensor(said.get("image_std", STD))


def _embeddings(fetch: Fetch, config: VisionConfig, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """Patches, class token and positions, with CLIP's pixel statistics and the norm after them folded in."""
    kernel = fetch("embeddings.patch_embedding.weight")
    scale, shift = torch.tensor(IMAGENET_STD) / std, (torch.tensor(IMAGENET_MEAN) - mean) / std
    bias = (kernel.sum(dim=(2, 3)) * shift).sum(dim=1)
    kernel = kernel * scale[None, :, None, None]
    token = fetch("embeddings.class_embedding")
    positions = resized(fetch("embeddings.position_embedding.weight"), config.grid)
    gain, offset = fetch(f"{_NORM}.weight"), fetch(f"{_NORM}.bias")

    def centred(values: Tensor) -> Tensor:
        return values - values.mean(dim=-1, keepdim=True)

    first = centred(token + positions[0])  # of no image: its norm is exact
    first = gain * first / (first.var(unbiased=False) + config.layer_norm_eps).sqrt() + offset
    kernel, bias = kernel - kernel.mean(dim=0), centred(bias)
    rest = centred(positions[1:])
    noise = kernel.flatten(1).pow(2).sum(dim=1)  # variance of each channel where pixels are unit noise
    spread = ((rest + bias).pow(2) + noise).mean(dim=-1, keepdim=True).sqrt()
    # one divisor for all places, for the kernel is shared by them
    divisor = spread.mean()
    table = torch.cat([torch.zeros(1, len(gain)), gain * rest / divisor + offset])
    return {
        "embeddings.class_embedding": first[None, None],
        "embeddings.position_embedding": table[None],
        "embeddings.patch_embedding.weight": kernel * (gain / divisor)[:, None, None, None],
        "embeddings.patch_embedding.bias": bias * gain / divisor,
    }


def resized(table: Tensor, grid: int) -> Tensor:
    """A position table for another number of patches a side, bicubically; the class token's row stays.

    Args:
        table: `[1 + patches, width]`.

    Returns:
        `[1 + grid * grid, width]`.
    """
    side = round((len(table) - 1) ** 0.5)
    if side * side != len(table) - 1:
        raise RecipeError(f"a position table of {len(table) - 1} patches is not that of a square image")
    if side == grid:
        return table
    places = table[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    places = functional.interpolate(places, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:1], places.flatten(2).squeeze(0).T])


def _layer(fetch: Fetch, number: int, config: VisionConfig) -> dict[str, Tensor]:
    theirs, ours = f"encoder.layers.{number}.", f"encoder.layers.{number}."
    ones = torch.ones(config.hidden_size)
    state = {f"{ours}ls1": ones, f"{ours}ls2": ones.clone()}
    for kind in ("weight", "bias"):
        parts = [fetch(f"{theirs}self_attn.{part}_proj.{kind}") for part in "qkv"]
        state[f"{ours}attn.qkv.{kind}"] = torch.cat(parts)
        for name, source in (
            ("attn.proj", "self_attn.out_proj"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
            ("norm1", "layer_norm1"),
            ("norm2", "layer_norm2"),
        ):
            state[f"{ours}{name}.{kind}"] = fetch(f"{theirs}{source}.{kind}")
    return state
