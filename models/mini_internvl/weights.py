"""Weight files: finding them, reading single tensors, hashing and writing. Only safetensors, never pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mini_internvl.errors import CheckpointError
from mini_internvl.unreadable import refuse_unreadable

INDEX = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a checkpoint's weights, sorted by name.

    `model.safetensors` if there is one, else those of the index, else every `*.safetensors` of the folder.

    Raises:
        CheckpointError: there are none, a shard is missing, or the weights are pickled.
    """
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = folder / INDEX
    if index.is_file():
        files = sorted({folder / name for name in _weight_map(index).values()})
        absent = [path.name for path in files if not path.is_file()]
        if absent:
            raise CheckpointError(
                f"{folder}: {len(absent)} of {len(files)} weight files are missing: {_ten(absent)}"
            )
        return files
    files = sorted(folder.glob("[!.]*.safetensors"))  # no attributes of macOS, `._*`
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder}: holds an adapter, not a model; merge it into its base first")
    if not files:
        refuse_unreadable(folder)
        raise CheckpointError(f"{folder}: holds no *.safetensors; download the weights into it")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if any(Path(name).name != name for name in weight_map.values()):
            raise ValueError("a shard's name leads out of the folder")
        return {str(key): str(name) for key, name in weight_map.items()}
    except Exception as error:
        raise CheckpointError(f"{index}: is not an index of weight files ({error})") from error


class WeightReader:
    """Reads single tensors from several safetensors files by name, through one memory map a file."""

    def __init__(self, files: list[Path], device: str = "cpu") -> None:
        self._handles: dict[Path, Any] = {}
        self._where: dict[str, Path] = {}
        self._device = device
        for path in files:
            self._handles[path] = self._map(path)
            for name in self._handles[path].keys():  # noqa: SIM118  (a handle cannot be iterated)
                if name in self._where:
                    raise CheckpointError(
                        f"{path}: holds {name}, which {self._where[name].name} holds as well; "
                        "remove the file that does not belong to the checkpoint"
                    )
                self._where[name] = path

    def _map(self, path: Path) -> Any:
        try:
            return safe_open(path, framework="pt", device=self._device)
        except Exception as error:  # also RuntimeError of an unknown device or a header of another kind
            raise CheckpointError(f"{path}: {_damage(path, error)}") from error

    def release(self) -> None:
        """Map the files again, so that pages that were read and are not in use no longer count as memory."""
        for path in self._handles:
            self._handles[path] = self._map(path)

    def names(self) -> list[str]:
        """Every stored tensor's name."""
        return list(self._where)

    def fetch(self, name: str) -> Tensor:
        """One tensor."""
        tensor: Tensor = self._handles[self._where[name]].get_tensor(name)
        return tensor

    def stored_dtype(self) -> torch.dtype:
        """The floating type most of the tensors have."""
        counts: dict[str, int] = {}
        for name, path in self._where.items():
            kind = str(self._handles[path].get_slice(name).get_dtype())
            counts[kind] = counts.get(kind, 0) + 1
        if not counts:
            raise CheckpointError(f"{next(iter(self._handles))}: holds no tensors; download it again")
        best = max(counts, key=lambda kind: counts[kind])
        known = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
        if best not in known:
            raise CheckpointError(
                f"weights of type {best} are not supported; use float32, float16 or bfloat16"
            )
        return known[best]


def _damage(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        if file.read(24).startswith(b"version https://git-lfs"):
            return "is a Git LFS pointer, not the weights; run `git lfs pull`"
    return f"is damaged or incomplete ({error}); download it again"


def fingerprint(files: list[Path]) -> str:
    """SHA-256 over the contents of the weight files in the order given, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def write_weights(state: Mapping[str, Tensor], folder: Path, shard_bytes: int) -> list[Path]:
    """Writes tensors as `model.safetensors`, or as numbered shards with an index where they do not fit one.

    Every file is written under a temporary name and renamed, so that a reader never sees half a file.

    Args:
        state: tensors by name.
        folder: is made if need be.
        shard_bytes: most bytes of one file; a single larger tensor makes its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in state.items():
        size = tensor.numel() * tensor.element_size()
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor.detach().cpu().contiguous()
        filled += size
    count = len(shards)
    names = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    names = ["model.safetensors"] if count == 1 else names
    for name, shard in zip(names, shards, strict=True):
        with replacing(folder / name) as path:
            try:
                save_file(shard, path, metadata={"format": "pt"})
            except SafetensorError as error:  # a full disk among others
                raise CheckpointError(
                    f"{folder / name}: cannot be written ({error}); free some space"
                ) from error
    if count > 1:
        total = sum(t.numel() * t.element_size() for t in state.values())
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        with replacing(folder / INDEX) as path:
            path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    stale = {p for p in folder.glob("model*.safetensors*") if p.name not in (*names, INDEX)}
    stale |= {folder / INDEX} if count == 1 else set()
    for path in stale:
        path.unlink(missing_ok=True)
    return [folder / name for name in names]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, which replaces it when the block ends without an error."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _ten(names: list[str]) -> str:
    """The first ten names, and how many more there are."""
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
