"""Folder names from names that anybody may have chosen."""

from __future__ import annotations

import hashlib
import re

_LIMIT = 100
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def folder_name(name: str) -> str:
    """A harmless single path component that still reads like `name`.

    A slash or colon becomes a double dash. Where anything else had to go (other characters, leading dots,
    length, names that Windows reserves), a short hash keeps different names apart.
    """
    kept = re.sub(r"[/:\\]+", "--", name)
    safe = re.sub(r"[^A-Za-z0-9._+=@-]", "-", kept).lstrip(".-").rstrip(".-")
    lost = safe != kept or len(safe) > _LIMIT or _RESERVED.fullmatch(safe) is not None or not safe
    if not lost:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return (
        f"{safe[: _LIMIT - 7] or 'unnamed'}-{digest}"
        if not _RESERVED.fullmatch(safe)
        else f"x-{safe}-{digest}"
    )
