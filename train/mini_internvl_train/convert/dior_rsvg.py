"""DIOR-RSVG: grounding, and region perception in the paper's two forms.

`dior_rsvg` asks for the box of an expression. `dior_rsvg_regions` asks what lies in a box that the question
states; `dior_rsvg_drawn` asks the same of a box that is drawn into the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evalkit.contracts import Sample
from evalkit_tasks.remote_sensing.dior_rsvg import DiorRsvg
from mini_internvl_train.convert.lines import IMAGE, Converted, Line, line, relative, task_lines, thousandths

RED = (255, 0, 0)


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """Three data sets of the same objects."""
    yield Converted("dior_rsvg", root, task_lines(DiorRsvg(), split, root, _answer))
    yield Converted("dior_rsvg_regions", root, _regions(root, split))
    yield Converted("dior_rsvg_drawn", folder, _drawn(root, split, folder))


def _answer(sample: Sample) -> str:
    return f"{sample.turns[-1]}{thousandths(sample.target, sample.data['size'])}"


def _regions(root: Path, split: str) -> Iterator[Line]:
    for sample in DiorRsvg().samples(split, root):
        box = thousandths(sample.target, sample.data["size"])
        question = f"{IMAGE}\nWhat object is in this location{box}"
        (path,) = sample.images[0].paths()
        yield line(sample.id, question, f"{sample.turns[-1]}{box}", (relative(Path(path), root),))


def _drawn(root: Path, split: str, folder: Path) -> Iterator[Line]:
    from PIL import ImageDraw

    for sample in DiorRsvg().samples(split, root):
        target = folder / f"dior_rsvg_{sample.id}.jpg"
        if not target.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            image = sample.images[0].open().convert("RGB")
            width = max(2, round(min(image.size) / 200))
            ImageDraw.Draw(image).rectangle(list(sample.target), outline=RED, width=width)
            image.save(target, quality=95)
        answer = sample.turns[-1].replace("<ref>", "").replace("</ref>", "")
        yield line(sample.id, f"{IMAGE}\nDescribe the object in the red box.", answer, (target.name,))
