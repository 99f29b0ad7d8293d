"""Checkpoints of a training: written whole, then renamed; the newest ones kept.

`step-000100/` is a model folder in the released layout, in the recipe's precision, with `training/` beside
its files: float32 master weights where the model's are rounded, the optimizers' state, and `state.json`. With
LoRA it holds an adapter instead of a model: in PEFT's format, and as training goes on from it
(`adapter.safetensors`, with `adapter_settings.json`, which names its base). Random generators' states are not
stored (see `loop.seed_step`); nothing is pickled.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from evalkit.doors import cause
from evalkit.store.atomic import sync_folder
from mini_internvl_train.errors import ResumeError, TrainingError

log = logging.getLogger(__name__)

ADAPTER_WEIGHTS = "adapter.safetensors"
ADAPTER_SETTINGS = "adapter_settings.json"
MASTER_WEIGHTS = "training/weights.safetensors"
OPTIMIZER = "training/optimizer.safetensors"
STATE = "training/state.json"
FILES = "training/files.safetensors"
LATEST, BEST = "latest", "best"
LENGTH = ("steps", "steps.max_steps", "steps.epochs")
"""Settings that say how long a training is."""

_log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True)
class State:
    """Progress of a training.

    Attributes:
        step: optimizer steps done. samples, tokens: seen so far.
        recipe: its decisive settings. data: fingerprint of each data set.
        ranks: processes that trained.
        scaler: of float16's loss scaling, or None.
        total: steps of the whole training. free: the settings that do not change the weights, flat.
        selection: values of `selection.Selection`.
    """

    step: int
    samples: int
    tokens: int
    recipe: dict[str, Any]
    data: dict[str, str]
    ranks: int
    scaler: dict[str, Any] | None = None
    total: int = 0
    free: dict[str, Any] = field(default_factory=dict)
    selection: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resumed:
    """The checkpoint that a training continues from."""

    folder: Path
    state: State

    def check(self, settings: Mapping[str, Any], data: Mapping[str, str], total: int) -> None:
        """Refuses to continue with other settings or other data.

        Args:
            settings: those that change the weights. data: fingerprints by data set.
            total: steps of the whole training; more than before are no change of the steps done.

        Raises:
            ResumeError: says what changed.
        """
        fix = f"give another output folder, or remove {self.folder.parent}"
        longer = LENGTH if total > max(self.state.total, self.state.step) else ()
        changed = _changes(self.state.recipe, settings, longer)
        if changed:
            raise ResumeError(f"{self.folder}: the recipe has changed ({'; '.join(changed)}): {fix}")
        then_data = self.state.data
        sets = [
            f"{name} is {'new' if name not in then_data else 'gone' if name not in data else 'not the same'}"
            for name in sorted(then_data.keys() | data.keys())
            if then_data.get(name) != data.get(name)
        ]
        if sets:
            raise ResumeError(f"{self.folder}: the training data has changed ({'; '.join(sets)}): {fix}")
        if list(then_data) != list(data):
            raise ResumeError(f"{self.folder}: the order of the data sets has changed: {fix}")

    def allowed_changes(self, settings: Mapping[str, Any], free: Mapping[str, Any]) -> list[str]:
        """What has changed and may, since it alters no step that is done.

        Args:
            settings: those that change the weights. free: the others, flat.
        """
        return [
            *_changes(self.state.recipe, settings),
            *(_changes(self.state.free, free) if self.state.free else ()),
        ]


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


def newest(output: Path) -> Resumed | None:
    """The newest complete checkpoint, or None.

    Raises:
        ResumeError: its state is damaged.
    """
    found = checkpoints(output)
    return Resumed(found[-1], read_state(found[-1])) if found else None


@contextmanager
def written(folder: Path, keep: int, best: int | None = None) -> Iterator[Path]:
    """A temporary folder that becomes the checkpoint `folder` after the block.

    The `keep` newest stay, and that of the step `best`.
    """
    with published(folder) as temporary:
        (temporary / "training").mkdir()
        yield temporary
        check(temporary)
    output = folder.parent
    point(output, LATEST, folder)
    for old in checkpoints(output)[: -max(1, keep)]:
        if step_of(old) == best:
            continue
        shutil.rmtree(old)
        shutil.rmtree(output / "merged" / old.name, ignore_errors=True)


def check(folder: Path) -> None:
    """Loads a checkpoint that was just written and asks it a question, before an older one is deleted for it.

    It costs the time of reading the weights on the CPU in their stored type and one short forward pass; an
    adapter, which answers with its base alone, is read back with the base's settings and tokenizer.

    Raises:
        ResumeError: it cannot be read or does not answer; older checkpoints are kept.
    """
    from mini_internvl import MiniInternVLError

    read_state(folder)
    began = time.monotonic()
    try:
        if (folder / ADAPTER_SETTINGS).is_file():
            _check_adapter(folder)
        else:
            answer(folder)
    except MiniInternVLError as error:
        raise ResumeError(f"{folder}: cannot be read back ({error}); older checkpoints are kept") from error
    log.info("%s: read back and asked in %.1f s", folder.name, time.monotonic() - began)


def answer(folder: Path) -> None:
    """Loads a model that was just written and asks it a question.

    Raises:
        ResumeError, MiniInternVLError: it cannot be read or does not answer.
    """
    import mini_internvl
    from mini_internvl.weights import WeightReader, weight_files

    stored = WeightReader(weight_files(folder)).stored_dtype()
    network = mini_internvl.load(folder, dtype=stored, device="cpu")
    if network.tokenizer is None:
        raise ResumeError(f"{folder}: has no tokenizer files; older checkpoints are kept")
    network.chat(None, "?", max_new_tokens=1)


def _check_adapter(folder: Path) -> None:
    from mini_internvl import read_tokenizer
    from mini_internvl.checkpoint import read_config
    from mini_internvl.releases import locate

    weights = read_weights(folder / ADAPTER_WEIGHTS)
    if bad := next((name for name, tensor in weights.items() if not tensor.isfinite().all()), None):
        raise ResumeError(f"{folder}: {bad} is not finite; older checkpoints are kept")
    base = locate(json.loads((folder / ADAPTER_SETTINGS).read_text(encoding="utf-8"))["base"]["model"])
    read_config(base)
    if read_tokenizer(base) is None:
        raise ResumeError(f"{base}: has no tokenizer files; older checkpoints are kept")


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """An empty temporary folder; when the block ends it is flushed to the disk and replaces `folder`."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    for path in temporary.rglob("*"):
        _flush(path)
    sync_folder(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    sync_folder(folder.parent)


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes one safetensors file. Raises TrainingError: the disk is full or refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            path,
            dict(metadata) if metadata else None,
        )
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path}: cannot be written ({error}); free some space and go on") from error


def write_training(
    folder: Path,
    masters: Mapping[str, Tensor] | None,
    optimizer: Mapping[str, Tensor],
    files: Mapping[str, Tensor],
    state: State,
) -> None:
    """Writes what only training reads; master weights if the model's are rounded."""
    if masters is not None:
        save_tensors(masters, folder / MASTER_WEIGHTS)
    save_tensors(optimizer, folder / OPTIMIZER)
    if files:
        save_tensors(files, folder / FILES)
    write_json(folder / STATE, asdict(state))


def copy_model(checkpoint: Path, final: Path) -> None:
    """Copies the model of a checkpoint, without what only training reads."""
    with published(final) as temporary:
        shutil.copytree(checkpoint, temporary, ignore=shutil.ignore_patterns("training"), dirs_exist_ok=True)


def read_state(folder: Path) -> State:
    """The state of a checkpoint.

    Raises:
        ResumeError: it is missing or damaged.
    """
    try:
        return State(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except Exception as error:
        raise ResumeError(f"{folder / STATE}: cannot be read ({cause(error)}); remove the folder") from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of one safetensors file of a checkpoint.

    Raises:
        ResumeError: it is missing or damaged.
    """
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:  # safetensors raises many kinds
        raise ResumeError(f"{path}: cannot be read ({cause(error)})") from None
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


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every setting, groups resolved."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _changes(then: Mapping[str, Any], now: Mapping[str, Any], but: Sequence[str] = ()) -> list[str]:
    before, after = dict(flat(then)), dict(flat(now))
    return [
        f"{name} was {before.get(name)!r}, is {after.get(name)!r}"
        for name in sorted(after.keys() | before.keys())
        if before.get(name) != after.get(name) and name not in but
    ]


def point(output: Path, name: str, folder: Path) -> None:
    """Let a link lead to `folder`. Where the system refuses links, there is none, and a warning says so."""
    pointer, latest = output / f".{name}.tmp", output / name
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(folder.name, target_is_directory=True)
        if os.name == "nt":  # cannot rename onto a folder, which a link to one is there
            latest.unlink(missing_ok=True)
        pointer.replace(latest)
    except (OSError, NotImplementedError) as error:  # Windows without the developer mode; FAT
        with suppress(OSError):
            latest.unlink(missing_ok=True)  # it would lead to an older checkpoint
        _log.warning("%s: this system refuses links (%s); give %s instead", latest, error, folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _flush(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    with path.open("rb+") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())
