"""A transformers checkpoint from the Hub or from disk, loaded without running any code of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.doors import cause
from evalkit.errors import CheckpointError, UsageError
from mini_internvl import CheckpointError as RefusedWeights
from mini_internvl.releases import HUB_ID
from mini_internvl.releases import offline as hub_is_offline

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")

#: What is fetched: settings, weights, tokenizer and templates; no code and no pickles.
PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken")

#: No network has more.
_MOST_LAYERS = 1_000

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer.

    Attributes:
        model: of transformers, in evaluation mode. processor: text and images to tensors.
        template: the text of the chat template.
        fingerprint: hash over every file that decides an answer. weights: over the weight files alone.
    """

    model: Any
    processor: Any
    template: str
    fingerprint: str
    weights: str


def checkpoint_folder(name: str, revision: str | None, offline: bool) -> tuple[Path, str | None]:
    """The local folder of a checkpoint and its commit on the hub; None where it is a plain folder.

    Raises:
        CheckpointError: no such folder, or it cannot be downloaded.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _fetch(name, revision, offline)
    resolved = folder.absolute()
    pinned = resolved.parent.name == "snapshots" and _COMMIT.fullmatch(resolved.name)
    return folder, resolved.name if pinned else None


def _fetch(hub_id: str, revision: str | None, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    if not HUB_ID.fullmatch(hub_id):
        raise CheckpointError(f"hf:{hub_id}: no such folder; give a folder or a hub id, OWNER/NAME")
    at = f"{hub_id}@{revision}" if revision else hub_id
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=list(PATTERNS),
                local_files_only=offline or hub_is_offline(),
            )
        )
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise CheckpointError(
            f"hf:{at}: could not be downloaded from the Hub ({cause}); fetch it where there is a network "
            f"(`hf download {hub_id}`) or give a folder"
        ) from None


def load(spec: str, folder: Path, dtype: str, device: str) -> Loaded:
    """Read model and processor.

    Args:
        spec: as errors call it. dtype: `auto` keeps the stored type. device: `auto` takes a GPU if it can.

    Raises:
        CheckpointError: files missing or broken, pickled weights, no image-text model, or one that would need
            code of its own. UsageError: an unknown dtype or device.
    """
    from mini_internvl.identity import checkpoint_identity
    from mini_internvl.weights import fingerprint, weight_files

    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"--dtype {dtype}: {spec} knows auto, {', '.join(DTYPES)}")
    try:
        weights = weight_files(folder)
    except RefusedWeights as error:
        raise CheckpointError(str(error)) from None
    place = _device(device)
    _check_kind(spec, folder)
    processor = _guarded(spec, "processor", lambda: _processor(folder))
    template = getattr(processor, "chat_template", None)
    if not isinstance(template, str):
        raise CheckpointError(f"{spec}: has no chat template, so its prompt format is unknown")
    model = _placed(_guarded(spec, "model", lambda: _model(folder, dtype)), place)
    model.generation_config = _token_ids(model, processor.tokenizer)
    digest = fingerprint(weights)
    return Loaded(model, processor, template, checkpoint_identity(folder, digest), digest)


def _guarded(spec: str, what: str, read: Any) -> Any:
    try:
        return read()
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # anything may be wrong with files from elsewhere
        why = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
        if "trust_remote_code" in str(error):
            raise _needs_code(spec, what) from error
        raise CheckpointError(f"{spec}: the {what} cannot be loaded ({why})") from error


def _needs_code(spec: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{spec}: its {what} would need code from its repository (trust_remote_code), which is never run; "
        "use a conversion to transformers' own classes (often named *-hf), or a server (-m openai:NAME)"
    )


def _check_kind(spec: str, folder: Path) -> None:
    """Refuse what transformers has no image-text class for, before anything is read of it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    config = _json(folder / "config.json")
    _check_depth(folder / "config.json", config)
    kind = config.get("model_type")
    if kind in KNOWN:
        return
    if config.get("auto_map"):
        raise _needs_code(spec, f"model type {kind!r}")
    raise CheckpointError(f"{spec}: model type {kind!r} is not an image-text model of this transformers")


def _check_depth(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse numbers of layers that no network has, which would take for ever to build."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            _check_depth(path, value)
        deep = isinstance(value, (int, float)) and not value <= _MOST_LAYERS
        if deep and ("layers" in name.lower() or name == "depth"):
            raise CheckpointError(f"{path}: {name} is {value!r:.40}, more than {_MOST_LAYERS:,}")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; give the folder of a checkpoint") from None
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read ({cause(error)}); download it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: no JSON object; download it again")
    return content


def _model(folder: Path, dtype: str) -> Any:
    import transformers

    kind: torch.dtype | str = "auto"
    if dtype != "auto":
        import torch

        kind = getattr(torch, dtype)
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=kind, trust_remote_code=False, use_safetensors=True, local_files_only=True
    )
    return model.eval()


def _token_ids(model: Any, tokenizer: Any) -> Any:
    """The checkpoint's token ids and nothing else of its settings: the protocol says how to generate."""
    import transformers

    stored = model.generation_config
    ends = tokenizer.eos_token_id if stored.eos_token_id is None else stored.eos_token_id
    pads = [stored.pad_token_id, tokenizer.pad_token_id, ends[0] if isinstance(ends, list) else ends]
    return transformers.GenerationConfig(
        bos_token_id=stored.bos_token_id,
        eos_token_id=ends,
        pad_token_id=next((token for token in pads if token is not None), None),
    )


def _processor(folder: Path) -> Any:
    """The processor; where torchvision is absent, without its part for videos, which needs that.

    Its images are then prepared by Pillow. `trust_remote_code=False`, or transformers may ask the user.
    """
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name
    from transformers.utils import is_torchvision_available

    kind = _json(folder / "config.json").get("model_type")
    known = processor_class_from_name(PROCESSOR_MAPPING_NAMES.get(kind) or "")
    settings = {"trust_remote_code": False, "local_files_only": True}
    if known is None or is_torchvision_available() or "video_processor" not in known.get_attributes():
        return AutoProcessor.from_pretrained(folder, **settings)
    parts = [name for name in known.get_attributes() if name != "video_processor"]
    of_images: Any = type(known.__name__, (known,), {"get_attributes": classmethod(lambda cls: parts)})
    return of_images.from_pretrained(folder, **settings)


def _device(device: str) -> torch.device:
    from mini_internvl.errors import DeviceError
    from mini_internvl.loading import find_device

    try:
        return find_device(device)
    except DeviceError as error:
        raise UsageError(f"--device: {error}") from error


def _placed(model: Any, device: torch.device) -> Any:
    """The model on a device; a device that is too small is not a corrupt checkpoint."""
    try:
        return model.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        cause = str(error).strip().splitlines()[0][:300]
        raise UsageError(f"--device: device {device}: the weights cannot be put there ({cause})") from error
