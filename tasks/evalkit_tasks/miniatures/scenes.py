"""Scenes of a few coloured shapes: the world of the MMBench and DIOR-RSVG miniatures."""

from __future__ import annotations

import random
from dataclasses import dataclass

from evalkit_tasks.miniatures.drawing import (
    COLOURS,
    GRID,
    SHAPES,
    SIDE,
    Box,
    LabelledBox,
    Pen,
    View,
    coordinates,
    pale,
    reserved,
)

PLACES = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape in a scene; `place` is the quarter of the image it lies in, where it lies in one."""

    shape: str
    colour: str
    box: Box
    place: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """Things no two of which share a shape or a colour, on a ground."""

    things: tuple[Thing, ...]
    ground: tuple[int, int, int]
    seed: int

    def view(self) -> View:
        """The image and its labels."""
        rng = random.Random(self.seed)
        pen = Pen((SIDE, SIDE), self.ground)
        pen.speckle(rng, (0, 0, SIDE, SIDE), 25)
        for thing in self.things:
            pen.shape(thing.shape, thing.box, COLOURS[thing.colour])
        regions = tuple(
            LabelledBox(t.box, {"kind": t.shape, "colour": t.colour, **coordinates(t.box)})
            for t in self.things
        )
        return View(pen.image, regions, {"things": str(len(self.things))})


def quartered(rng: random.Random, training: bool) -> Scene:
    """One to four things, each in a quarter of its own."""
    while True:
        count = rng.randint(1, 4)
        things = []
        for shape, colour, place in zip(
            rng.sample(SHAPES, count),
            rng.sample(sorted(COLOURS), count),
            rng.sample(PLACES, count),
            strict=True,
        ):
            x = (SIDE // 2 if "right" in place else 0) + GRID * rng.randint(0, 1)
            y = (SIDE // 2 if "bottom" in place else 0) + GRID * rng.randint(0, 1)
            things.append(Thing(shape, colour, (x, y, x + 3 * GRID, y + 3 * GRID), place))
        if reserved(sorted((t.shape, t.colour, t.box) for t in things)) != training:
            return Scene(tuple(things), pale(rng), rng.getrandbits(32))


def overhead(rng: random.Random, training: bool) -> Scene:
    """One to three things of several sizes anywhere on open ground, none touching another."""
    while True:
        count = rng.randint(1, 3)
        things: list[Thing] = []
        colours = [c for c in sorted(COLOURS) if c != "green"]
        for shape, colour in zip(rng.sample(SHAPES, count), rng.sample(colours, count), strict=True):
            box = _free_box(rng, [t.box for t in things])
            if box is not None:
                things.append(Thing(shape, colour, box))
        if reserved(sorted((t.shape, t.colour, t.box) for t in things)) != training:
            tone = rng.randint(-15, 15)
            ground = rng.choice(((170 + tone, 185 + tone, 130 + tone), (200 + tone, 180 + tone, 140 + tone)))
            return Scene(tuple(things), ground, rng.getrandbits(32))


def _free_box(rng: random.Random, taken: list[Box]) -> Box | None:
    for _ in range(20):
        side = GRID * rng.randint(2, 4)
        x, y = (GRID * rng.randint(0, (SIDE - side) // GRID) for _ in range(2))
        box = (x, y, x + side, y + side)
        if all(box[0] >= b[2] or b[0] >= box[2] or box[1] >= b[3] or b[1] >= box[3] for b in taken):
            return box
    return None
