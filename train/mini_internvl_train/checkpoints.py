"""Checkpoints of a training: written whole, then renamed; the newest ones kept.

`step-000100/` is a model folder in the released layout, in the recipe's precision, with `training/` beside
its files: float32 master weights where the model's are rounded, AdamW's state, and `state.json`. With LoRA
it holds `adapter.safetensors` and a reference to its base in place of a model. Random numbers need no
storing (`randomness`); nothing is pickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mini_internvl_train.errors import ResumeError
from mini_internvl_train.recipe import Recipe
from mini_internvl_train.start import DTYPES
from mini_internvl_train.trainable import uses_lora

if TYPE_CHECKING:
    from mini_internvl import MiniInternVL

ADAPTER_WEIGHTS = "adapter.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MASTER_WEIGHTS = "training/weights.safetensors"
OPTIMIZER = "training/optimizer.safetensors"
STATE = "training/state.json"
LATEST = "latest"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True)
class Base:
    """What an adapter belongs to: the start checkpoint and the SHA-256 of its weights."""

    model: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class State:
    """Where a training stands.

    Attributes:
        step: optimizer steps done. samples, tokens: seen so far.
        recipe: its decisive settings. data: fingerprint of each data set.
        ranks: processes that trained.
        scaler: of float16's loss scaling, or None.
    """

    step: int
    samples: int
    tokens: int
    recipe: dict[str, Any]
    data: dict[str, str]
    ranks: int
    scaler: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Whole tensors of a training, on the CPU.

    Attributes:
        weights: of the whole network, or only of what learns where that is an adapter.
        learned: names of what learns.
        optimizer: AdamW's state by `<parameter>/<kind>`.
    """

    weights: Mapping[str, Tensor]
    learned: frozenset[str]
    optimizer: Mapping[str, Tensor]
    state: State


def step_folder(output: Path, step: int) -> Path:
    """`output/step-000100`."""
    return output / f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name."""
    found = _NAME.fullmatch(folder.name)
    if found is None:
        raise ResumeError(f"{folder}: not a checkpoint folder (step-000100)")
    return int(found.group(1))


def checkpoints(output: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in output.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted((path for path in found if (path / STATE).is_file()), key=step_of)


def write_checkpoint(
    output: Path, snapshot: Snapshot, network: MiniInternVL, recipe: Recipe, tokenizer_from: Path, base: Base
) -> Path:
    """Writes `step-…` under a temporary name, flushes it to the disk, and renames it.

    Args:
        output: folder of all checkpoints.
        snapshot: what is written.
        network: gives the layout.
        recipe: gives precision and how many are kept.
        tokenizer_from: folder of tokenizer files.
        base: the start checkpoint.
    """
    from safetensors.torch import save_file

    folder = step_folder(output, snapshot.state.step)
    temporary = output / f".{folder.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "training").mkdir(parents=True)
    learned = {name: snapshot.weights[name].contiguous() for name in sorted(snapshot.learned)}
    if uses_lora(recipe.trainable):
        save_file(learned, temporary / ADAPTER_WEIGHTS)
        _write_json(
            temporary / ADAPTER_CONFIG,
            {"base": asdict(base), "lora": asdict(recipe.lora), "trainable": recipe.trainable,
             "max_tiles": recipe.data.max_tiles, "precision": recipe.precision},
        )  # fmt: skip
    else:
        write_model(temporary, snapshot.weights, network, recipe, tokenizer_from)
    masters = None if uses_lora(recipe.trainable) or recipe.precision == "float32" else learned
    write_training(temporary, masters, snapshot.optimizer, snapshot.state)
    publish(temporary, folder)
    keep_newest(output, folder, recipe.checkpoints.keep)
    return folder


def write_training(
    folder: Path, masters: Mapping[str, Tensor] | None, optimizer: Mapping[str, Tensor], state: State
) -> None:
    """What only training reads: master weights where the model's are not exact, AdamW's state, the state."""
    from safetensors.torch import save_file

    if masters is not None:
        save_file({name: tensor.contiguous() for name, tensor in masters.items()}, folder / MASTER_WEIGHTS)
    save_file({name: tensor.contiguous() for name, tensor in optimizer.items()}, folder / OPTIMIZER)
    _write_json(folder / STATE, asdict(state))


def keep_newest(output: Path, folder: Path, keep: int) -> None:
    """Points `latest` at a new checkpoint and removes all but the newest ones."""
    _point_latest(output, folder)
    for old in checkpoints(output)[: -max(1, keep)]:
        shutil.rmtree(old)
        shutil.rmtree(output / "merged" / old.name, ignore_errors=True)


def copy_model(checkpoint: Path, final: Path) -> None:
    """The model of a checkpoint by itself."""
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(checkpoint, temporary, ignore=shutil.ignore_patterns("training"))
    publish(temporary, final)


def write_model(
    folder: Path, weights: Mapping[str, Tensor], network: MiniInternVL, recipe: Recipe, tokenizer_from: Path
) -> None:
    """The model in the released layout, in the recipe's precision, with its tokenizer files."""
    from mini_internvl import save_checkpoint

    save_checkpoint(
        network, folder, state=weights, tokenizer_from=tokenizer_from, dtype=DTYPES[recipe.precision]
    )


def publish(temporary: Path, folder: Path) -> None:
    """Flushes a finished folder to the disk and gives it its name, replacing an older one of that name."""
    for path in temporary.rglob("*"):
        _flush(path)
    _flush(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    _flush(folder.parent)


def read_state(folder: Path) -> State:
    """The state of a checkpoint.

    Raises:
        ResumeError: it is missing or damaged.
    """
    try:
        return State(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ResumeError(f"{folder / STATE}: cannot be read ({error}); remove the folder") from None


def check_settings(folder: Path, state: State, settings: Mapping[str, Any], data: Mapping[str, str]) -> None:
    """Refuses to go on with other settings or other data.

    Args:
        folder, state: the checkpoint.
        settings: those that change the weights. data: fingerprints by data set.

    Raises:
        ResumeError: says what changed.
    """
    mend = f"give another output folder, or remove {folder.parent}"
    now, then = dict(_flat(settings)), dict(_flat(state.recipe))
    changed = [
        f"{name} was {then.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name)
    ]
    if changed:
        raise ResumeError(f"{folder}: the recipe has changed ({'; '.join(changed)}): {mend}")
    sets = [
        f"{name} is {'new' if name not in state.data else 'gone' if name not in data else 'not the same'}"
        for name in sorted(state.data.keys() | data.keys())
        if state.data.get(name) != data.get(name)
    ]
    if sets:
        raise ResumeError(f"{folder}: the training data has changed ({'; '.join(sets)}): {mend}")
    if list(state.data) != list(data):
        raise ResumeError(f"{folder}: the order of the data sets has changed: {mend}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of one safetensors file of a checkpoint.

    Raises:
        ResumeError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ResumeError(f"{path}: cannot be read ({error})") from None
    return tensors


def load_learned(network: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Copies stored weights of what learns into the network, in place.

    Raises:
        ResumeError: they are not the network's.
    """
    named = dict(network.named_parameters())
    expected = {name for name, parameter in named.items() if parameter.requires_grad}
    if expected != weights.keys():
        odd = sorted(expected ^ weights.keys())
        raise ResumeError(f"{where}: {len(odd)} weights differ from what the recipe trains, first {odd[0]}")
    for name, tensor in weights.items():
        if named[name].shape != tensor.shape:
            raise ResumeError(f"{where}: {name} is {list(tensor.shape)}, not {list(named[name].shape)}")
        named[name].data.copy_(tensor)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _point_latest(output: Path, folder: Path) -> None:
    pointer = output / f".{LATEST}.tmp"
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(folder.name, target_is_directory=True)
    pointer.replace(output / LATEST)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
