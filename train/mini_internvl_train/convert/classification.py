"""Classification as multiple choice: a folder of images for each class, or a table of images and labels.

`<split>/<class>/image.jpg` (or `<class>/image.jpg` without split folders), or `<split>.csv` with the
columns `image` and `label`. The question lists candidates and the answer is the label (paper, section 3.3).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from evalkit.errors import DataError
from evalkit.files import read_csv
from evalkit.macos import is_attribute
from mini_internvl_train.convert.lines import IMAGE, Converted, Line, line, relative

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
CANDIDATES = 50
"""Most labels in one question; of more classes a seeded choice is listed, the right one among them."""


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """One data set."""
    images = sorted(_table(root, split) or _folders(root / split) or _folders(root))
    if not images:
        raise DataError(
            f"{root}: neither {split}.csv (image, label) nor folders of images, one for each class"
        )
    yield Converted("classification", root, _lines(root, images))


def question(labels: list[str]) -> str:
    """The question with its candidates."""
    return (
        f"{IMAGE}\nClassify the image within one of the given classes: {', '.join(labels)}.\n"
        "Answer with one word or short phrase."
    )


def _lines(root: Path, images: list[tuple[str, str]]) -> Iterator[Line]:
    labels = sorted({label for _, label in images})
    for path, label in images:
        rng = random.Random(path)
        others = [other for other in labels if other != label]
        listed = [label, *rng.sample(others, min(CANDIDATES - 1, len(others)))]
        rng.shuffle(listed)
        yield line(path, question(listed), label, (path,))


def _table(root: Path, split: str) -> list[tuple[str, str]]:
    path = root / f"{split}.csv"
    if not path.is_file():
        return []
    rows = list(read_csv(path, ("image", "label")))
    for row in rows:
        if not row["image"] or not row["label"]:
            raise DataError(f"{row.where}: needs image and label")
    return [(row["image"], row["label"]) for row in rows]


def _folders(root: Path) -> list[tuple[str, str]]:
    if not root.is_dir():
        return []
    base = root.parent if root.name in ("train", "val", "test") else root
    return [
        (relative(path, base), folder.name.replace("_", " "))
        for folder in root.iterdir()
        if folder.is_dir()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not is_attribute(path)
    ]
