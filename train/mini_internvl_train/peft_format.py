"""An adapter as PEFT stores it, beside the training's own files, so that other programs open it.

Names are those of the layout that the base is stored in. The 2B is trained with queries, keys and values
apart, while its released layers hold them fused: their three changes are then one of three times the rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mini_internvl_train.checkpoints import save_tensors, write_json
from mini_internvl_train.recipe import Lora

if TYPE_CHECKING:
    from mini_internvl import MiniInternVLConfig

_PREFIX = "base_model.model."
_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"


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
        config: of the network. lora: rank, alpha and dropout.
        base: name and identity (`model`, `fingerprint`) of the checkpoint that was trained.
        native: whether that is in transformers' native layout.
    """
    from mini_internvl.adapters import BASE_FINGERPRINT, WEIGHTS

    pairs = {
        name.removesuffix(_A): (tensor, learned[name.removesuffix(_A) + _B])
        for name, tensor in learned.items()
        if name.endswith(_A)
    }
    fused = config.family == "internlm2" and not native
    if fused:
        pairs = _fused(pairs, config)
    stored: dict[str, Tensor] = {}
    for module, (a, b) in pairs.items():
        stored[f"{_name(module, config, native)}.lora_A.weight"] = a
        stored[f"{_name(module, config, native)}.lora_B.weight"] = b
    whole = {name: tensor for name, tensor in learned.items() if ".lora_" not in name}
    for name, tensor in whole.items():
        module, _, kind = name.rpartition(".")
        stored[f"{_name(module, config, native)}.{kind}"] = tensor
    save_tensors(
        {_PREFIX + name: stored[name] for name in sorted(stored)},
        folder / WEIGHTS,
        {"format": "pt", BASE_FINGERPRINT: base["fingerprint"]},
    )
    layers = sorted({_name(module, config, native).rpartition(".")[2] for module in pairs})
    projector = "multi_modal_projector" if native else "mlp1"
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base["model"],
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "inference_mode": True,
        # the native encoder has layers of the same names, which are not trained
        "target_modules": rf"(?:.*\.)?language_model\..*\.(?:{'|'.join(layers)})" if native else layers,
        "modules_to_save": [projector] if whole else None,
        "rank_pattern": {"wqkv": 3 * lora.rank} if fused else {},
        "alpha_pattern": {"wqkv": 3 * lora.alpha} if fused else {},
    }
    write_json(folder / "adapter_config.json", settings)


def _name(module: str, config: MiniInternVLConfig, native: bool) -> str:
    """The module's name in the layout of the base."""
    from mini_internvl.layout import native_recipe, released_recipe

    if not native:
        (stored,) = released_recipe(f"{module}.weight", config).sources
        return stored.removesuffix(".weight")
    (stored,) = native_recipe(f"{module}.weight").sources
    return "model." + stored.removesuffix(".weight").replace("language_model.model.", "language_model.", 1)


def _fused(
    pairs: Mapping[str, tuple[Tensor, Tensor]], config: MiniInternVLConfig
) -> dict[str, tuple[Tensor, Tensor]]:
    """q, k and v as one change of the fused rows; it stands under the name of q."""
    from mini_internvl.layout import fuse_wqkv

    found: dict[str, tuple[Tensor, Tensor]] = {}
    for module, pair in pairs.items():
        if module.endswith((".k_proj", ".v_proj")):
            continue
        if not module.endswith(".q_proj"):
            found[module] = pair
            continue
        parts = [pairs[f"{module.removesuffix('q_proj')}{x}_proj"] for x in "qkv"]
        rank = len(parts[0][0])
        wide = []
        for place, (_, b) in enumerate(parts):  # [B, 0, 0], [0, B, 0], [0, 0, B]
            row = torch.zeros(len(b), 3 * rank, dtype=b.dtype)
            row[:, place * rank : (place + 1) * rank] = b
            wide.append(row)
        found[module] = torch.cat([a for a, _ in parts]), fuse_wqkv(wide, config)
    return found
