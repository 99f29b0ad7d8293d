"""GeoChat_Instruct (paper, Table 10): its conversations, with upright boxes. Its task words stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mini_internvl_train.convert.lines import Converted
from mini_internvl_train.convert.published_lines import find, image_folder, read_published
from mini_internvl_train.convert.rotated_boxes import upright_corners

FILES = ("GeoChat_Instruct.json", "geochat_instruct.jsonl")
IMAGES = ("final_images_llava", "images")


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """One data set."""
    (path,) = find(root, FILES, "geochat")
    notes: list[str] = []
    lines = read_published(path, upright_corners, notes)
    yield Converted("geochat_instruct", image_folder(root, IMAGES), lines, notes=notes)
