"""Where the pictures of a converted list are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def picture_folder(root: Path, folders: Sequence[str], example: str) -> Path:
    """The first of `folders` under `root`, then `root` itself, that holds the picture `example`.

    Where none holds it, the first folder that exists: the sample's error then names the missing picture.
    """
    places = [*(root / folder for folder in folders), root]
    holding = (place for place in places if (place / example).is_file())
    return next(holding, next(place for place in [*places, root] if place.is_dir() or place == root))
