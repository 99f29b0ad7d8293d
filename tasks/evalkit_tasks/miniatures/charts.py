"""Bar charts with printed values: the world of the ChartQA miniature."""

from __future__ import annotations

import random
from dataclasses import dataclass

from evalkit_tasks.miniatures.drawing import COLOURS, SIDE, LabelledBox, Pen, View, pale, reserved

#: Height in pixels of ten units of value, and where the bars stand.
STEP, BASE = 12, 116


@dataclass(frozen=True, slots=True)
class Chart:
    """Two to four bars of different colours and values (10 to 80 in tens)."""

    bars: tuple[tuple[str, int], ...]
    ground: tuple[int, int, int]
    offset: int

    def view(self) -> View:
        """The image and its labels."""
        pen = Pen((SIDE, SIDE), self.ground)
        for line in range(0, 9, 2):
            y = BASE - line * STEP
            pen.rectangle((0, y, SIDE, y + 1), (190, 190, 190))
        regions = []
        for place, (colour, value) in enumerate(self.bars):
            left = place * 32 + self.offset
            top = BASE - value // 10 * STEP
            pen.rectangle((left, top, left + 22, BASE), COLOURS[colour])
            pen.text((left + 3, top - 15), str(value), 14, (0, 0, 0))
            labels = {"kind": "bar", "colour": colour, "value": str(value)}
            regions.append(LabelledBox((place * 32, top - 14, place * 32 + 32, BASE), labels))
        pen.rectangle((0, BASE, SIDE, BASE + 2), (60, 60, 60))
        highest = max(self.bars, key=lambda bar: bar[1])[0]
        lowest = min(self.bars, key=lambda bar: bar[1])[0]
        overall = {"things": str(len(self.bars)), "highest": highest, "lowest": lowest}
        return View(pen.image, tuple(regions), overall)


def chart(rng: random.Random, training: bool) -> Chart:
    """A chart that is or is not kept for the miniature."""
    while True:
        count = rng.randint(2, 4)
        colours = rng.sample(sorted(COLOURS), count)
        values = rng.sample(range(10, 90, 10), count)
        bars = tuple(zip(colours, values, strict=True))
        if reserved(bars) != training:
            return Chart(bars, pale(rng), rng.randint(2, 8))
