"""FIT-RS (paper, Table 10), as SkySenseGPT publishes it: its instructions, with upright boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mini_internvl_train.convert.lines import Converted
from mini_internvl_train.convert.published_lines import find, image_folder, read_published
from mini_internvl_train.convert.rotated_boxes import upright_middles

FILES = ("FIT-RS-train*.json*", "FIT-RS_Instruction/FIT-RS-train*.json*", "fit_rs*.json*")
IMAGES = ("FIT-RS_Img/imgv2_split_512_100_vaild", "imgv2_split_512_100_vaild", "FIT-RS_Img", "images")


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """One data set a file."""
    for path in find(root, FILES, "fit-rs"):
        notes: list[str] = []
        lines = read_published(path, upright_middles, notes)
        name = path.stem.lower().replace("-", "_")
        yield Converted(name, image_folder(root, IMAGES), lines, notes=notes)
