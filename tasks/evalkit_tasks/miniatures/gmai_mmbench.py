"""The miniature of GMAI-MMBench: `GMAI-MMBench_VAL.tsv` over drawn scans."""

from __future__ import annotations

import base64
import csv
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evalkit_tasks.miniatures.drawing import SHAPES, SIDE, Pen, generator

SCANS = 40
HEADER = (
    *("index", "image", "question", "A", "B", "C", "D", "E", "answer", "category", "clinical vqa task"),
    *("department", "perceptual granularity", "modality", "original task"),
)
#: Corners of the four quadrants in which findings lie.
PLACES = ((28, 28), (76, 28), (28, 76), (76, 76))
FINDING = 24


@dataclass(frozen=True, slots=True)
class Scan:
    """Findings (shape, corner) in a body; one of them is marked by a box, a mask or a contour, or none."""

    findings: tuple[tuple[str, tuple[int, int]], ...]
    mark: str
    level: int

    def png(self) -> bytes:
        """The picture."""
        pen = Pen((SIDE, SIDE), (12, 12, 12))
        pen.ellipse((8, 8, 120, 120), (self.level,) * 3)
        for position, (shape, (x, y)) in enumerate(self.findings):
            box = (x, y, x + FINDING, y + FINDING)
            marked = position == 0
            pen.shape(shape, box, (215, 35, 35) if marked and self.mark == "mask" else (235, 235, 235))
            if marked and self.mark in ("box", "contour"):
                outline = pen.draw.rectangle if self.mark == "box" else pen.draw.ellipse
                outline((x - 6, y - 6, x + FINDING + 5, y + FINDING + 5), outline=(240, 205, 30), width=2)
        buffer = io.BytesIO()
        pen.image.save(buffer, "PNG")
        return buffer.getvalue()


def draw(folder: Path) -> None:
    """Writes 40 scans: ten of each granularity with one right answer, and a question with several on each."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "GMAI-MMBench_VAL.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(HEADER)
        for index, row in enumerate(_rows(generator("gmai-mmbench", 0))):
            table.writerow((index, *row))


def _rows(rng: random.Random) -> Iterator[tuple[str, ...]]:
    for number in range(SCANS):
        granularity = ("image", "box", "mask", "contour")[number % 4]
        shapes, places = rng.sample(SHAPES, 2), rng.sample(PLACES, 2)
        count = 1 if granularity == "image" else 2
        findings = tuple(zip(shapes[:count], places[:count], strict=True))
        scan = Scan(findings, granularity, rng.randint(70, 120))
        picture = base64.b64encode(scan.png()).decode()
        what = "the finding" if granularity == "image" else f"the finding marked by a {granularity}"
        others = [shape for shape in SHAPES if shape != shapes[0]]
        options = [shapes[0], *rng.sample(others, 3)]
        rng.shuffle(options)
        right = "ABCD"[options.index(shapes[0])]
        tail = ("Disease Diagnosis", "Radiology", f"{granularity.capitalize()} Level", "Drawn scan", "shapes")
        yield (picture, f"What is the shape of {what}?", *options, "", right, "shape", *tail)
        if granularity != "image":
            options = [*shapes, *rng.sample([shape for shape in SHAPES if shape not in shapes], 3)]
            rng.shuffle(options)
            seen = "".join(sorted("ABCDE"[options.index(shape)] for shape in shapes))
            asked = "Which shapes of findings are there? Several answers may be right."
            tail = ("Attribute Recognition", "Pathology", "Image Level", "Drawn scan", "shapes")
            yield (picture, asked, *options, seen, "several", *tail)
