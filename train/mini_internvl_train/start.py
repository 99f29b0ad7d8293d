"""From a recipe to a network ready to learn: loading, adapters, what moves, how its conversations read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mini_internvl_train.encoding import Encoder
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.recipe import Precision, Recipe
from mini_internvl_train.tiling import Tiling

if TYPE_CHECKING:
    from mini_internvl import ChatModel

DTYPES: dict[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "float32": torch.float32,
}


@dataclass(frozen=True, slots=True)
class Start:
    """A loaded checkpoint with what training needs to know of it.

    Attributes:
        network: float32 on the CPU, nothing prepared yet.
        encoder, tiling: how its conversations and pictures become tensors.
        pad_id: fills rows.
        folder: where its files are; tokenizer files are copied from there.
    """

    network: ChatModel
    encoder: Encoder
    tiling: Tiling
    pad_id: int
    folder: Path


def load_start(recipe: Recipe, model: str | Path | None = None) -> Start:
    """Loads the start checkpoint.

    Args:
        recipe: names it, and bounds tiles and tokens.
        model: in place of the recipe's: the checkpoint that training goes on from.

    Raises:
        MiniInternVLError: it cannot be loaded. RecipeError: it has no tokenizer.
    """
    import mini_internvl

    name = recipe.model if model is None else model
    network = mini_internvl.load(name, dtype="float32", device="cpu")
    if network.tokenizer is None or network.image_token_id is None or network.folder is None:
        raise RecipeError(f"model: {name} has no tokenizer files, which training needs")
    # what was trained with is what the saved checkpoint says of itself
    config = replace(
        network.config, system_message=network.system_message, max_dynamic_patch=recipe.data.max_tiles
    )
    network.config = config
    encoder = Encoder(
        network.tokenizer,
        network.template,
        network.system_message,
        network.image_token_id,
        config.num_image_token,
        recipe.data.max_tokens,
    )
    bound = recipe.data.max_tiles if config.dynamic_image_size else 1
    return Start(
        network,
        encoder,
        Tiling(config.image_size, bound, config.use_thumbnail),
        network.tokenizer.pad_id or 0,
        network.folder,
    )
