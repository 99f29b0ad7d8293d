"""Overhead tiles with buildings, water, woods and roads: the world of the RSVQA-LR miniature."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from evalkit_tasks.miniatures.drawing import SIDE, LabelledBox, Pen, View, coordinates, reserved

#: What fills a cell of the 4 x 4 grid, and how a question names it (singular, plural).
NAMES: Mapping[str, tuple[str, str]] = {
    "building": ("building", "buildings"),
    "water": ("water area", "water areas"),
    "forest": ("forest", "forests"),
    "road": ("road", "roads"),
}
CELL = SIDE // 4


@dataclass(frozen=True, slots=True)
class Tile:
    """Cells (row, column, what fills it) on rural or urban ground; a road fills a whole row."""

    area: str
    cells: tuple[tuple[int, int, str], ...]
    tone: int
    seed: int

    def count(self, name: str) -> int:
        """How many there are of one kind."""
        found = [cell for cell in self.cells if cell[2] == name]
        return len({row for row, _, _ in found}) if name == "road" else len(found)

    def view(self) -> View:
        """The image and its labels."""
        rng = random.Random(self.seed)
        t = self.tone
        ground = (120 + t, 175 + t, 95 + t) if self.area == "rural" else (185 + t, 180 + t, 175 + t)
        pen = Pen((SIDE, SIDE), ground)
        pen.speckle(rng, (0, 0, SIDE, SIDE), 30)
        regions = []
        for row, column, name in self.cells:
            box = (column * CELL, row * CELL, column * CELL + CELL, row * CELL + CELL)
            self._fill(pen, rng, name, box)
            regions.append(LabelledBox(box, {"kind": name, **coordinates(box)}))
        overall = {"area": self.area, **{name: str(self.count(name)) for name in NAMES}}
        return View(pen.image, tuple(regions), overall)

    @staticmethod
    def _fill(pen: Pen, rng: random.Random, name: str, box: tuple[int, int, int, int]) -> None:
        x1, y1, x2, y2 = box
        dx, dy = rng.randint(-2, 2), rng.randint(-2, 2)
        if name == "building":
            pen.rectangle((x1 + 5 + dx, y1 + 5 + dy, x2 - 5 + dx, y2 - 5 + dy), (175, 70, 45))
            pen.rectangle((x1 + 5 + dx, y1 + 15 + dy, x2 - 5 + dx, y1 + 17 + dy), (110, 40, 25))
        elif name == "water":
            pen.ellipse((x1 + 1, y1 + 2, x2 - 1, y2 - 2), (45, 95, 190))
        elif name == "forest":
            for ox, oy in ((3, 3), (14, 2), (8, 13)):
                pen.ellipse((x1 + ox + dx, y1 + oy + dy, x1 + ox + 15 + dx, y1 + oy + 15 + dy), (20, 85, 30))
        else:
            pen.rectangle((x1, y1 + 9, x2, y2 - 9), (70, 70, 75))
            pen.rectangle((x1 + 8, y1 + 15, x2 - 8, y1 + 17), (235, 235, 235))


def tile(rng: random.Random, training: bool) -> Tile:
    """A tile that is or is not kept for the miniature; every kind is absent from about half of them."""
    while True:
        cells: list[tuple[int, int, str]] = []
        rows = list(range(4))
        if rng.random() < 0.5:
            row = rng.randrange(4)
            rows.remove(row)
            cells += [(row, column, "road") for column in range(4)]
        free = [(row, column) for row in rows for column in range(4)]
        rng.shuffle(free)
        for name in ("building", "water", "forest"):
            for _ in range(rng.randint(1, 4) if rng.random() < 0.6 else 0):
                if free:
                    cells.append((*free.pop(), name))
        area = rng.choice(("rural", "urban"))
        cells.sort()
        if reserved((area, cells)) != training:
            return Tile(area, tuple(cells), rng.randint(-12, 12), rng.getrandbits(32))
