"""Where the images of a converted list are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def image_folder(root: Path, folders: Sequence[str], example: str) -> Path:
    """The first of `folders` under `root`, then `root` itself, that holds the image `example`.

    Where none holds it, the first folder that exists: the sample's error then names the missing image.
    """
    places = [*(root / folder for folder in folders), root]
    holding = (place for place in places if (place / example).is_file())
    return next(holding, next(place for place in [*places, root] if place.is_dir() or place == root))
