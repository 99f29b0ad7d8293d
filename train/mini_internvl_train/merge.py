"""A LoRA checkpoint folded into its base: a plain model folder, its logits checked against the unmerged."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evalkit.doors import cause
from mini_internvl_train.checkpoints import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    load_learned,
    published,
    read_weights,
)
from mini_internvl_train.errors import ResumeError, TrainingError
from mini_internvl_train.precision import DTYPES
from mini_internvl_train.recipe import Lora
from mini_internvl_train.start import add_lora, mark_trainable, merge_lora

if TYPE_CHECKING:
    from mini_internvl import ChatModel

TOLERANCE = 1e-3
"""Largest difference of merged and unmerged logits, relative to their spread, in float32."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A folded checkpoint.

    Attributes:
        folder: where it was written.
        difference: largest difference of its logits from the unmerged ones, relative to their spread.
    """

    folder: Path
    difference: float


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint folder holds an adapter instead of a model."""
    return (folder / ADAPTER_CONFIG).is_file()


def merge(checkpoint: Path, output: Path) -> Merged:
    """Folds an adapter into its base and writes a model in the released layout.

    Args:
        checkpoint: folder of a LoRA training's step.
        output: folder of the model; one that exists is replaced.

    Raises:
        ResumeError: not an adapter, or its base is not the one it was trained on.
        TrainingError: the merged logits differ from the unmerged ones.
    """
    from mini_internvl import save_checkpoint

    settings = _settings(checkpoint)
    network = load_adapted(checkpoint)
    probe = _probe(network)
    before = _logits(network, *probe)
    merge_lora(network)
    after = _logits(network, *probe)
    difference = float((after - before).abs().max() / before.std())
    if not difference <= TOLERANCE:
        raise TrainingError(f"{checkpoint}: merged logits differ by {difference:.2g} of their spread")
    assert network.folder is not None
    dtype = DTYPES[settings["precision"]]
    with published(output) as temporary:
        save_checkpoint(network, temporary, tokenizer_from=network.folder, dtype=dtype)
    return Merged(output, difference)


def load_adapted(checkpoint: Path) -> ChatModel:
    """The base with the adapter in place, unmerged, in float32.

    Raises:
        ResumeError: not an adapter, or its base is not the one it was trained on.
    """
    import mini_internvl

    settings = _settings(checkpoint)
    base = settings["base"]
    network = mini_internvl.load(base["model"], dtype="float32", device="cpu")
    # an adapter of an older form names the hash of the base's weights alone
    if base["fingerprint"] not in (network.fingerprint, network.weights_fingerprint):
        raise ResumeError(
            f"{checkpoint}: its base {base['model']} has other weights, settings or tokenizer than the "
            "adapter was trained on"
        )
    network.config = replace(
        network.config, system_message=network.system_message, max_dynamic_patch=settings["max_tiles"]
    )
    for parameter in network.parameters():  # as training saw them, and in float32
        parameter.data = parameter.data.to(DTYPES[settings["precision"]]).float()
    add_lora(network, Lora(**settings["lora"]))
    mark_trainable(network, settings["trainable"])
    load_learned(network, read_weights(checkpoint / ADAPTER_WEIGHTS), checkpoint / ADAPTER_WEIGHTS)
    return network.eval()


def _settings(checkpoint: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads((checkpoint / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResumeError(
            f"{checkpoint}: no {ADAPTER_CONFIG}; only LoRA checkpoints are merged, others are whole models"
        ) from None
    except Exception as error:
        raise ResumeError(f"{checkpoint / ADAPTER_CONFIG}: cannot be read ({cause(error)})") from None
    if not isinstance(settings, dict):
        raise ResumeError(f"{checkpoint / ADAPTER_CONFIG}: no JSON object")
    if "base" not in settings:
        kind = settings.get("peft_type", "another program's")
        raise ResumeError(
            f"{checkpoint}: a {kind} adapter that evalkit train did not write; merge it into its base with "
            "peft's merge_and_unload"
        )
    _check(checkpoint / ADAPTER_CONFIG, settings)
    return settings


def _check(path: Path, settings: dict[str, Any]) -> None:
    """Raises ResumeError where the adapter's settings are not as `evalkit train` writes them."""
    base, tiles = settings["base"], settings.get("max_tiles")
    try:
        Lora(**settings["lora"])
        good = all(isinstance(base[name], str) for name in ("model", "fingerprint"))
        good = good and type(tiles) is int and settings["precision"] in DTYPES
        good = good and isinstance(settings["trainable"], str)
    except Exception as error:
        raise ResumeError(f"{path}: not as evalkit train writes it ({cause(error)})") from None
    if not good:
        raise ResumeError(
            f"{path}: base, max_tiles, precision or trainable is not as evalkit train writes it"
        )


def _probe(network: ChatModel) -> tuple[Tensor, Tensor]:
    """Random ids with one grey image, the same every time."""
    generator = torch.Generator().manual_seed(0)
    size = network.config.image_size
    assert network.image_token_id is not None
    words = torch.randint(0, int(network.config.llm["vocab_size"]), (1, 32), generator=generator)
    words[words == network.image_token_id] = 0
    image = torch.full((1, network.config.num_image_token), network.image_token_id)
    tiles = torch.full((1, 3, size, size), 128, dtype=torch.uint8)
    return torch.cat([image, words], dim=1), tiles


@torch.no_grad()
def _logits(network: ChatModel, ids: Tensor, tiles: Tensor) -> Tensor:
    logits: Tensor = network(input_ids=ids, pixel_values=tiles)
    return logits
