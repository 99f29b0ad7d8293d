"""Pages of large labelled entries: the world of the DocVQA miniature."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from evalkit_tasks.miniatures.drawing import SIDE, LabelledBox, Pen, View, reserved

WORDS: Mapping[str, tuple[str, ...]] = {
    "Name": ("ANN", "BEN", "EVA", "TOM", "KIM", "LEO"),
    "City": ("ROME", "OSLO", "LIMA", "BONN", "PARIS", "KYIV"),
    "Item": ("PEN", "CUP", "BOX", "HAT", "KEY", "MAP"),
}
NUMBERS = ("Total", "Page", "Room")
LABELS = (*WORDS, *NUMBERS)

QUESTIONS: Mapping[str, str] = {
    "Name": "What is the name?",
    "City": "What is the city?",
    "Item": "What is the item?",
    "Total": "What is the total?",
    "Page": "What is the page number?",
    "Room": "What is the room number?",
}


@dataclass(frozen=True, slots=True)
class Page:
    """Entries (row 0 to 3, label, value), a tone of paper and a shift in pixels."""

    entries: tuple[tuple[int, str, str], ...]
    paper: int
    shift: tuple[int, int]

    def view(self) -> View:
        """The image and its labels."""
        pen = Pen((SIDE, SIDE), (self.paper,) * 3)
        regions = []
        dx, dy = self.shift
        for row, label, value in self.entries:
            top = row * 32
            pen.text((3 + dx, top + 7 + dy), label, 18, (20, 20, 20))
            size = 28 if value.isdigit() else 21
            pen.text((64 + dx, top + 1 + dy + (28 - size) // 2), value, size, (20, 20, 20))
            pen.rectangle((0, top + 31, SIDE, top + 32), (self.paper - 40,) * 3)
            read = {"first": value[0], "second": value[1]} if value.isdigit() else {"word": value}
            regions.append(LabelledBox((0, top, SIDE, top + 32), {"kind": "entry", "label": label, **read}))
        return View(pen.image, tuple(regions))


def page(rng: random.Random, training: bool) -> Page:
    """A page of two to four entries that is or is not kept for the miniature."""
    while True:
        count = rng.randint(2, 4)
        entries = []
        for row, label in zip(sorted(rng.sample(range(4), count)), rng.sample(LABELS, count), strict=True):
            value = str(rng.randint(10, 99)) if label in NUMBERS else rng.choice(WORDS[label])
            entries.append((row, label, value))
        if reserved(entries) != training:
            return Page(tuple(entries), rng.randint(215, 250), (rng.randint(-1, 1), rng.randint(-1, 1)))
