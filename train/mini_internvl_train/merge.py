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
    ADAPTER_SETTINGS,
    ADAPTER_WEIGHTS,
    load_learned,
    published,
    read_weights,
)
from mini_internvl_train.errors import ResumeError, TrainingError
from mini_internvl_train.precision import DTYPES
from mini_internvl_train.recipe import Lora
from mini_internvl_train.start import add_lora, load_with_prompt, mark_trainable, merge_lora

if TYPE_CHECKING:
    from mini_internvl import ChatModel

TOLERANCE = 1e-3
"""Largest difference of merged and unmerged logits, relative to their spread, in float32."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A folded checkpoint.

    Attributes:
        folder: where it was written.
        difference: largest difference of its logits from the unmerged ones, relative to their spread; None
            for an adapter of another program, which is never run unmerged.
    """

    folder: Path
    difference: float | None


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint folder of a training holds an adapter instead of a model."""
    return (folder / ADAPTER_SETTINGS).is_file()


def merge(checkpoint: Path, output: Path, base: str | None = None) -> Merged:
    """Folds an adapter into its base and writes a model in the released layout.

    Args:
        checkpoint: folder of a LoRA training's step, of an adapter in PEFT's form, or InternVL's checkpoint
            that holds base and adapter.
        output: folder of the model; one that exists is replaced.
        base: name or folder of the base, where it is not the one that the adapter names.

    Raises:
        ResumeError: not an adapter, or its base is not the one it was trained on.
        MiniInternVLError: an adapter of another program that cannot be merged.
        TrainingError: the merged logits differ from the unmerged ones.
    """
    from mini_internvl import save_checkpoint

    if not is_adapter(checkpoint):
        return _merge_other(checkpoint, output, base)
    settings = _settings(checkpoint)
    network = load_adapted(checkpoint, base)
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


def _merge_other(checkpoint: Path, output: Path, base: str | None) -> Merged:
    """An adapter of another program: each weight is merged while it is read, and keeps the base's type."""
    import mini_internvl
    from mini_internvl.adapters import is_adapted
    from mini_internvl.loading import find_base
    from mini_internvl.tokenizers import companion_files, tokenizer_files
    from mini_internvl.weights import WeightReader, weight_files

    folder, adapter = find_base(checkpoint, base, None)
    model = adapter is not None or (folder / "config.json").is_file()
    reader = WeightReader(weight_files(folder) if model else [])
    if adapter is None and not any(is_adapted(name) for name in reader.names()):
        raise ResumeError(f"{checkpoint}: holds no adapter; only LoRA checkpoints are merged")
    network, _ = load_with_prompt(checkpoint, dtype=reader.stored_dtype(), folder=base)
    files = companion_files(folder)
    own = {} if adapter is None else tokenizer_files(adapter)
    if own:
        files = {
            name: content for name, content in files.items() if name not in tokenizer_files(folder)
        } | own
    with published(output) as temporary:
        mini_internvl.save_checkpoint(network, temporary, tokenizer_from=files)
    return Merged(output, None)


def load_adapted(checkpoint: Path, model: str | None = None) -> ChatModel:
    """The base with the adapter in place, unmerged, in float32.

    Args:
        checkpoint: of a training's step. model: where its base is now.

    Raises:
        ResumeError: not an adapter, or its base is not the one it was trained on.
    """

    settings = _settings(checkpoint)
    base = settings["base"]
    name = model or base["model"]
    network, _ = load_with_prompt(name, dtype="float32")
    # an adapter of an older form names the hash of the base's weights alone
    if base["fingerprint"] not in (network.fingerprint, network.weights_fingerprint):
        raise ResumeError(
            f"{checkpoint}: its base {name} has other weights, settings or tokenizer than "
            "the adapter was trained on"
        )
    network.config = replace(network.config, max_dynamic_patch=settings["max_tiles"])
    for parameter in network.parameters():  # as training saw them, and in float32
        parameter.data = parameter.data.to(DTYPES[settings["precision"]]).float()
    last = settings.get("encoder_layers")
    add_lora(network, Lora(**settings["lora"]), encoder_layers=last)
    mark_trainable(network, settings["trainable"], last)
    load_learned(network, read_weights(checkpoint / ADAPTER_WEIGHTS), checkpoint / ADAPTER_WEIGHTS)
    return network.eval()


def _settings(checkpoint: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads((checkpoint / ADAPTER_SETTINGS).read_text(encoding="utf-8"))
    except Exception as error:
        raise ResumeError(f"{checkpoint / ADAPTER_SETTINGS}: cannot be read ({cause(error)})") from None
    _check(checkpoint / ADAPTER_SETTINGS, settings)
    return settings


def _check(path: Path, settings: dict[str, Any]) -> None:
    """Raises ResumeError where the adapter's settings are not as `evalkit train` writes them."""
    try:
        base, tiles = settings["base"], settings["max_tiles"]
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
