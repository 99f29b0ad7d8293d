"""The miniature of GMAI-MMBench: `GMAI-MMBench_VAL.tsv` over drawn scans."""

from __future__ import annotations

import base64
import csv
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from evalkit_tasks.miniatures.drawing import SHAPES, SIDE, Pen, generator, reserved
from evalkit_tasks.miniatures.questions import Asked

SCANS = 80
MARKS = ("image", "box", "mask", "contour")
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

    def image(self) -> Image.Image:
        """What is seen."""
        pen = Pen((SIDE, SIDE), (12, 12, 12))
        pen.ellipse((8, 8, 120, 120), (self.level,) * 3)
        for position, (shape, (x, y)) in enumerate(self.findings):
            box = (x, y, x + FINDING, y + FINDING)
            marked = position == 0
            pen.shape(shape, box, (215, 35, 35) if marked and self.mark == "mask" else (235, 235, 235))
            if marked and self.mark in ("box", "contour"):
                outline = pen.draw.rectangle if self.mark == "box" else pen.draw.ellipse
                outline((x - 6, y - 6, x + FINDING + 5, y + FINDING + 5), outline=(240, 205, 30), width=2)
        return pen.image

    def asked(self, rng: random.Random) -> Asked:
        """The question with one right answer."""
        what = "the finding" if self.mark == "image" else f"the finding marked by a {self.mark}"
        right = self.findings[0][0]
        options = [right, *rng.sample([shape for shape in SHAPES if shape != right], 3)]
        rng.shuffle(options)
        letter = "ABCD"[options.index(right)]
        return Asked("shape", f"What is the shape of {what}?", letter, tuple(options))

    def several(self, rng: random.Random) -> Asked:
        """The question whose right answers are all findings."""
        shapes = [shape for shape, _ in self.findings]
        options = [*shapes, *rng.sample([shape for shape in SHAPES if shape not in shapes], 5 - len(shapes))]
        rng.shuffle(options)
        letters = "".join(sorted("ABCDE"[options.index(shape)] for shape in shapes))
        text = "Which shapes of findings are there? Several answers may be right."
        return Asked("several", text, letters, tuple(options))


def scan(rng: random.Random, mark: str, training: bool) -> Scan:
    """A scan that is or is not kept for the miniature."""
    while True:
        shapes, places = rng.sample(SHAPES, 2), rng.sample(PLACES, 2)
        count = 1 if mark == "image" else 2
        findings = tuple(zip(shapes[:count], places[:count], strict=True))
        made = Scan(findings, mark, rng.randint(70, 120))
        if reserved((made.findings, made.mark, made.level)) != training:
            return made


def draw(folder: Path) -> None:
    """Writes 80 scans: twenty of each granularity with one right answer, and a question with several."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "GMAI-MMBench_VAL.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(HEADER)
        for index, row in enumerate(_rows(generator("gmai-mmbench", 0))):
            table.writerow((index, *row))


def _rows(rng: random.Random) -> Iterator[tuple[str, ...]]:
    for number in range(SCANS):
        granularity = MARKS[number % 4]
        made = scan(rng, granularity, training=False)
        buffer = io.BytesIO()
        made.image().save(buffer, "PNG")
        image = base64.b64encode(buffer.getvalue()).decode()
        asked = made.asked(rng)
        tail = ("Disease Diagnosis", "Radiology", f"{granularity.capitalize()} Level", "Drawn scan", "shapes")
        yield (image, asked.text, *asked.options, "", asked.answer, "shape", *tail)
        if granularity != "image":
            several = made.several(rng)
            tail = ("Attribute Recognition", "Pathology", "Image Level", "Drawn scan", "shapes")
            yield (image, several.text, *several.options, several.answer, "several", *tail)
