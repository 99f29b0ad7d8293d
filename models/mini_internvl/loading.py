"""`load`: from a name, folder or hub id to a model that answers."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch

from mini_internvl.adapter_config import AdapterConfig
from mini_internvl.adapters import base_fingerprint, is_adapter
from mini_internvl.chat import ChatModel
from mini_internvl.chat_template import AUTO, ChatTemplate, find_prompt
from mini_internvl.checkpoint import initialise, read_config, read_network
from mini_internvl.compiled import compile_network
from mini_internvl.config import MiniInternVLConfig
from mini_internvl.errors import CheckpointError, DeviceError, TokenizerError, reading
from mini_internvl.identity import checkpoint_identity
from mini_internvl.linear_layers import has_half_products, quantise, widen_products
from mini_internvl.processor_settings import check_processor
from mini_internvl.prompts import Template, choose_system_message
from mini_internvl.releases import TINY, TINY_FOLDER, find_release, locate, release_of_folder
from mini_internvl.tokenizers import Tokenizer, image_token_of, read_tokenizer
from mini_internvl.weights import WeightReader, fingerprint, weight_files

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


_MARK = re.compile(r"<\|\w+\|>")
#: Families whose activations exceed float16's range: in place of bfloat16 they run in float32.
_OVERFLOW = ("qwen2", "qwen3")


def load(
    name: str | Path,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    *,
    folder: str | Path | None = None,
    image_token_id: int | None = None,
    attention: str = "sdpa",
    compile: bool = False,
    template: str = AUTO,
) -> ChatModel:
    """Loads a checkpoint for inference: evaluation mode, no gradients.

    Args:
        name: a folder, a hub id (`OpenGVLab/InternVL2-2B`) or a short name (`mini-internvl-2b`,
            `mini-internvl-tiny`, `mini-internvl-2b-da-drivelm` …; `releases.RELEASES` has them all).
        revision: branch, tag or commit on the hub.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: as stored, but in place of bfloat16 float16 on a
            GPU that has none (float32 for Qwen's networks, which overflow in float16), and in place of half
            precision float32 on a CPU without instructions for it. `int8` rounds the language model's weights
            to 8 bits; the rest is bfloat16.
        device: as torch names it, or `auto`: the GPU if there is one.
        folder: where the files of the checkpoint are, in place of what `name` stands for. Where one of the
            two is an adapter, the other is its base; else the base is the one that the adapter names.
        image_token_id: id of the image token, for a folder without tokenizer files.
        attention: the language model's attention, by its name in transformers' registry.
        compile: run the encoder's layers, and on a GPU the decoding step as CUDA graphs, compiled by
            torch.compile. It takes a minute or so; the model is then for the thread that loaded it.
        template: how conversations are written (`chat_template.find_prompt`): `auto` is as the folder says.

    Raises:
        DeviceError: the device is unknown, not there or too small.
        CheckpointError: no such checkpoint, or its weights are missing, damaged, misshapen or refused.
        ConfigError: its config.json cannot be understood.
        TokenizerError: its tokenizer files cannot be read.
        CompileError: torch.compile does not work on the device or machine.
    """
    with reading(name if folder is None else folder, CheckpointError):
        found, adapter = find_base(name, folder, revision)
        model = _read(
            str(name), found, adapter, dtype, find_device(device), image_token_id, attention, template
        )
    model.revision = revision
    half = model.dtype in (torch.bfloat16, torch.float16)
    if half and model.device.type == "cpu" and not has_half_products(model.dtype):
        logger.info("this CPU has no %s matrix instructions; products are taken in float32", model.dtype)
        widen_products(model)
    model.requires_grad_(False).eval()
    if compile:
        compile_network(model)
    return model


def _read(
    name: str,
    folder: Path,
    adapter: Path | None,
    dtype: str | torch.dtype,
    place: torch.device,
    image_token_id: int | None,
    attention: str,
    template: str,
) -> ChatModel:
    """The network of a folder with tokenizer and template, each checked against the others."""
    int8 = dtype == "int8"
    if int8:
        dtype = _half(place)
    tokenizer = None if adapter is None else read_tokenizer(adapter, folder)
    tokenizer = tokenizer or read_tokenizer(folder)
    config, native = read_config(folder)
    if native:
        check_processor(folder, config)
    silent = native and tokenizer is None  # only tensors go in and out
    prompt = None if silent else find_prompt(folder, config, native, template)
    if prompt is not None and tokenizer is not None:
        _check_marks(folder, tokenizer, prompt)
    untrained = folder == TINY_FOLDER and not any(folder.glob("*.safetensors"))
    if untrained:
        logger.warning("%s: no trained weights in the package; they are random, from a fixed seed", TINY)
        wanted = torch.float32 if dtype == "auto" else _dtype(dtype)
        model = initialise(read_config(folder)[0], ChatModel, dtype=wanted).to(place)
    else:
        model = read_network(
            folder,
            ChatModel,
            dtype=_auto_dtype(folder, place) if dtype == "auto" else _dtype(dtype),
            device=place,
            attention=attention,
            adapter=adapter,
        )
    release = find_release(name) or release_of_folder(folder)
    model.name = name
    model.folder, model.adapter = folder, adapter
    model.tokenizer = tokenizer
    model.untrained = untrained
    model.image_token_id = image_token_of(tokenizer, image_token_id, model.config.image_token_id)
    if prompt is not None:
        model.template = prompt
        model.system_message = _system_message(
            model, prompt, None if release is None else release.system_message
        )
    _check_vocabulary(folder, tokenizer, model.config)
    if int8:
        quantise(model.language_model)
        model.int8 = True
    return model


def find_base(name: str | Path, folder: str | Path | None, revision: str | None) -> tuple[Path, Path | None]:
    """The folder of the checkpoint, and that of the adapter that goes with it, if one of the two is one.

    Raises:
        CheckpointError: no such folder or name, two adapters, or an adapter that names no base.
    """
    if folder is not None and not Path(folder).expanduser().is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    given = locate(name if folder is None else folder, revision)
    named = Path(name).expanduser()
    base, adapter = given, None
    if is_adapter(given):
        base, adapter = _base_of(given, None if folder is None else name, revision), given
    elif folder is not None and named.is_dir() and is_adapter(named):
        adapter = named
    if adapter is not None:
        _check_base(adapter, base)
    return base, adapter


def _base_of(adapter: Path, given: str | Path | None, revision: str | None) -> Path:
    """The folder of an adapter's base: the one given, else the one that the adapter names."""
    wanted = AdapterConfig.read(adapter).base if given is None else given
    if wanted is None:
        raise CheckpointError(
            f"{adapter}: an adapter that names no base; give its base by --checkpoint or --base"
        )
    try:
        base = locate(wanted, None if given is None else revision)
    except CheckpointError as error:
        raise CheckpointError(
            f"{adapter}: an adapter whose base is not at hand ({error}); give it by --checkpoint or --base"
        ) from error
    if is_adapter(base):
        raise CheckpointError(f"{adapter} and {base} are both adapters; give the base of one of them")
    return base


def _check_base(adapter: Path, base: Path) -> None:
    """Refuses a base that is not the one that the adapter was trained on, as far as it says which.

    An adapter of `evalkit train` names the contents of its base; others name a release, or a folder.
    """
    stated = base_fingerprint(adapter)
    if stated is not None:
        weights = fingerprint(weight_files(base))
        if stated in (weights, checkpoint_identity(base, weights)):
            return
        raise CheckpointError(
            f"{adapter}: {base} has other weights, settings or tokenizer than the base that the adapter was "
            "trained on"
        )
    named = AdapterConfig.read(adapter).base
    wanted = None if named is None else find_release(named) or release_of_folder(Path(named))
    found = release_of_folder(base)
    if wanted is not None and found is not None and wanted != found:
        raise CheckpointError(
            f"{adapter}: the adapter was trained on {wanted.hub_id or wanted.name}, not on {base}"
        )


def _system_message(model: ChatModel, prompt: Template | ChatTemplate, released: str | None) -> str | None:
    """What begins a conversation: as the checkpoint has it, or as the template has it that was chosen."""
    if isinstance(prompt, ChatTemplate) or model.folder is None:
        return None
    if prompt.name != model.config.template:
        return prompt.system_message
    return choose_system_message(model.config.system_message, model.folder, prompt, released)


def _check_marks(folder: Path, tokenizer: Tokenizer, prompt: Template | ChatTemplate) -> None:
    """Refuses a prompt that is written with marks which are no tokens, before the weights are read."""
    text = prompt.render([("x", "y"), ("z", None)], None)
    marks = dict.fromkeys(_MARK.findall(text))
    if absent := [mark for mark in marks if tokenizer.token_id(mark) is None]:
        raise TokenizerError(
            f"{folder}: the tokenizer has no {', '.join(absent)}, which the template {prompt.name} is "
            "written with: download the tokenizer files again, or choose another --template"
        )


def _check_vocabulary(folder: Path, tokenizer: Tokenizer | None, config: MiniInternVLConfig) -> None:
    rows = int(config.llm["vocab_size"])
    if tokenizer is not None and len(tokenizer) > rows:
        raise TokenizerError(
            f"{folder}: the tokenizer has {len(tokenizer)} ids but the embedding only {rows} rows; "
            "weights and tokenizer are not of the same checkpoint"
        )


def find_device(device: str | torch.device) -> torch.device:
    """The device of a name.

    Raises:
        DeviceError: there is none of that name, or not on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {device!r}; auto, cpu, cuda, cuda:N or mps") from error
    if place.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (place.index or 0) >= count:
            raise DeviceError(f"device {place}: this machine has {count} CUDA GPUs that torch can use")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device mps: not on this machine, or this torch is built without it")
    return place


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise CheckpointError(f"unknown dtype {dtype!r}; auto, {', '.join(DTYPES)}, int8")
    return DTYPES[dtype]


def _half(device: torch.device) -> torch.dtype:
    """bfloat16, or float16 on a GPU that has none and on Apple's."""
    if device.type == "mps":
        return torch.float16
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _auto_dtype(folder: Path, device: torch.device) -> torch.dtype | None:
    """What `dtype="auto"` means for a checkpoint; None keeps the stored type."""
    config, _ = read_config(folder)  # its errors come before those of the weights
    stored = WeightReader(weight_files(folder)).stored_dtype()
    if stored not in (torch.bfloat16, torch.float16):
        return None
    if device.type in ("cuda", "mps"):
        half = _half(device) if stored == torch.bfloat16 else None
        return torch.float32 if half == torch.float16 and config.family in _OVERFLOW else half
    return torch.float32 if device.type == "cpu" and not has_half_products(stored) else None
