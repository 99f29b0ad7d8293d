"""PEFT's `adapter_config.json`: the scale of a layer's change, and what cannot be merged, refused by name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mini_internvl.config import read_json
from mini_internvl.config_keys import words
from mini_internvl.errors import CheckpointError, ConfigError

CONFIG = "adapter_config.json"

_READ = words(
    """
    alpha_pattern bias exclude_modules fan_in_fan_out init_lora_weights layers_pattern layers_to_transform
    lora_alpha lora_bias modules_to_save peft_type r rank_pattern target_modules use_dora use_rslora
    """
)
_HARMLESS = words(
    """
    auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config inference_mode
    loftq_config lora_dropout lora_dtype lorap_emb_lr lorap_lr_ratio megatron_core peft_version
    qalora_group_size revision runtime_config task_type
    """
)
"""Of training, of loading, or of an initialisation that `init_lora_weights` names."""

_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "true", "false")
"""Values of `init_lora_weights` that leave the base's weights as they are."""


class AdapterConfig:
    """Settings of a LoRA in PEFT's form.

    Attributes:
        folder: of the adapter. base: name or folder of the model it was trained on, if it says so.
    """

    def __init__(self, folder: Path, raw: Mapping[str, Any]) -> None:
        self.folder = folder
        self.base: str | None = raw.get("base_model_name_or_path") or None
        self._raw = raw

    @classmethod
    def read(cls, folder: Path) -> AdapterConfig:
        """Reads and checks the settings.

        Raises:
            CheckpointError: no JSON, not a LoRA, or a setting that changes the network and is not known.
        """
        try:
            raw = read_json(folder / CONFIG)
        except ConfigError as error:
            raise CheckpointError(str(error)) from error
        found = cls(folder, raw)
        found._check()
        return found

    def _check(self) -> None:
        raw = self._raw
        kind = raw.get("peft_type")
        if kind != "LORA":
            raise self._error(f"holds an adapter of type {kind!r}; only LORA is merged")
        start = raw.get("init_lora_weights")
        if start not in _PLAIN_STARTS:
            raise self._error(
                f"init_lora_weights {start!r} changes the weights of the base; save it as a plain LoRA "
                "(peft: save_pretrained(path_initial_model_for_weight_conversion=...))"
            )
        if not isinstance(raw.get("r"), int) or not isinstance(raw.get("lora_alpha"), (int, float)):
            raise self._error("r and lora_alpha must be numbers")
        for name in ("rank_pattern", "alpha_pattern"):
            if not isinstance(raw.get(name) or {}, Mapping):
                raise self._error(f"{name} is no object")
        unknown = sorted(
            name
            for name, value in raw.items()
            if name not in _READ | _HARMLESS and value not in (None, False, "", [], {})
        )
        if unknown:
            shown = ", ".join(f"{name} {raw[name]!r}"[:80] for name in unknown[:10])
            raise self._error(f"{shown}: not supported, since it may change the network")

    def scale(self, module: str, rank: int) -> float:
        """What B A is multiplied by in one layer.

        Args:
            module: its name in the model that was trained. rank: of the stored matrices.

        Raises:
            CheckpointError: the matrices have another rank than the settings say.
        """
        expected = self._pattern("rank_pattern", module, self._raw["r"])
        if rank != expected:
            raise self._error(f"{module} is of rank {rank}, {CONFIG} says {expected}")
        alpha = self._pattern("alpha_pattern", module, self._raw["lora_alpha"])
        return float(alpha / (math.sqrt(rank) if self._raw.get("use_rslora") else rank))

    def check_targets(self, modules: Iterable[str], magnitudes: bool) -> None:
        """Refuses weights that the settings do not name: PEFT would leave them out.

        Args:
            modules: names of the layers that have weights. magnitudes: whether they have those of DoRA.
        """
        targets = self._raw.get("target_modules")
        if targets not in (None, "all-linear"):
            odd = [name for name in modules if not _matches(targets, name)]
            if odd:
                raise self._error(f"{len(odd)} layers such as {odd[0]} are not among target_modules")
        if magnitudes != bool(self._raw.get("use_dora")):
            has = "has" if magnitudes else "has no"
            raise self._error(
                f"use_dora is {bool(self._raw.get('use_dora'))}, but the adapter {has} magnitudes"
            )

    def _pattern(self, name: str, module: str, default: Any) -> Any:
        """As PEFT looks it up: the first pattern that the end of the module's name matches."""
        for pattern, value in (self._raw.get(name) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        return default

    def _error(self, text: str) -> CheckpointError:
        return CheckpointError(f"{self.folder}: {text}")


def _matches(targets: Any, module: str) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)
