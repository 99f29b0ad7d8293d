"""Files that macOS puts beside others in archives and on foreign disks; they hold no data of a benchmark."""

from __future__ import annotations

from pathlib import PurePath


def is_attribute(path: PurePath) -> bool:
    """Whether a path is attributes of another file: `._name`, or anything in a folder `__MACOSX`."""
    return path.name.startswith("._") or "__MACOSX" in path.parts
