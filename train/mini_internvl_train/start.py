"""From a recipe to a network ready to learn: loading, adapters, which parameters learn, its conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mini_internvl_train.encoding import ConversationEncoder
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.new_tokens import add_tokens
from mini_internvl_train.recipe import Lora, Recipe, Trainable
from mini_internvl_train.sample_images import Tiling
from mini_internvl_train.shared_lora import FUSED, share_first_matrices

if TYPE_CHECKING:
    from mini_internvl import ChatModel, MiniInternVL
    from mini_internvl.prompts import Template
    from mini_internvl.vision import EncoderLayer


@dataclass(frozen=True, slots=True)
class Start:
    """A loaded checkpoint and what training needs to know about it.

    Attributes:
        network: float32 on the CPU, nothing prepared yet.
        encoder, tiling: how its conversations and images become tensors.
        pad_id: fills rows.
        files: contents of its tokenizer files by name. The folder may be a checkpoint that is deleted while
            training goes on.
        native: whether its folder is in transformers' native layout.
    """

    network: ChatModel
    encoder: ConversationEncoder
    tiling: Tiling
    pad_id: int
    files: Mapping[str, bytes]
    native: bool


def load_start(recipe: Recipe, model: str | Path | None = None) -> Start:
    """Loads the start checkpoint.

    Args:
        recipe: names it, and bounds tiles and tokens.
        model: the checkpoint that training continues from, instead of the recipe's.

    Raises:
        MiniInternVLError: it cannot be loaded. RecipeError: it has no tokenizer.
    """
    from mini_internvl.checkpoint import read_config
    from mini_internvl.tokenizers import companion_files

    name = recipe.model if model is None else model
    network, template = load_with_prompt(name, dtype="float32")
    if network.tokenizer is None or network.image_token_id is None or network.folder is None:
        raise RecipeError(f"model: {name} has no tokenizer files, which training needs")
    files = companion_files(network.folder)
    if recipe.tokens:
        files = add_tokens(network, files, recipe.tokens)
    # a saved checkpoint states the settings that it was trained with
    config = replace(network.config, max_dynamic_patch=recipe.data.max_tiles)
    network.config = config
    encoder = ConversationEncoder(
        network.tokenizer,
        template,
        network.system_message,
        network.image_token_id,
        config.num_image_token,
        recipe.data.max_tokens,
    )
    bound = recipe.data.max_tiles if config.dynamic_image_size else 1
    return Start(
        network,
        encoder,
        Tiling(config.image_size, bound, config.use_thumbnail, recipe.data.max_pixels, recipe.data.frames),
        network.tokenizer.pad_id or 0,
        files,
        read_config(network.folder)[1],
    )


def load_with_prompt(
    name: str | Path, *, dtype: Any, folder: str | Path | None = None
) -> tuple[ChatModel, Template]:
    """The network on the CPU, and the template by which a training writes conversations.

    The template is the one that the checkpoint names. A checkpoint in transformers' native layout has a chat
    template instead: then it is the one that writes the same. The network's settings name it and its system
    message, so that what is saved answers by the prompt that it was trained with.

    Args:
        name: a checkpoint or an adapter. dtype: of the weights. folder: the base of an adapter.

    Raises:
        RecipeError: no template writes what the chat template does.
        MiniInternVLError: there is no such checkpoint or template.
    """
    import mini_internvl
    from mini_internvl.chat_template import named_prompt, read_chat_template
    from mini_internvl.checkpoint import read_config
    from mini_internvl.loading import find_base
    from mini_internvl.prompts import TEMPLATES, find_template

    base, _ = find_base(name, folder, None)
    config, native = read_config(base)
    template = find_template(config.template)
    chat = read_chat_template(base) if native else None
    named = None if chat is None else named_prompt(chat)
    if chat is not None and named is None:
        raise RecipeError(
            f"{name}: its chat template writes what no template does that a model made of it could name "
            f"({', '.join(TEMPLATES)}); start from the released layout"
        )
    template = template if named is None else named[0]
    network = mini_internvl.load(name, dtype=dtype, device="cpu", folder=folder, template=template.name)
    if named is not None:
        network.system_message = named[1]
    network.config = replace(network.config, template=template.name, system_message=network.system_message)
    return network, template


#: The language models' linear layers, under the names of transformers' classes (InternLM2 runs as Llama).
LORA_TARGETS = {
    "qwen2": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "internlm2": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "qwen3": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
ENCODER_TARGETS = ("qkv", "proj", "fc1", "fc2")
"""The vision encoder's linear layers."""
ADAPTER = "lora_"

PARTS = {
    "vision encoder": "vision_model.",
    "projector": "mlp1.",
    "language model": "language_model.",
}


def uses_lora(trainable: Trainable) -> bool:
    """Whether adapters are added."""
    return trainable in ("lora", "lora_projector")


def prepare(network: MiniInternVL, recipe: Recipe) -> None:
    """Adds adapters if the recipe has them, and marks in place which parameters learn.

    Raises:
        RecipeError: the network has no such layers.
    """
    last = recipe.parts.encoder_layers
    if last is not None and last > network.config.vision.num_hidden_layers:
        raise RecipeError(f"parts.encoder_layers: the encoder has {network.config.vision.num_hidden_layers}")
    if uses_lora(recipe.trainable):
        add_lora(network, recipe.lora, recipe.seed, last)
    mark_trainable(network, recipe.trainable, last)
    for layer, rate in zip(network.vision_model.encoder.layers, _drop_path(network, recipe), strict=True):
        cast("EncoderLayer", layer).drop_path = rate
    if recipe.gradient_checkpointing:
        network.vision_model.gradient_checkpointing = first_learning_layer(network) is not None
        _recompute(network.language_model)


def _recompute(language_model: Any) -> None:
    """Gradient checkpointing, under the name it has in this version of transformers."""
    enable = getattr(language_model, "activation_checkpointing_enable", None)
    (enable or language_model.gradient_checkpointing_enable)({"use_reentrant": False})


def mark_trainable(network: MiniInternVL, what: Trainable, encoder_layers: int | None = None) -> None:
    """Sets in place which parameters take gradients; adapters must have been added.

    Args:
        encoder_layers: how many last layers of the encoder learn; None: all, and its embeddings.
    """
    learning = _last_layers(network, encoder_layers)
    for name, parameter in network.named_parameters():
        frozen = encoder_layers is not None and name.startswith("vision_model.")
        kept = frozen and not name.startswith(learning)
        parameter.requires_grad_(_learns(name, what) and not kept)


def _last_layers(network: MiniInternVL, count: int | None) -> tuple[str, ...]:
    """Beginnings of the names in the encoder's last layers."""
    layers = network.config.vision.num_hidden_layers
    return tuple(f"vision_model.encoder.layers.{i}." for i in range(layers - (count or layers), layers))


def first_learning_layer(network: MiniInternVL) -> int | None:
    """The first layer of the encoder that gradients pass; 0 where its embeddings learn, None for no layer."""
    if any(parameter.requires_grad for parameter in network.vision_model.embeddings.parameters()):
        return 0
    layers = enumerate(network.vision_model.encoder.layers)
    return next((i for i, layer in layers if any(p.requires_grad for p in layer.parameters())), None)


def _learns(name: str, what: Trainable) -> bool:
    projector = name.startswith("mlp1.")
    if what == "full":
        return True
    if what == "frozen_vit":
        return not name.startswith("vision_model.")
    if what == "projector":
        return projector
    return ADAPTER in name or (what == "lora_projector" and projector)


def _drop_path(network: MiniInternVL, recipe: Recipe) -> list[float]:
    """Stochastic depth by layer, rising linearly from 0; a frozen encoder drops too, as InternVL's does."""
    layers = network.config.vision.num_hidden_layers
    top = recipe.drop_path if recipe.trainable in ("full", "frozen_vit") else 0.0
    return [top * index / max(layers - 1, 1) for index in range(layers)]


def add_lora(network: MiniInternVL, lora: Lora, seed: int = 0, encoder_layers: int | None = None) -> None:
    """Injects PEFT's adapters into linear layers, in place, drawn from a seed.

    Args:
        network: whose language model, and with `lora.encoder` whose encoder, is adapted.
        encoder_layers: how many last layers of the encoder; None: all.

    Raises:
        RecipeError: `lora.targets` names layers that are not there.
    """
    from peft import LoraConfig, inject_adapter_in_model

    language, encoder = lora_targets(network.config.family, lora)
    settings = lora.peft_settings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if language:
            config = LoraConfig(target_modules=list(language), **settings)
            inject_adapter_in_model(config, network.language_model.model)
            if network.config.family == "internlm2":
                share_first_matrices(network.language_model.model)
        if encoder:
            layers = network.config.vision.num_hidden_layers
            places = "|".join(str(i) for i in range(layers - (encoder_layers or layers), layers))
            inside = rf"layers\.(?:{places})\..*\.(?:{'|'.join(encoder)})"
            config = LoraConfig(target_modules=inside, **settings)
            inject_adapter_in_model(config, network.vision_model.encoder)


def lora_targets(family: str, lora: Lora) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the layers that are adapted, in the language model and in the encoder.

    Raises:
        RecipeError: a name that is in neither, or an encoder's without `lora.encoder`.
    """
    language, encoder = LORA_TARGETS[family], ENCODER_TARGETS if lora.encoder else ()
    if not lora.targets:
        return language, encoder
    if unknown := [name for name in lora.targets if name not in (*language, *encoder)]:
        hint = "; with lora.encoder it is" if unknown[0] in ENCODER_TARGETS else ""
        raise RecipeError(f"lora.targets: {unknown[0]} is none of {', '.join((*language, *encoder))}{hint}")
    fused = [name for name in FUSED if name in lora.targets]
    if family == "internlm2" and lora.dora and 0 < len(fused) < len(FUSED):
        raise RecipeError("lora.targets: with DoRA the fused q, k and v of InternLM2 are adapted together")
    chosen = tuple(name for name in encoder if name in lora.targets)
    return tuple(name for name in language if name in lora.targets), chosen or encoder


def merge_lora(network: MiniInternVL) -> None:
    """Folds every adapter into its layer, in place, leaving plain linear layers."""
    from peft.tuners.lora import LoraLayer

    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                layer: Any = child
                layer.merge(safe_merge=True)
                setattr(parent, name, layer.get_base_layer())


def learned_parameters(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and parameter of everything that learns."""
    return ((name, p) for name, p in network.named_parameters() if p.requires_grad)


@dataclass(frozen=True, slots=True)
class PartCount:
    """Parameters of one part of the network."""

    part: str
    total: int
    trainable: int


def count(network: nn.Module) -> list[PartCount]:
    """Parameters by part; adapters are counted apart from their language model."""
    counts = []
    for part, prefix in PARTS.items():
        named = [(n, p) for n, p in network.named_parameters() if n.startswith(prefix) and ADAPTER not in n]
        counts.append(_part(part, [p for _, p in named]))
    adapters = [p for n, p in network.named_parameters() if ADAPTER in n]
    return [*counts, _part("LoRA adapters", adapters)] if adapters else counts


def _part(part: str, parameters: Sequence[Tensor]) -> PartCount:
    return PartCount(
        part, sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    )
