"""An adapter as PEFT stores it, beside the training's own files, so that other programs open it.

Names are those of the layout that the base is stored in. The 2B's queries, keys and values share their
first matrix (`shared_lora`): over the released layers they are one change of the fused rows. The native
layout holds them apart, and the encoder's as well, which are trained fused: there each has that matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mini_internvl_train.checkpoints import save_tensors, write_json
from mini_internvl_train.recipe import Lora
from mini_internvl_train.shared_lora import FUSED

if TYPE_CHECKING:
    from mini_internvl import MiniInternVLConfig

_PREFIX = "base_model.model."
_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"
_MAGNITUDE = ".lora_magnitude_vector.default.weight"


@dataclass(frozen=True, slots=True)
class Change:
    """One layer's change: `[rank, in]`, `[out, rank]`, and with DoRA the magnitudes `[out]`."""

    a: Tensor
    b: Tensor
    magnitude: Tensor | None


def write_peft(
    folder: Path,
    learned: Mapping[str, Tensor],
    config: MiniInternVLConfig,
    lora: Lora,
    base: Mapping[str, str],
    *,
    native: bool,
) -> None:
    """Writes `adapter_model.safetensors` and `adapter_config.json`.

    Raises TrainingError: the disk is full or refuses.

    Args:
        folder: of the checkpoint.
        learned: adapters and, where it learns, the projector, by the network's names.
        config: of the network. lora: how adapters were made.
        base: name and identity (`model`, `fingerprint`) of the checkpoint that was trained.
        native: whether that is in transformers' native layout.
    """
    from mini_internvl.adapters import BASE_FINGERPRINT, WEIGHTS

    changes = _changes(learned)
    if config.family == "internlm2" and not native:
        changes = _fused(changes, config)
    stored: dict[str, Tensor] = {}
    modules: list[str] = []
    for module, change in changes.items():
        for name, part in _named(module, change, config, native):
            modules.append(name)
            stored[f"{name}.lora_A.weight"] = part.a
            stored[f"{name}.lora_B.weight"] = part.b
            if part.magnitude is not None:
                stored[f"{name}.lora_magnitude_vector"] = part.magnitude
    whole = {name: tensor for name, tensor in learned.items() if ".lora_" not in name}
    for name, tensor in whole.items():
        module, _, kind = name.rpartition(".")
        stored[f"{_name(module, config, native)}.{kind}"] = tensor
    save_tensors(
        {_PREFIX + name: stored[name] for name in sorted(stored)},
        folder / WEIGHTS,
        {"format": "pt", BASE_FINGERPRINT: base["fingerprint"]},
    )
    projector = "multi_modal_projector" if native else "mlp1"
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base["model"],
        **lora.peft_settings(),
        "inference_mode": True,
        "target_modules": _targets(modules, native),
        "modules_to_save": [projector] if whole else None,
    }
    write_json(folder / "adapter_config.json", settings)


def _changes(learned: Mapping[str, Tensor]) -> dict[str, Change]:
    """The change of each layer; where several share the first matrix, it stands under the first of them."""
    found = {}
    for name, b in learned.items():
        if not name.endswith(_B):
            continue
        module = name.removesuffix(_B)
        stem = module.rpartition(".")[0]
        owners = [module, *(f"{stem}.{other}" for other in FUSED)]
        a = next(learned[owner + _A] for owner in owners if owner + _A in learned)
        found[module] = Change(a, b, learned.get(module + _MAGNITUDE))
    return found


def _targets(modules: list[str], native: bool) -> str | list[str]:
    """Layers that are adapted: by the ends of their names, or each by its own where that says too much."""
    layers = sorted({module.rpartition(".")[2] for module in modules})
    if any(not module.removeprefix("model.").startswith("language_model.") for module in modules):
        return sorted(modules)
    # the native encoder has layers of the same names, which are not trained
    return rf"(?:.*\.)?language_model\..*\.(?:{'|'.join(layers)})" if native else layers


def _named(
    module: str, change: Change, config: MiniInternVLConfig, native: bool
) -> Iterator[tuple[str, Change]]:
    """A layer's change under the names of the layout of the base."""
    if not (native and module.endswith(".attn.qkv")):
        yield _name(module, config, native), Change(change.a.clone(), change.b, change.magnitude)
        return
    magnitudes: tuple[Tensor | None, ...] = (None, None, None)
    if change.magnitude is not None:
        magnitudes = change.magnitude.chunk(3)
    for name, b, magnitude in zip(_sources(module), change.b.chunk(3), magnitudes, strict=True):
        yield name, Change(change.a.clone(), b, magnitude)


def _name(module: str, config: MiniInternVLConfig, native: bool) -> str:
    """The module's name in the layout of the base."""
    from mini_internvl.layout import released_recipe

    if not native:
        (stored,) = released_recipe(f"{module}.weight", config).sources
        return stored.removesuffix(".weight")
    (name,) = _sources(module)
    return name


def _sources(module: str) -> list[str]:
    """Names of a module in transformers' native layout."""
    from mini_internvl.layout import native_recipe

    return [
        "model." + stored.removesuffix(".weight").replace("language_model.model.", "language_model.", 1)
        for stored in native_recipe(f"{module}.weight").sources
    ]


def _fused(changes: Mapping[str, Change], config: MiniInternVLConfig) -> dict[str, Change]:
    """q, k and v as one change of the fused rows, 0 in those that are not adapted; it is named as q's is."""
    from mini_internvl.layout import fuse_wqkv

    found: dict[str, Change] = {}
    for module, change in changes.items():
        stem, _, layer = module.rpartition(".")
        if layer not in FUSED:
            found[module] = change
            continue
        if f"{stem}.q_proj" in found:
            continue
        parts = {name: changes.get(f"{stem}.{name}") for name in FUSED}
        rows = [
            torch.zeros(_rows(name, config), len(change.a), dtype=change.b.dtype) if part is None else part.b
            for name, part in parts.items()
        ]
        magnitudes = [part.magnitude for part in parts.values() if part and part.magnitude is not None]
        found[f"{stem}.q_proj"] = Change(
            change.a, fuse_wqkv(rows, config), fuse_wqkv(magnitudes, config) if magnitudes else None
        )
    return found


def _rows(part: str, config: MiniInternVLConfig) -> int:
    """Rows of queries, keys or values."""
    heads = int(config.llm["num_attention_heads"])
    own = heads if part == "q_proj" else int(config.llm.get("num_key_value_heads") or heads)
    return own * (int(config.llm["hidden_size"]) // heads)
