"""Images of a sample cropped, mirrored, recoloured and compressed at random, boxes in its text moved along.

What is drawn is a function of seed, epoch and sample, so a training that is continued draws the same. A
changed sample has the length that its pack was planned with.
"""

from __future__ import annotations

import io
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageEnhance, ImageOps

from mini_internvl.images import open_image
from mini_internvl_train.conversations import Conversation, Turn
from mini_internvl_train.encoding import Encoded
from mini_internvl_train.recipe import Augment
from mini_internvl_train.sample_images import upright_size

Box = tuple[float, float, float, float]
TRIES = 8
"""Crops that are drawn until the moved boxes are as long as before."""
SCALE = 1000
"""Boxes count from 0 to this along each side of the whole image."""

_BOXES = re.compile(r"(<box>)(.*?)(</box>)", re.DOTALL)
_BOX = re.compile(r"\[\s*\d+(?:\s*,\s*\d+){3}\s*\]")
#: Places that are written otherwise than as boxes.
_PLACES = re.compile(r"<quad>|<point>|<c\d+\s*,|[\[({]\s*<?-?[\d.]+>?(?:\s*[,><]\s*<?-?[\d.]+>?)+\s*[\])}]")
_SIDES = re.compile(
    r"(?<![a-z])(?:left|right|(?:north|south)?-?(?:east|west))|clockwise|o'clock|[左右]|[东西][方边侧部南北]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ImageChange:
    """What is done to each image of a sample, in this order.

    Attributes:
        crop: left, top, right and bottom of what is kept, as shares of the sides; None keeps all.
        flip: whether it is mirrored.
        colour: factors of brightness, contrast and saturation; None leaves them.
        quality: of a JPEG re-encoding; None leaves the pixels.
    """

    crop: Box | None = None
    flip: bool = False
    colour: tuple[float, float, float] | None = None
    quality: int | None = None

    def of(self, image: Image.Image) -> Image.Image:
        """The changed image."""
        if self.crop is not None:
            image = image.crop(_pixels(self.crop, image.size))
        if self.flip:
            image = ImageOps.mirror(image)
        if self.colour is not None:
            kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
            for kind, factor in zip(kinds, self.colour, strict=True):
                image = kind(image).enhance(factor)
        if self.quality is not None:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=self.quality)
            image = open_image(buffer.getvalue())
        return image


UNCHANGED = ImageChange()


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Draws changes.

    Attributes:
        settings: how large they are. seed: of the training. max_pixels: of an image.
    """

    settings: Augment
    seed: int
    max_pixels: int

    def kept(self, conversation: Conversation) -> list[str]:
        """Which of the changes asked for a sample never gets, and why."""
        if conversation.as_is or not (conversation.images or conversation.video):
            return []
        may_flip, may_crop = _may(conversation)
        found = []
        if self.settings.flip and not may_flip:
            found.append("not mirrored: they hold boxes, coordinates, or words such as left")
        if self.settings.crop and not may_crop:
            found.append("not cropped: they hold coordinates that cannot be moved along")
        return found

    def draw(
        self,
        conversation: Conversation,
        encoded: Encoded,
        epoch: int,
        encode: Callable[[Conversation], Encoded],
    ) -> tuple[Conversation, Encoded, ImageChange]:
        """A sample as it is learned from in an epoch.

        Args:
            conversation, encoded: of the sample. encode: gives ids of a changed text.
        """
        draw = random.Random(f"{self.seed}/{epoch}/{conversation.id}")
        change = ImageChange(quality=draw.randint(75, 100) if conversation.augment else None)
        settings = self.settings
        if conversation.as_is or not (conversation.images or conversation.video) or not settings.changes:
            return conversation, encoded, change
        may_flip, may_crop = _may(conversation)
        flip = draw.random() < settings.flip
        low, high = 1 - settings.colour, 1 + settings.colour
        colour = (draw.uniform(low, high), draw.uniform(low, high), draw.uniform(low, high))
        change = replace(
            change,
            flip=flip and may_flip,
            colour=colour if settings.colour else None,
        )
        if not settings.crop or not may_crop:
            return conversation, encoded, change
        boxes = [box for turn in conversation.turns for box in boxes_of(turn.text)]
        if not boxes:
            return conversation, encoded, replace(change, crop=_draw_crop(draw, settings.crop, ()))
        size = upright_size(conversation.images[0], conversation.where, self.max_pixels)
        for _ in range(TRIES):
            crop = _whole_pixels(_draw_crop(draw, settings.crop, boxes), size)
            turns = tuple(Turn(turn.role, moved(turn.text, crop)) for turn in conversation.turns)
            other = replace(conversation, turns=turns)
            again = encode(other)
            if (len(again.input_ids), again.trained) == (len(encoded.input_ids), encoded.trained):
                return other, again, replace(change, crop=crop)
        return conversation, encoded, change


def _may(conversation: Conversation) -> tuple[bool, bool]:
    """Whether its text stays true of mirrored images, and can be made true of cropped ones."""
    text = " ".join(turn.text for turn in conversation.turns)
    boxes, rest = "<box>" in text, _BOXES.sub("", text)
    places = _PLACES.search(rest) is not None
    may_flip = not (boxes or places or _SIDES.search(rest))
    return may_flip, not (places or (boxes and not _can_move(conversation)))


def boxes_of(text: str) -> list[Box]:
    """The boxes of a text, from 0 to 1000."""
    found = []
    for _, inside, _ in _BOXES.findall(text):
        for box in _BOX.findall(inside):
            left, top, right, bottom = (float(number) for number in re.findall(r"\d+", box))
            found.append((left, top, right, bottom))
    return found


def moved(text: str, crop: Box) -> str:
    """A text whose boxes are those of the cropped image."""
    origin, sides = crop[:2], (crop[2] - crop[0], crop[3] - crop[1])

    def box(match: re.Match[str]) -> str:
        places = iter((0, 1, 0, 1))

        def number(found: re.Match[str]) -> str:
            axis = next(places)
            place = (int(found[0]) / SCALE - origin[axis]) / sides[axis]
            return str(min(SCALE, max(0, round(place * SCALE))))

        return re.sub(r"\d+", number, match[0])

    return _BOXES.sub(lambda match: match[1] + _BOX.sub(box, match[2]) + match[3], text)


def _can_move(conversation: Conversation) -> bool:
    """Whether all boxes are of one image, and four whole numbers each."""
    texts = [inside for turn in conversation.turns for _, inside, _ in _BOXES.findall(turn.text)]
    odd = any(re.search(r"\d", _BOX.sub("", inside)) for inside in texts)
    boxes = [box for turn in conversation.turns for box in boxes_of(turn.text)]
    sound = all(0 <= a <= c <= SCALE and 0 <= b <= d <= SCALE for a, b, c, d in boxes)
    return len(conversation.images) == 1 and sound and not odd


def _draw_crop(draw: random.Random, most: float, boxes: Sequence[Box]) -> Box:
    """A part of the image of its own shape that holds all boxes; at most `most` of each side is cut off."""
    least, spans = 1 - most, [(1.0, 0.0), (1.0, 0.0)]
    for axis in (0, 1):
        if boxes:
            first = min(box[axis] for box in boxes) / SCALE
            spans[axis] = (first, max(box[axis + 2] for box in boxes) / SCALE)
            least = max(least, spans[axis][1] - first)
    side = draw.uniform(least, 1)
    left, top = (draw.uniform(max(0.0, last - side), min(first, 1 - side)) for first, last in spans)
    return left, top, left + side, top + side


def _pixels(crop: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    width, height = size
    left, top = round(crop[0] * width), round(crop[1] * height)
    return left, top, max(left + 1, round(crop[2] * width)), max(top + 1, round(crop[3] * height))


def _whole_pixels(crop: Box, size: tuple[int, int]) -> Box:
    """The crop widened to whole pixels, so that its boxes move by what is really cut off."""
    width, height = size
    left, top = math.floor(crop[0] * width), math.floor(crop[1] * height)
    right, bottom = min(width, math.ceil(crop[2] * width)), min(height, math.ceil(crop[3] * height))
    return left / width, top / height, right / width, bottom / height
