"""Six-camera scenes with one or two large objects: the world of the DriveLM miniature.

Objects are drawn in units of a 128 x 128 tile; a camera's image is two tiles wide. Centres are given in
pixels of the 1600 x 900 camera image, as in DriveLM's c-tags.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from evalkit_tasks.miniatures.drawing import (
    COLOURS,
    SIDE,
    Box,
    LabelledBox,
    Pen,
    View,
    coordinates,
    font,
    reserved,
)

#: In the order of the stitched image: three in front, three behind.
CAMERAS = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)
WIDTH, HEIGHT = 1600, 900
STATUSES = ("Going ahead.", "Stopped.", "Turn left.", "Turn right.")
KINDS = ("car", "truck", "barrier")
BEHAVIOURS: Mapping[str, str] = {
    "CAM_FRONT": "The ego vehicle is going straight. The ego vehicle is driving slowly.",
    "CAM_FRONT_LEFT": "The ego vehicle is slightly steering to the right. The ego vehicle is driving slowly.",
    "CAM_FRONT_RIGHT": "The ego vehicle is slightly steering to the left. The ego vehicle is driving slowly.",
    "": "The ego vehicle is going straight. The ego vehicle is driving fast.",
}
#: What is said of an object of each status (none: a barrier), and what the ego vehicle should do.
STATES: Mapping[str, tuple[str, str]] = {
    "Going ahead.": ("going ahead", "keep going at the same speed"),
    "Stopped.": ("stopped", "brake suddenly"),
    "Turn left.": ("turning left", "slow down"),
    "Turn right.": ("turning right", "slow down"),
    "": ("not moving", "keep clear of it"),
}
_COLOURS = ("red", "green", "blue", "yellow", "black")
_RED, _AMBER = (255, 30, 30), (255, 165, 0)


@dataclass(frozen=True, slots=True)
class Object:
    """A vehicle or barrier in one camera.

    Attributes:
        centre: x and y in pixels of the camera's image.
        status: one of `STATUSES`, empty for a barrier.
    """

    camera: str
    kind: str
    colour: str
    status: str
    centre: tuple[float, float]

    def tag(self, number: int) -> str:
        """The c-tag."""
        return f"<c{number},{self.camera},{self.centre[0]:.1f},{self.centre[1]:.1f}>"

    def units(self) -> Box:
        """The box in drawing units of the camera's image (256 x 128)."""
        x, y = self.centre[0] * 2 * SIDE / WIDTH, self.centre[1] * SIDE / HEIGHT
        return (x - 32, y - 32, x + 32, y + 32)

    def draw(self, pen: Pen) -> None:
        """Body, windows and lamps; amber on the side to which it turns, red where it stands."""
        x1, y1, x2, y2 = self.units()
        fill = COLOURS[self.colour]
        if self.kind == "barrier":
            for i in range(4):
                shade = fill if i % 2 == 0 else (245, 245, 245)
                pen.rectangle((x1 + 16 * i, y1 + 16, x1 + 16 * i + 16, y2 - 8), shade)
            return
        pen.ellipse((x1 + 6, y2 - 14, x1 + 22, y2), (10, 10, 10))
        pen.ellipse((x2 - 22, y2 - 14, x2 - 6, y2), (10, 10, 10))
        if self.kind == "truck":
            pen.rectangle((x1, y1, x2, y2 - 8), fill)
            pen.rectangle((x1 + 6, y1 + 5, x2 - 6, y1 + 26), (225, 225, 225))
        else:
            pen.polygon((x1, y1 + 10, x2, y2 - 8), _CAR, fill)
            pen.rectangle((x1 + 18, y1 + 15, x2 - 18, y1 + 27), (200, 230, 250))
        left = {"Stopped.": _RED, "Turn left.": _AMBER}.get(self.status)
        right = {"Stopped.": _RED, "Turn right.": _AMBER}.get(self.status)
        for lamp, x in ((left, x1), (right, x2 - 16)):
            if lamp:
                pen.rectangle((x - 1, y1 + 31, x + 17, y1 + 49), (250, 250, 250))
                pen.rectangle((x, y1 + 32, x + 16, y1 + 48), lamp)


_CAR = ((0.25, 0.0), (0.75, 0.0), (0.8, 0.4), (1.0, 0.45), (1.0, 1.0), (0.0, 1.0), (0.0, 0.45), (0.2, 0.4))


@dataclass(frozen=True, slots=True)
class Frame:
    """Objects c1, c2, in cameras of their own; the first is a vehicle."""

    objects: tuple[Object, ...]
    sky: int
    seed: int

    @property
    def behaviour(self) -> str:
        """What the ego vehicle does: it gives way to the first of the objects in front of it."""
        front = next(
            (c for c in CAMERAS[1::-1] + CAMERAS[2:3] if any(o.camera == c for o in self.objects)), ""
        )
        return BEHAVIOURS[front]

    @property
    def detection(self) -> str:
        """The answer about the important objects, without coordinates of its own: tags are filled in."""
        parts = [f"a {o.colour} {o.kind} {whereabouts(o.camera)}" for o in self.objects]
        tags = [o.tag(i) for i, o in enumerate(self.objects, 1)]
        return f"There is {_join(parts)}. The IDs of these objects are {_join(tags)}."

    @property
    def attention(self) -> str:
        """The answer about what to notice, in the wording of the benchmark's own answers."""
        lines = []
        for number, (word, o) in enumerate(zip(("Firstly", "Secondly"), self.objects, strict=False), 1):
            state, action = STATES[o.status]
            lines.append(
                f"{word} notice {o.tag(number)}. The object is {state}, so the ego vehicle should {action}."
            )
        return " ".join(lines)

    @property
    def plan(self) -> str:
        """What to do about the first object."""
        _, action = STATES[self.objects[0].status]
        reason = "The reason is to follow the traffic rules, which has a high probability."
        return f"The action is to {action}. {reason}"

    @property
    def danger(self) -> str:
        """What would lead to a collision with the first object."""
        ahead = "Accelerating and going straight" if "FRONT" in self.objects[0].camera else "Backing up"
        return f"{ahead} can lead to a collision."

    @property
    def safe(self) -> str:
        """What is safe."""
        slow = any("FRONT" in o.camera for o in self.objects)
        return "Slow down gradually without braking." if slow else "Keep going at the same speed."

    def camera(self, name: str, size: tuple[int, int]) -> Pen:
        """One camera's image of a given size in pixels."""
        rng = random.Random(f"{self.seed}/{name}")
        pen = Pen(size, (self.sky - 30, self.sky - 10, self.sky), (0, 0, 2 * SIDE, SIDE))
        road = (125 + rng.randint(-10, 10),) * 3
        pen.rectangle((0, 70, 2 * SIDE, SIDE), road)
        pen.speckle(rng, (0, 72, 2 * SIDE, SIDE), 20)
        for o in self.objects:
            if o.camera == name:
                o.draw(pen)
        return pen

    def titled(self, name: str) -> Image.Image:
        """One camera's image as two of the model's tiles show it, with the name that stitching writes."""
        pen = self.camera(name, (4 * SIDE, 2 * SIDE))
        pen.draw.text((0, 0), name, fill=(255, 0, 255), font=font(28))
        return pen.image.resize((2 * SIDE, SIDE), Image.Resampling.BICUBIC)

    def regions(self, camera: str, half: int) -> tuple[LabelledBox, ...]:
        """What can be seen in the left (0) or right (1) tile of a camera's image."""
        found = []
        for o in self.objects:
            x1, y1, x2, y2 = o.units()
            if o.camera == camera and half == int(x1 >= SIDE):
                box = (x1 - half * SIDE, y1, x2 - half * SIDE, y2)
                labels = {"kind": o.kind, "colour": o.colour, **coordinates(box)}
                found.append(LabelledBox(box, labels | ({"status": o.status} if o.status else {})))
        return tuple(found)

    def views(self) -> list[View]:
        """The twelve tiles of the stitched image, row by row, and its thumbnail, as the model sees them."""
        mosaic = Image.new("RGB", (6 * SIDE, 2 * SIDE))
        for place, name in enumerate(CAMERAS):
            mosaic.paste(self.titled(name), (place % 3 * 2 * SIDE, place // 3 * SIDE))
        views = []
        for row in range(2):
            for column in range(6):
                box = (column * SIDE, row * SIDE, column * SIDE + SIDE, row * SIDE + SIDE)
                name = CAMERAS[row * 3 + column // 2]
                views.append(View(mosaic.crop(box), self.regions(name, column % 2)))
        views.append(View(mosaic.resize((SIDE, SIDE), Image.Resampling.BICUBIC), ()))
        return views


def whereabouts(camera: str) -> str:
    """`to the front left of the ego vehicle` and so on."""
    words = camera.removeprefix("CAM_").replace("_", " ").lower()
    return f"to the {words} of the ego vehicle"


def frame(rng: random.Random, training: bool) -> Frame:
    """A frame that is or is not kept for the miniature."""
    while True:
        count = rng.randint(1, 2)
        objects = []
        colours = rng.sample(_COLOURS, count)
        for number, camera in enumerate(_cameras(rng, count)):
            kind = rng.choice(KINDS[:2] if number == 0 else KINDS)
            if number and rng.random() < 0.4:
                kind = "barrier"
            status = "" if kind == "barrier" else rng.choice(STATUSES)
            x = rng.choice((300.0, 500.0)) + rng.choice((0.0, 800.0))
            y = rng.choice((450.0, 562.5))
            objects.append(Object(camera, kind, colours[number], status, (x, y)))
        if reserved(objects) != training:
            return Frame(tuple(objects), rng.randint(205, 245), rng.getrandbits(32))


def _cameras(rng: random.Random, count: int) -> list[str]:
    """Distinct cameras, chosen so that the four behaviours come equally often."""
    front = rng.choice(("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", ""))
    behind = rng.sample(CAMERAS[3:], count)
    if front:
        behind[rng.randrange(count)] = front
    return behind


def _join(parts: list[str]) -> str:
    return " and ".join(parts)
