"""Checkpoint folders from the hub or from disk, for model families that are not this repository's own."""

from __future__ import annotations

import re
from pathlib import Path

from evalkit.errors import CheckpointError
from mini_internvl.releases import HUB_ID
from mini_internvl.releases import offline as told_offline

#: What is fetched: settings, weights, tokenizer and templates; no code and no pickles.
PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken")

_COMMIT = re.compile(r"[0-9a-f]{40}")


def checkpoint_folder(name: str, revision: str | None, offline: bool) -> tuple[Path, str | None]:
    """The local folder of a checkpoint and its commit on the hub; None where it is a plain folder.

    Raises:
        CheckpointError: no such folder, or it cannot be had from the hub.
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
                local_files_only=offline or told_offline(),
            )
        )
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise CheckpointError(
            f"hf:{at}: not to be had from the hub ({cause}); fetch it where there is a network "
            f"(`hf download {hub_id}`) or give a folder"
        ) from None
