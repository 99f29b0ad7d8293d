"""Clips of a car seen from above, four frames each: the world of the BDD-X miniature."""

from __future__ import annotations

import random
from dataclasses import dataclass

from evalkit_tasks.miniatures.drawing import SIDE, LabelledBox, Pen, View, coordinates, reserved

FRAMES = 4
CAR = 32
SPEEDS = (0, 5, 10)
ANGLES = (-20, 0, 20)
REASONS = ("red light", "green light", "truck", "clear")

_SENTENCES = {
    "red light": "because the traffic light is red.",
    "green light": "because the traffic light is green.",
    "truck": "because there is a truck on the side.",
    "clear": "because the road is clear.",
}


@dataclass(frozen=True, slots=True)
class Clip:
    """A car that starts at `start` and moves by the same step in every frame.

    Attributes:
        speed: metres per second, one of `SPEEDS`. angle: degrees, positive to the right, one of `ANGLES`.
        reason: what stands beside the road, one of `REASONS`.
        start: left and top edge of the car in the first frame, pixels.
        tone: shade of the road. seed: of its speckles.
    """

    speed: int
    angle: int
    reason: str
    start: tuple[int, int]
    tone: int
    seed: int

    @property
    def action(self) -> str:
        """The description."""
        if not self.speed:
            return "The car is stopped."
        pace = "slowly" if self.speed == SPEEDS[1] else "fast"
        way = {-20: "turns left", 0: "drives forward", 20: "turns right"}[self.angle]
        return f"The car {way} {pace}."

    @property
    def justification(self) -> str:
        """Why."""
        return _SENTENCES[self.reason]

    def box(self, frame: int) -> tuple[float, float, float, float]:
        """Where the car is in a frame (from 0)."""
        x = self.start[0] + frame * (self.angle // 20) * 16
        y = self.start[1] - frame * self.speed * 16 // 5
        return (x, y, x + CAR, y + CAR)

    def views(self) -> list[View]:
        """The frames and their labels."""
        return [self._frame(i) for i in range(FRAMES)]

    def _frame(self, index: int) -> View:
        rng = random.Random(self.seed + index)
        pen = Pen((SIDE, SIDE), (150 + self.tone,) * 3)
        pen.speckle(rng, (0, 0, SIDE, SIDE), 20)
        box = self.box(index)
        x1, y1, x2, y2 = box
        pen.rectangle((x1 + 2, y1, x2 - 2, y2), (35, 75, 215))
        pen.rectangle((x1 + 6, y1 + 6, x2 - 6, y1 + 13), (210, 235, 250))
        regions = [LabelledBox(box, {"kind": "ego", "colour": "blue", **coordinates(box)})]
        place = (96, 96, 128, 128)
        if "light" in self.reason:
            pen.rectangle(place, (40, 40, 40))
            colour = (230, 30, 30) if self.reason == "red light" else (40, 220, 70)
            pen.ellipse((100, 100, 124, 124), colour)
        elif self.reason == "truck":
            pen.rectangle((96, 96, 128, 128), (240, 205, 30))
            pen.rectangle((100, 100, 124, 108), (30, 30, 30))
        if self.reason != "clear":
            regions.append(LabelledBox(place, {"kind": f"sign: {self.reason}", **coordinates(place)}))
        return View(pen.image, tuple(regions), {"reason": self.reason})


def clip(rng: random.Random, training: bool) -> Clip:
    """A clip that is or is not kept for the miniature."""
    while True:
        speed = rng.choice((0, 5, 5, 10, 10))
        angle = rng.choice(ANGLES) if speed else 0
        reason = rng.choice(REASONS)
        bottom = {0: 96, 5: 96, 10: 96}[speed]
        top = {0: 16, 5: 48, 10: 96}[speed]
        start = (48, rng.randrange(top, bottom + 1, 8))
        tone, seed = rng.randint(-40, 40), rng.getrandbits(32)
        if reserved((speed, angle, reason, start, tone)) != training:
            return Clip(speed, angle, reason, start, tone, seed)
