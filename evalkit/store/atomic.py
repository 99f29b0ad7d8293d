"""Files that are written whole or not at all, and disk errors in one line."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from evalkit.data import strict_json
from evalkit.doors import cause
from evalkit.errors import RunFolderError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_error(error: OSError, path: Path, fix: str = "what was done is kept") -> RunFolderError:
    """What to tell the user about a write that failed; what was stored before is kept."""
    if error.errno in _FULL:
        return RunFolderError(
            f"{path}: the disk is full ({error.strerror}); what was done is kept: free some space and give "
            "the same command again"
        )
    return RunFolderError(f"{path}: cannot be written ({error.strerror or error}); {fix}")


def sync_folder(folder: Path) -> None:
    """Write renames in `folder` to the disk itself, where the system can."""
    with suppress(OSError):  # Windows opens no folder, and some network file systems refuse to flush one
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a temporary file beside `path`, flush it to the disk and rename it into place.

    Raises:
        RunFolderError: the disk is full or refuses; `path` is then as before.
    """
    scratch = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        fill(scratch)
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise disk_error(error, path) from None
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole.

    Raises:
        RunFolderError: the disk is full or refuses. ValueError: `content` holds NaN or Infinity.
    """
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
    data = text.encode("utf-8", "backslashreplace") + b"\n"
    write_whole(path, lambda scratch: _put(scratch, data))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a run folder.

    Raises:
        RunFolderError: missing, cut or not a JSON object.
    """
    try:
        content = strict_json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunFolderError(f"{path}: missing; not a run folder, or it was not written to its end") from None
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:
        raise RunFolderError(
            f"{path}: broken ({cause(error)}); restore it or delete the run folder"
        ) from None
    if not isinstance(content, dict):
        raise RunFolderError(f"{path}: not a JSON object; restore it or delete the run folder")
    return content


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)
