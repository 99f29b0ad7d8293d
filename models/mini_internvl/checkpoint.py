"""Reading a checkpoint folder into the network, and writing one in the released layout."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mini_internvl.adapters import Adapter, is_adapted
from mini_internvl.config import MiniInternVLConfig, config_from_native, read_json
from mini_internvl.errors import CheckpointError, ConfigError, DeviceError, reading
from mini_internvl.layout import (
    Recipe,
    canonical_native,
    native_recipe,
    released_recipe,
    released_state,
    unwrapped,
)
from mini_internvl.model import MiniInternVL
from mini_internvl.releases import locate
from mini_internvl.unreadable import deepspeed_command
from mini_internvl.weights import WeightReader, replacing, weight_files, write_weights

logger = logging.getLogger(__name__)

CONFIGS = ("adapter_config.json", "config.json")
"""Files that tell a checkpoint's folder."""

HEAD = "language_model.lm_head.weight"

RELEASE_AFTER = 1 << 28
"""Bytes that are converted before the mapped pages they came from are released."""

Network = TypeVar("Network", bound=MiniInternVL)


def read_config(folder: Path) -> tuple[MiniInternVLConfig, bool]:
    """The settings of a checkpoint folder, and whether it is in transformers' native layout.

    Raises:
        ConfigError: config.json is missing, broken, of another model, or asks for code to be run.
    """
    path = folder / "config.json"
    if not path.is_file():
        inner = sorted(p.parent.name for name in CONFIGS for p in folder.glob(f"*/{name}"))
        if inner:
            raise ConfigError(f"{folder}: holds no config.json; did you mean {folder / inner[-1]}?")
    raw = read_json(path)
    kind = raw.get("model_type")
    if kind == "internvl":
        with reading(path, ConfigError):
            return config_from_native(raw), True
    if kind != "internvl_chat":
        needs = (
            " and would need code from the checkpoint to be run, which is refused"
            if "auto_map" in raw
            else ""
        )
        raise ConfigError(
            f"{folder}: model_type {kind!r} is not a Mini-InternVL (internvl_chat, internvl){needs}"
        )
    with reading(path, ConfigError):
        return MiniInternVLConfig.from_dict(raw), False


def read_network(
    folder: str | Path,
    kind: type[Network],
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    attention: str = "sdpa",
    adapter: str | Path | None = None,
) -> Network:
    """Builds the network on the meta device and assigns the stored weights, trainable, in evaluation mode.

    Memory stays near the size of the weights in the wanted type: a tensor already of it is used where it is
    mapped, and the sources of converted ones are released. An adapter is merged into each as it is read.

    Args:
        folder: a checkpoint in the released or in transformers' native layout.
        kind: `MiniInternVL` or a subclass of it.
        dtype: of the weights; None keeps the stored one.
        device: where they go.
        attention: the language model's attention, by its name in transformers' registry.
        adapter: folder of a LoRA in PEFT's form that was trained on this checkpoint.

    Raises:
        ConfigError: config.json cannot be understood.
        CheckpointError: weights are missing, unexpected, misshapen, damaged or pickled, or the adapter's are.
    """
    folder = Path(folder)
    config, native = read_config(folder)
    place = torch.device(device)
    reader = WeightReader(weight_files(folder))
    change = _adapter(folder, reader, adapter)
    stored = _canonical(folder, [name for name in reader.names() if not is_adapted(name)], native)
    config = _settled(config, native, stored, change)
    with torch.device("meta"):
        network = kind(config, attention)
    target = dtype or reader.stored_dtype()
    recipes = {
        name: native_recipe(name) if native else released_recipe(name, config)
        for name in _own_parameters(network)
    }
    held = {name for name in recipes if change is not None and change.stores(name, config)}
    _check_names(folder, recipes, held, stored)
    state: dict[str, Tensor] = {}
    misshapen: list[str] = []
    converted = 0
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for name, recipe in recipes.items():
        parts = (
            {}
            if name in held
            else {source: _placed(reader.fetch(stored[source]), place, folder) for source in recipe.sources}
        )
        try:
            tensor = None if name in held else recipe.make(parts.__getitem__)
            if change is not None:
                tensor = change.merged(name, tensor, config)
        except torch.OutOfMemoryError as error:
            raise _too_small(folder, place) from error
        except RuntimeError:  # stored parts that cannot even be put together
            misshapen.append(f"{' + '.join(recipe.sources)} (do not make {list(shapes[name])})")
            continue
        assert tensor is not None
        if tensor.shape != shapes[name]:
            misshapen.append(f"{recipe.sources[0]} {list(tensor.shape)}, not {list(shapes[name])}")
        try:
            state[name] = tensor.to(place, target)
        except torch.OutOfMemoryError as error:
            raise _too_small(folder, place) from error
        if state[name] is not tensor:
            converted += tensor.nbytes
            if converted > RELEASE_AFTER:
                converted = 0
                reader.release()
    if misshapen:
        text = f"{folder}: {_listed(misshapen, 'of another shape than config.json says')}"
        if any(" [0]," in each for each in misshapen):
            text += f"; empty ones are shards of ZeRO-3 that were not gathered: {deepspeed_command(folder)}"
        raise CheckpointError(text)
    if change is not None:
        change.check_used()
    network.load_state_dict(state, strict=False, assign=True)
    _tie(network)
    return network.eval()


def initialise(
    config: MiniInternVLConfig, kind: type[Network], *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Network:
    """The network with random weights from a seed, the same on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind(config)
    return network.to(dtype).eval()


def save_checkpoint(
    network: MiniInternVL,
    folder: str | Path,
    *,
    state: Mapping[str, Tensor] | None = None,
    tokenizer_from: str | Path | Mapping[str, bytes] | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = 5_000_000_000,
) -> list[Path]:
    """Writes config.json and safetensors in the released layout, under the released names.

    Args:
        network: any Mini-InternVL.
        folder: is made if need be; each file is replaced as a whole.
        state: weights in place of the network's own, under its names (gathered from shards, for example).
        tokenizer_from: the base as `load` takes it (folder, name, hub id), or contents of its files by name
            (`companion_files`). Its tokenizer files are copied, and what else stands beside released weights:
            `auto_map`, Python files, settings of generation and images.
        dtype: of the stored weights; None keeps theirs.
        shard_bytes: most bytes of one weight file.

    Returns:
        The weight files.

    Raises:
        CheckpointError: there is no such base.
    """
    base = (
        tokenizer_from
        if tokenizer_from is None or isinstance(tokenizer_from, Mapping)
        else locate(tokenizer_from)
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = network.state_dict() if state is None else state
    released = released_state({name: weights[name] for name in _own_parameters(network)}, network.config)
    if dtype is not None:
        released = {name: tensor.to(dtype) for name, tensor in released.items()}
    raw = _with_base_settings(network.config.to_dict(), base)
    raw["torch_dtype"] = str(next(iter(released.values())).dtype).removeprefix("torch.")
    if network.image_token_id is not None:
        raw["image_token_id"] = network.image_token_id
    with replacing(folder / "config.json") as path:
        path.write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if base is not None:
        from mini_internvl.tokenizers import copy_companions

        copy_companions(base, folder)
    return write_weights(released, folder, shard_bytes)


def _adapter(folder: Path, reader: WeightReader, given: str | Path | None) -> Adapter | None:
    """The adapter of a folder, or the one that InternVL's training left among the weights."""
    raw = read_json(folder / "config.json")
    ranks = (int(raw.get("use_backbone_lora") or 0), int(raw.get("use_llm_lora") or 0))
    inside = Adapter.inside(folder, reader, ranks)
    if given is None:
        return inside
    if inside is not None:
        raise CheckpointError(
            f"{folder}: holds an adapter of its own; merge that one first (evalkit train merge)"
        )
    return Adapter.read(Path(given))


def _canonical(folder: Path, names: list[str], native: bool) -> dict[str, str]:
    """Stored names by the names of their layout, without the prefixes of wrappers.

    Raises:
        CheckpointError: two names mean one weight.
    """
    stored: dict[str, str] = {}
    for name in names:
        plain = unwrapped(name)
        other = stored.setdefault(canonical_native(plain) if native else plain, name)
        if other != name:
            raise CheckpointError(f"{folder}: {other} and {name} are the same weight; remove one of them")
    return stored


def _with_base_settings(raw: dict[str, Any], base: Path | Mapping[str, bytes] | None) -> dict[str, Any]:
    """config.json with the entries of a released base that only other programs read, such as `auto_map`."""
    if isinstance(base, Mapping):
        old = json.loads(base["config.json"]) if "config.json" in base else {}
    else:
        path = None if base is None else base / "config.json"
        old = read_json(path) if path is not None and path.is_file() else {}
    if old.get("model_type") != "internvl_chat":
        return raw
    vision = {**(old.get("vision_config") or {}), **raw["vision_config"]}
    merged = {name: 0 for name in ("use_backbone_lora", "use_llm_lora") if name in old}
    return {**{k: v for k, v in old.items() if k != "dtype"}, **merged, **raw, "vision_config": vision}


def _placed(tensor: Tensor, device: torch.device, folder: Path) -> Tensor:
    try:
        return tensor.to(device)
    except torch.OutOfMemoryError as error:
        raise _too_small(folder, device) from error
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        cause = str(error).strip().splitlines()[0]
        raise DeviceError(
            f"device {device}: the weights of {folder} cannot be put there ({cause})"
        ) from error


def _too_small(folder: Path, device: torch.device) -> DeviceError:
    return DeviceError(
        f"device {device}: the weights of {folder} do not fit into its memory; free it, or take a smaller "
        "dtype or another device"
    )


def _settled(
    config: MiniInternVLConfig, native: bool, stored: Mapping[str, str], change: Adapter | None
) -> MiniInternVLConfig:
    """Whether head and embedding are one is settled by the weights, and so is the number of rows.

    A stored head is always used. An adapter may hold both with more rows than the base has.
    """
    head = HEAD if native else released_recipe(HEAD, config).sources[0]
    if head in stored or (change is not None and change.stores(HEAD, config)):
        config = replace(config, llm={**config.llm, "tie_word_embeddings": False})
    if change is not None:
        change.check_tying(config)
        config = replace(config, llm={**config.llm, "vocab_size": change.rows(config)})
    return config


def _own_parameters(network: nn.Module) -> list[str]:
    """Names in the state dict, without a tied head."""
    tied = bool(network.language_model.config.tie_word_embeddings)  # type: ignore[union-attr]
    return [name for name in network.state_dict() if not (tied and name == HEAD)]


def _tie(network: MiniInternVL) -> None:
    if network.language_model.config.tie_word_embeddings:
        network.language_model.lm_head.weight = network.language_model.model.embed_tokens.weight


def _check_names(
    folder: Path, recipes: Mapping[str, Recipe], held: Collection[str], stored: Mapping[str, str]
) -> None:
    """Args: held: parameters that an adapter holds whole."""
    needed = {source for recipe in recipes.values() for source in recipe.sources}
    missing = sorted(
        {s for name in recipes if name not in held for s in recipes[name].sources} - stored.keys()
    )
    ignorable = (".rotary_emb.inv_freq", ".position_ids")  # buffers that old versions wrote along
    unexpected = sorted(stored[name] for name in stored.keys() - needed if not name.endswith(ignorable))
    problems = []
    if missing:
        problems.append(_listed(missing, "missing"))
    if unexpected:
        problems.append(_listed(unexpected, "unexpected"))
    if problems:
        raise CheckpointError(f"{folder}: the weights do not fit config.json: {'; '.join(problems)}")


def _listed(names: list[str], what: str) -> str:
    """`3 weights missing: a, b, c`; at most ten are named."""
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"{len(names)} weight{'' if len(names) == 1 else 's'} {what}: {shown}"
