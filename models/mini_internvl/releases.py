"""The released checkpoints, and the local folder of a name, a folder or a hub id. Imports nothing heavy."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mini_internvl.errors import CheckpointError
from mini_internvl.prompts import INTERNLM_V15_SYSTEM, PHI3_V15_SYSTEM

PATTERNS = ("*.json", "*.safetensors", "*.model", "merges.txt", "conversation.py", "chat_template.jinja")
"""What is fetched: weights, settings, tokenizer files, the template's text, and the chat template."""

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
"""The form of a hub id, `owner/name`."""


TINY = "mini-internvl-tiny"
"""The model that comes with the package, small enough for any machine."""

TINY_FOLDER = Path(__file__).parent / "tiny"


@dataclass(frozen=True)
class Release:
    """One published checkpoint.

    Attributes:
        name: the short name.
        hub_id: the repository on the Hugging Face hub; empty for the model inside the package.
        language_model: the language model in it.
        gigabytes: size of its bfloat16 weights.
        licence: of the checkpoint and of the language model in it; the card of the repository decides.
        about: one line for lists.
        system_message: overrides the template's system message; None keeps it.
    """

    name: str
    hub_id: str
    language_model: str
    gigabytes: float
    licence: str
    about: str
    system_message: str | None = None


class _Size(NamedTuple):
    """What the checkpoints of one size have in common."""

    language_model: str
    gigabytes: float
    licence: str


_SIZES = {
    "1b": _Size("Qwen2-0.5B", 1.9, "MIT; contains Qwen2-0.5B (Apache-2.0)"),
    "2b": _Size("InternLM2-1.8B", 4.4, "MIT; contains InternLM2-1.8B (Apache-2.0)"),
    "4b": _Size("Phi-3-mini", 8.3, "MIT; contains Phi-3-mini (MIT)"),
}
_DOMAINS = {
    "drivelm": ("DriveLM", "driving (DriveLM)"),
    "bdd": ("BDD", "driving (BDD-X)"),
    "rs": ("RS", "remote sensing"),
    "medical": ("Medical", "medical images"),
}
_SUCCESSORS = {
    "InternVL2_5": {
        "1b": _Size("Qwen2.5-0.5B", 1.9, "MIT; contains Qwen2.5-0.5B (Apache-2.0)"),
        "2b": _Size("InternLM2.5-1.8B", 4.4, "MIT; contains InternLM2.5-1.8B (Apache-2.0)"),
        "4b": _Size("Qwen2.5-3B", 7.4, "MIT; contains Qwen2.5-3B (Qwen Research License)"),
    },
    "InternVL3": {
        "1b": _Size("Qwen2.5-0.5B", 1.9, "Qwen's, by its card; contains Qwen2.5-0.5B (Apache-2.0)"),
        "2b": _Size("Qwen2.5-1.5B", 4.2, "Qwen's, by its card; contains Qwen2.5-1.5B (Apache-2.0)"),
    },
    "InternVL3_5": {
        "1b": _Size("Qwen3-0.6B", 2.1, "Apache-2.0; contains Qwen3-0.6B (Apache-2.0)"),
        "2b": _Size("Qwen3-1.7B", 4.7, "Apache-2.0; contains Qwen3-1.7B (Apache-2.0)"),
        "4b": _Size("Qwen3-4B", 9.5, "Apache-2.0; contains Qwen3-4B (Apache-2.0)"),
    },
}
_VARIANTS = {
    "": "general, final stage",
    "-Pretrained": "after pretraining",
    "-Instruct": "after instruction tuning",
    "-MPO": "after preference optimisation",
    "-hf": "final stage, transformers' native layout",
    "-HF": "final stage, transformers' native layout",
}
_VARIANTS_OF = {
    "InternVL2_5": ("", "-MPO"),
    "InternVL3": ("", "-Pretrained", "-Instruct", "-hf"),
    "InternVL3_5": ("", "-Pretrained", "-Instruct", "-MPO", "-HF"),
}


def _release(name: str, hub_id: str, size: _Size, about: str, system_message: str | None = None) -> Release:
    return Release(name, hub_id, size.language_model, size.gigabytes, size.licence, about, system_message)


def _releases() -> dict[str, Release]:
    embedded = _Size("Qwen2 of a few million parameters", 0.01, "Apache-2.0")
    found = [_release(TINY, "", embedded, "the embedded model of this package")]
    for size, what in _SIZES.items():
        found.append(
            _release(f"mini-internvl-{size}", f"OpenGVLab/InternVL2-{size.upper()}", what, "general")
        )
    for size, system in (("2b", INTERNLM_V15_SYSTEM), ("4b", PHI3_V15_SYSTEM)):
        hub_id = f"OpenGVLab/Mini-InternVL-Chat-{size.upper()}-V1-5"
        name = f"mini-internvl-chat-{size}-v1-5"
        found.append(_release(name, hub_id, _SIZES[size], "general, first release", system))
    for size, what in _SIZES.items():
        for domain, (suffix, about) in _DOMAINS.items():
            hub_id = f"OpenGVLab/Mini-InternVL2-{size.upper()}-DA-{suffix}"
            found.append(_release(f"mini-internvl-{size}-da-{domain}", hub_id, what, about))
    for line, sizes in _SUCCESSORS.items():
        for size, what in sizes.items():
            for variant in _VARIANTS_OF[line]:
                repository = f"{line}-{size.upper()}{variant}"
                name = repository.lower().replace("_", ".")
                found.append(_release(name, f"OpenGVLab/{repository}", what, _VARIANTS[variant]))
    return {release.name: release for release in found}


RELEASES = _releases()
"""Every release by its short name."""


def release_of_folder(folder: Path) -> Release | None:
    """The release whose repository has the folder's name, so that a download keeps its own settings."""
    wanted = folder.resolve().name.lower()
    return next((r for r in RELEASES.values() if r.hub_id and r.hub_id.lower().endswith(f"/{wanted}")), None)


def find_release(name: str) -> Release | None:
    """The release of a short name or hub id, in any case.

    `mini-internvl2-…` means `mini-internvl-…`, and `InternVL2_5-1B` means `internvl2.5-1b`.
    """
    wanted = name.strip().lower()
    for release in RELEASES.values():
        if wanted in (release.name, release.hub_id.lower()):
            return release
    if wanted.startswith("mini-internvl2-"):
        return RELEASES.get(wanted.replace("mini-internvl2-", "mini-internvl-", 1))
    return RELEASES.get(wanted.replace("_", "."))  # InternVL2_5-1B, without its owner


def locate(name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a checkpoint, fetched from the hub if need be.

    Downloads go to huggingface_hub's cache, are resumed and verified by it, and `HF_HUB_OFFLINE=1` keeps to
    what is already there.

    Args:
        name: a folder, a short name of `catalog.RELEASES`, or a hub id `owner/name`.
        revision: branch, tag or commit on the hub.

    Raises:
        CheckpointError: there is no such folder, name or repository, or it cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    release = find_release(str(name))
    if release is not None and release.name == TINY:
        return TINY_FOLDER
    # a hub id is used as it was written: the hub redirects, but its cache does not know other spellings
    hub_id = release.hub_id if release is not None and "/" not in str(name) else str(name)
    if folder.is_file():
        raise CheckpointError(f"{name}: is a file; give the folder that holds it and config.json")
    if not HUB_ID.fullmatch(hub_id):
        near = difflib.get_close_matches(str(name).lower(), RELEASES, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "give a folder, a hub id or a known name"
        raise CheckpointError(f"{name}: no such folder or model; {hint}")
    return _fetch(hub_id, revision)


def offline() -> bool:
    """Whether `HF_HUB_OFFLINE` is set now; huggingface_hub itself reads it once, when it is imported."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE")


def _fetch(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f"{hub_id}@{revision}" if revision else hub_id
    try:
        folder = snapshot_download(
            hub_id, revision=revision, allow_patterns=list(PATTERNS), local_files_only=offline()
        )
        return Path(folder)
    except GatedRepoError as error:
        raise CheckpointError(
            f"{at}: access must be granted on the hub first; then `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{at}: the repository has no such revision") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{at}: no such repository on the hub (or it is private)") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{at}: not in the local cache and the hub cannot be reached; fetch it on a machine with network "
            f"(`hf download {hub_id}`) or give a folder"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{at}: the download failed ({cause}); run it again to go on") from error
