"""What a training needs, before it begins: parameters, memory, tokens, packs, steps, hours."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mini_internvl_train.augmentation import Augmentation
from mini_internvl_train.packing import Bounds, Length, PackOrder
from mini_internvl_train.precision import DTYPES, emulated
from mini_internvl_train.recipe import Precision, Recipe
from mini_internvl_train.sample_files import PlannedLines
from mini_internvl_train.samples import TrainingSet, read_training_set
from mini_internvl_train.start import (
    PartCount,
    Start,
    count,
    first_learning_layer,
    learned_parameters,
    load_start,
    prepare,
)

if TYPE_CHECKING:
    from mini_internvl import MiniInternVL

Say = Callable[[str], None]
UTILISATION = 0.4
"""Share of a matrix product's rate that training reaches; well-run single-GPU training has 0.3 to 0.5."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Size and cost of a training.

    Attributes:
        parts: parameters by part. memory: of one rank without sharding.
        samples: of an epoch's mix; of them general ones. tokens, tiles, trained: of an epoch.
        packs: of an epoch. fill: share of the pack's larger bound that is used, tokens or tiles.
        steps: optimizer steps of the training. operations: floating-point ones of all steps.
    """

    parts: tuple[PartCount, ...]
    memory: Memory
    samples: int
    general: int
    tokens: int
    tiles: int
    trained: int
    packs: int
    fill: float
    steps: int
    operations: float

    def hours(self, rate: float, devices: int = 1, utilisation: float = UTILISATION) -> float:
        """Hours at a rate of floating-point operations a second and device."""
        return self.operations / (rate * devices * utilisation) / 3600


def plan_of(recipe: Recipe) -> TrainingPlan:
    """The plan of a recipe: its checkpoint is loaded and its data indexed; nothing is trained or written."""
    start = load_start(recipe)
    data, order = plan_data(recipe, start)
    prepare(start.network, recipe)
    general = {index for pool in data.general for index in pool.indices}
    return make_plan(recipe, start, order, data.lengths, general)


def plan_data(
    recipe: Recipe, start: Start, planned: PlannedLines | None = None
) -> tuple[TrainingSet, PackOrder]:
    """The training set, and its packs by step; with the lines of the training that is continued."""
    rotary: Any = start.network.language_model.model.rotary_emb
    bounds = Bounds(recipe.packing.max_tokens, recipe.packing.max_tiles)
    augmentation = Augmentation(recipe.augment, recipe.seed, recipe.data.max_pixels)
    data = read_training_set(
        recipe.data, start.encoder, start.tiling, rotary.regime, bounds, recipe.seed, planned, augmentation
    )
    return data, PackOrder(data.lengths, data.epoch(recipe.data, recipe.seed), recipe, data.damaged)


def make_plan(
    recipe: Recipe, start: Start, order: PackOrder, lengths: Sequence[Length], general: Container[int]
) -> TrainingPlan:
    """The plan of a prepared network.

    Args:
        recipe, start, order, lengths: as the training will have them.
        general: indices of the general samples.
    """
    packs = order.epoch(0)
    indices = [index for pack in packs for index in pack.samples]
    tokens = sum(lengths[i].tokens for i in indices)
    tiles = sum(lengths[i].tiles for i in indices)
    trained = sum(lengths[i].trained for i in indices)
    bounds = recipe.packing
    share = max(tokens / bounds.max_tokens, tiles / bounds.max_tiles) / len(packs)
    total = order.total_packs or order.total_steps * recipe.steps.packs_per_step
    squares = sum(lengths[i].tokens ** 2 for i in indices)
    each = operations(start.network, recipe, tokens, tiles, trained, squares) / len(packs)
    return TrainingPlan(
        parts=tuple(count(start.network)),
        memory=estimate_memory(start.network, recipe, largest_micro_step(order, lengths, recipe)),
        samples=len(indices),
        general=sum(index in general for index in indices),
        tokens=tokens,
        tiles=tiles,
        trained=trained,
        packs=len(packs),
        fill=share,
        steps=order.total_steps,
        operations=each * total,
    )


def operations(
    network: MiniInternVL, recipe: Recipe, tokens: int, tiles: int, trained: int, squares: int
) -> float:
    """Floating-point operations of forward and backward passes, recomputation included.

    Two for each weight and token forward, two for the gradient that passes through, two for that of a
    weight that learns; attention's products are added.

    Args:
        network, recipe: what learns, and whether layers are recomputed.
        tokens, tiles, trained: seen. squares: sum of squared sample lengths.
    """
    again = 1 if recipe.gradient_checkpointing else 0
    counts = {part.part: part for part in count(network)}
    language = counts["language model"]
    llm, vision = network.config.llm, network.config.vision
    head = int(llm["vocab_size"]) * int(llm["hidden_size"])
    layers = (
        max(0, language.total - 2 * head) if not llm.get("tie_word_embeddings") else language.total - head
    )
    learns = 2.0 if language.trainable else 0.0
    total = layers * tokens * (2 * (2 + again) + learns) + head * trained * (4 + learns)
    total += 4 * squares * int(llm["hidden_size"]) * int(llm["num_hidden_layers"]) * (3 + again)
    patches = tiles * (vision.grid**2 + 1)
    encoder = counts["vision encoder"]
    learns_at = first_learning_layer(network)
    passes = 1 if learns_at is None else (3 if encoder.trainable else 2) + again
    total += 2 * encoder.total * patches * passes
    total += 4 * patches * (vision.grid**2 + 1) * vision.hidden_size * vision.num_hidden_layers * passes
    return total + 6.0 * counts["projector"].total * tiles * network.config.num_image_token


def largest_micro_step(order: PackOrder, lengths: Sequence[Length], recipe: Recipe) -> MicroStep:
    """The largest micro-step of the first epoch: that of its longest packs."""
    packs = sorted(
        order.epoch(0), key=lambda pack: sum(lengths[i].tokens for i in pack.samples), reverse=True
    )[: recipe.steps.packs_per_micro_step]
    return MicroStep(
        tokens=sum(lengths[i].tokens for i in packs[0].samples) * len(packs),
        tiles=max(1, sum(lengths[i].tiles for pack in packs for i in pack.samples)),
        trained=sum(lengths[i].trained for pack in packs for i in pack.samples),
    )


def rate_of(recipe: Recipe, stated: float | None = None) -> tuple[float, str]:
    """Operations a second of this machine's device, and where the value comes from."""
    if stated is not None:
        return stated, "as stated"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision: Precision = "float32" if emulated(recipe.precision, device) else recipe.precision
    return measured_rate(precision, device), f"a matrix product in {precision} on this {device.type}"


def measured_rate(precision: Precision, device: torch.device, seconds: float = 1.0) -> float:
    """Operations a second of a matrix product in a precision on a device."""
    dtype = DTYPES[precision]
    side = 8192 if device.type == "cuda" else 1024
    left = torch.ones(side, side, dtype=dtype, device=device)
    _product(left)
    done, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds:
        _product(left)
        done += 1
    return done * 2.0 * side**3 / taken


def _product(left: torch.Tensor) -> None:
    left @ left
    if left.device.type == "cuda":
        torch.cuda.synchronize()


def parts_lines(network: MiniInternVL) -> list[str]:
    """Table of parameters by part."""
    return parts_table(count(network))


def parts_table(parts: Sequence[PartCount]) -> list[str]:
    """Table of parameters by part."""
    total = PartCount("all", sum(p.total for p in parts), sum(p.trainable for p in parts))
    lines = [f"{'part':<16}{'parameters':>15}{'learns':>15}{'share':>9}"]
    for part in (*parts, total):
        share = part.trainable / part.total if part.total else 0.0
        lines.append(f"{part.part:<16}{part.total:>15,}{part.trainable:>15,}{share:>9.2%}")
    return lines


def memory_lines(
    network: MiniInternVL, recipe: Recipe, order: PackOrder, lengths: Sequence[Length]
) -> list[str]:
    """The expected memory of a prepared network."""
    return [memory_line(estimate_memory(network, recipe, largest_micro_step(order, lengths, recipe)))]


def memory_line(memory: Memory) -> str:
    """One line on the expected memory."""
    parts = (
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("AdamW", memory.optimizer),
        ("activations", memory.activations),
    )
    shown = ", ".join(f"{name} {_bytes(value)}" for name, value in parts)
    return f"expected memory of one process, unsharded: {_bytes(memory.total)} ({shown})"


def plan_lines(plan: TrainingPlan, recipe: Recipe, rate: float, source: str, devices: int) -> list[str]:
    """The whole plan as text."""
    steps = recipe.steps
    return [
        *parts_table(plan.parts),
        memory_line(plan.memory),
        f"an epoch: {plan.samples:,} samples ({plan.general:,} general), {plan.tokens:,} tokens "
        f"({plan.trained:,} with loss), {plan.tiles:,} tiles",
        f"packs: {plan.packs:,} of at most {recipe.packing.max_tokens:,} tokens and "
        f"{recipe.packing.max_tiles} tiles, {plan.fill:.0%} full",
        f"steps: {plan.steps:,} of {steps.packs_per_step} packs, "
        f"{plan.steps * steps.packs_per_step / plan.packs:.2f} epochs",
        f"time: {_hours(plan.hours(rate, devices))} for {plan.operations:.3g} operations on {devices} "
        f"device{'' if devices == 1 else 's'} of {rate:.3g} a second ({source}), {UTILISATION:.0%} of it "
        "reached",
    ]


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"


def _bytes(value: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value / 1e3:.0f} kB"


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
    first = first_learning_layer(network)
    if first is None:
        return of_layer
    layers = vision.num_hidden_layers - first
    if recipe.gradient_checkpointing:
        return layers * patches * vision.hidden_size * 4 + of_layer
    return layers * of_layer
