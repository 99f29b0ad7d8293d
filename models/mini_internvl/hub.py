"""From a name, a folder or a hub id to a local checkpoint folder."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from mini_internvl.catalog import RELEASES, TINY, TINY_FOLDER, find_release
from mini_internvl.errors import CheckpointError

PATTERNS = ("*.json", "*.safetensors", "*.model", "merges.txt", "conversation.py")
"""What is fetched: weights, settings, tokenizer files, and the template's text, which is only read."""

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
"""The form of a hub id, `owner/name`."""


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
