"""What the drawn miniatures are made of: a pen, shapes, colours, labelled regions, and the rule that
keeps test images out of training."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

#: Side in pixels of a drawn image: one tile of the embedded model, so that nothing is rescaled.
SIDE = 128

#: Boxes of objects lie on a grid of this many pixels.
GRID = 16

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "green": (30, 150, 50),
    "blue": (35, 75, 215),
    "yellow": (240, 205, 30),
    "purple": (145, 45, 165),
    "black": (25, 25, 25),
}

SHAPES = ("circle", "square", "triangle", "cross", "star", "diamond")

#: One of this many fingerprints belongs to the miniatures; the others to training.
SHARES = 8

Box = tuple[float, float, float, float]


def reserved(facts: object) -> bool:
    """Whether what an image shows (its objects, places, values) is kept for the miniatures.

    Training draws only what is not reserved and the miniatures only what is, so no image of a miniature
    was ever trained on, whatever the seeds.
    """
    return zlib.crc32(repr(facts).encode()) % SHARES == 0


def generator(world: str, seed: int, training: bool = False) -> random.Random:
    """The source of chance of a world; training and miniatures have separate seed spaces."""
    return random.Random(f"{'training' if training else 'miniature'}/{world}/{seed}")


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A part of an image and what can be seen there, for dense training.

    Attributes:
        box: x1, y1, x2, y2 in pixels of a `SIDE` x `SIDE` image.
        labels: attribute name to value (`kind`, `colour`, ...).
    """

    box: Box
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class View:
    """A drawn image with its labels.

    Attributes:
        image: RGB.
        regions: what can be seen where.
        overall: what holds of the whole image (counts and the like).
    """

    image: PilImage
    regions: tuple[LabelledBox, ...]
    overall: Mapping[str, str] = field(default_factory=dict)


class Pen:
    """Draws in units of a `SIDE` x `SIDE` image onto a canvas of any size."""

    def __init__(
        self, size: tuple[int, int], background: tuple[int, int, int], units: Box | None = None
    ) -> None:
        """`units` is the width and height of the canvas in drawing units (last two fields)."""
        self.image = Image.new("RGB", size, background)
        self.draw = ImageDraw.Draw(self.image)
        _, _, width, height = units or (0, 0, SIDE, SIDE)
        self.sx, self.sy = size[0] / width, size[1] / height

    def box(self, box: Box) -> Box:
        """A box in canvas pixels; the far edge is inside."""
        x1, y1, x2, y2 = box
        return (x1 * self.sx, y1 * self.sy, x2 * self.sx - 1, y2 * self.sy - 1)

    def rectangle(self, box: Box, fill: tuple[int, int, int]) -> None:
        """A filled rectangle."""
        self.draw.rectangle(self.box(box), fill=fill)

    def ellipse(self, box: Box, fill: tuple[int, int, int]) -> None:
        """A filled ellipse."""
        self.draw.ellipse(self.box(box), fill=fill)

    def polygon(self, box: Box, points: tuple[tuple[float, float], ...], fill: tuple[int, int, int]) -> None:
        """A polygon whose points are given as shares of the box."""
        x1, y1, x2, y2 = self.box(box)
        self.draw.polygon([(x1 + px * (x2 - x1), y1 + py * (y2 - y1)) for px, py in points], fill=fill)

    def text(self, place: tuple[float, float], text: str, size: int, fill: tuple[int, int, int]) -> None:
        """A word whose top left corner is at `place`."""
        self.draw.text((place[0] * self.sx, place[1] * self.sy), text, fill=fill, font=font(size * self.sy))

    def shape(self, name: str, box: Box, fill: tuple[int, int, int]) -> None:
        """One of `SHAPES`, filling its box."""
        if name == "circle":
            self.ellipse(box, fill)
        elif name == "square":
            self.rectangle(box, fill)
        else:
            self.polygon(box, _OUTLINES[name], fill)

    def speckle(self, rng: random.Random, box: Box, count: int, spread: int = 18) -> None:
        """Small light and dark spots, so that no ground is one flat colour."""
        x1, y1, x2, y2 = self.box(box)
        for _ in range(count):
            x, y = rng.uniform(x1, x2), rng.uniform(y1, y2)
            base = self.image.getpixel(
                (int(min(x, self.image.width - 1)), int(min(y, self.image.height - 1)))
            )
            shift = rng.randint(-spread, spread)
            assert isinstance(base, tuple)
            fill = tuple(max(0, min(255, channel + shift)) for channel in base)
            w, h = rng.randint(1, 3) * self.sx, rng.randint(1, 3) * self.sy
            self.draw.rectangle((x, y, x + w, y + h), fill=fill)


_OUTLINES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "triangle": ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0)),
    "diamond": ((0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)),
    "cross": (
        *((0.33, 0.0), (0.67, 0.0), (0.67, 0.33), (1.0, 0.33), (1.0, 0.67), (0.67, 0.67)),
        *((0.67, 1.0), (0.33, 1.0), (0.33, 0.67), (0.0, 0.67), (0.0, 0.33), (0.33, 0.33)),
    ),
    "star": (
        *((0.5, 0.0), (0.62, 0.36), (1.0, 0.38), (0.7, 0.6), (0.81, 1.0)),
        *((0.5, 0.76), (0.19, 1.0), (0.3, 0.6), (0.0, 0.38), (0.38, 0.36)),
    ),
}


@lru_cache(maxsize=64)
def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own scalable font; none is shipped."""
    return ImageFont.load_default(size=size)


def pale(rng: random.Random) -> tuple[int, int, int]:
    """A light ground."""
    level = rng.randint(205, 245)
    return (level - rng.randint(0, 15), level - rng.randint(0, 15), level - rng.randint(0, 15))


def coordinates(box: Box) -> dict[str, str]:
    """Labels for the place of an object: its corners in steps of `GRID`."""
    return {name: str(round(value / GRID)) for name, value in zip(("x1", "y1", "x2", "y2"), box, strict=True)}
