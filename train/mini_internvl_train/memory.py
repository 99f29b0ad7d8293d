"""What a training needs of one device's memory, estimated before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mini_internvl_train.recipe import Recipe
from mini_internvl_train.trainable import learned_parameters

if TYPE_CHECKING:
    from mini_internvl import MiniInternVL


@dataclass(frozen=True, slots=True)
class MicroStep:
    """Size of a micro-step: tokens (padding included), tiles, and tokens with loss."""

    tokens: int
    tiles: int
    trained: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Expected bytes of one rank without sharding.

    Attributes:
        weights: float32 master weights of what learns, the rest in the recipe's precision.
        gradients, optimizer: of what learns, in float32 (AdamW keeps two).
        activations: of the largest micro-step, kept for the backward pass.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(network: MiniInternVL, recipe: Recipe, micro: MicroStep) -> Memory:
    """Expected memory of one rank without sharding.

    Args:
        network: after `trainable.prepare`.
        recipe: precision, checkpointing, and what learns.
        micro: the largest micro-step.
    """
    total = sum(p.numel() for p in network.parameters())
    learns = sum(p.numel() for _, p in learned_parameters(network))
    size = 4 if recipe.precision == "float32" else 2
    casts = learns * size if size < 4 else 0  # autocast keeps a rounded copy of each weight for the backward
    activations = _language(network, recipe, micro, size) + _vision(network, recipe, micro, size) + casts
    return Memory(4 * learns + size * (total - learns), 4 * learns, 8 * learns, activations)


def _language(network: MiniInternVL, recipe: Recipe, micro: MicroStep, size: int) -> int:
    llm = network.config.llm
    width, inner = int(llm["hidden_size"]), int(llm["intermediate_size"])
    layers = int(llm["num_hidden_layers"])
    # a layer keeps about ten tensors of the model's width and four of its MLP's; recomputed, only its input
    of_layer = micro.tokens * (10 * width + 4 * inner) * size
    kept = (
        layers * micro.tokens * width * size + of_layer
        if recipe.gradient_checkpointing
        else layers * of_layer
    )
    logits = 3 * micro.trained * int(llm["vocab_size"]) * 4  # logits, their softmax, its gradient
    return kept + logits


def _vision(network: MiniInternVL, recipe: Recipe, micro: MicroStep, size: int) -> int:
    vision = network.config.vision
    patches = micro.tiles * (vision.grid**2 + 1)
    of_layer = patches * (10 * vision.hidden_size + 3 * vision.intermediate_size) * size
    if recipe.trainable != "full":
        return of_layer
    if recipe.gradient_checkpointing:
        return vision.num_hidden_layers * patches * vision.hidden_size * 4 + of_layer
    return vision.num_hidden_layers * of_layer
