"""A sample's images as one, with boxes and points of target and prediction drawn on it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalkit.errors import ImageError
from evalkit.store import open_reference
from evalkit.task import Region
from evalkit_leaderboard.theme import PREDICTION_COLOUR, TARGET_COLOUR

if TYPE_CHECKING:
    from PIL.Image import Image

#: Longest side in pixels of what is sent to the browser, and of one image among several.
LARGEST, LARGEST_OF_SEVERAL = 3200, 900
#: Images shown of a sample, and columns they are set in.
MOST, COLUMNS = 12, 3
#: Small images are enlarged to this width, so that lines drawn on them stay thin.
_SMALLEST = 640


@dataclass(frozen=True, slots=True)
class Sheet:
    """What there is to show: the image, its pixel size as stored, and what could not be opened."""

    image: Image | None
    sizes: tuple[tuple[int, int], ...]
    problems: tuple[str, ...]


def sheet(references: Sequence[str], regions: Sequence[Region]) -> Sheet:
    """Open the images, draw the regions, and set several side by side in rows of three."""
    opened: list[Image] = []
    sizes: list[tuple[int, int]] = []
    problems: list[str] = []
    longest = LARGEST if len(references) == 1 else LARGEST_OF_SEVERAL
    for place, reference in enumerate(references[:MOST]):
        try:
            image = open_reference(reference)
        except ImageError as error:
            problems.append(str(error))
            continue
        except (OSError, ValueError, MemoryError) as error:
            problems.append(f"{reference}: cannot be opened ({error})")
            continue
        sizes.append(image.size)
        mine = [region for region in regions if region.image == place]
        opened.append(_drawn(_fitted(image, longest), mine, 1.0 if len(references) == 1 else 2.2))
    if len(references) > MOST:
        problems.append(f"{len(references) - MOST} more images are not shown")
    return Sheet(_joined(opened), tuple(sizes), tuple(problems))


def _fitted(image: Image, longest: int) -> Image:
    from PIL import Image as pillow

    plain = image if image.mode == "RGB" else _plain(image)
    width, height = plain.size
    scale = min(longest / max(width, height), max(1.0, _SMALLEST / width))
    if scale == 1.0:
        return plain.copy()
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return plain.resize(size, pillow.Resampling.LANCZOS if scale < 1 else pillow.Resampling.NEAREST)


def _plain(image: Image) -> Image:
    """RGB; what is transparent becomes white."""
    from PIL import Image as pillow

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        ground = pillow.new("RGBA", layers.size, "white")
        return pillow.alpha_composite(ground, layers).convert("RGB")
    return image.convert("RGB")


def _drawn(image: Image, regions: Sequence[Region], strength: float) -> Image:
    from PIL import ImageDraw

    canvas = ImageDraw.Draw(image)
    width = max(4, round(strength * max(image.size) / 220))
    for region in regions:
        corners = _scaled(region, image.size)
        if corners is None:
            continue
        colour = TARGET_COLOUR if region.role == "target" else PREDICTION_COLOUR
        if len(corners) == 4:
            _box(canvas, corners, colour, width, dashed=region.role == "prediction")
        else:
            _point(canvas, (corners[0], corners[1]), colour, width, region.role == "prediction", region.label)
    return image


def _scaled(region: Region, size: tuple[int, int]) -> tuple[float, ...] | None:
    """Corners in the image's pixels; None for no numbers, or an image of another form."""
    width, height = region.size
    numbers = (*region.corners, width, height)
    if len(region.corners) not in (2, 4) or not all(math.isfinite(n) and abs(n) < 1e7 for n in numbers):
        return None
    if width <= 0 or height <= 0 or abs(math.log(width / height * size[1] / size[0])) > 0.05:
        return None
    scales = (size[0] / width, size[1] / height)
    return tuple(value * scales[place % 2] for place, value in enumerate(region.corners))


def _box(canvas: object, corners: tuple[float, ...], colour: str, width: int, dashed: bool) -> None:
    """A rectangle with a dark rim; the prediction's is dashed, so that colour is not needed to tell them."""
    from PIL.ImageDraw import ImageDraw

    assert isinstance(canvas, ImageDraw)
    left, right = sorted(corners[::2])
    top, bottom = sorted(corners[1::2])
    sides = (
        ((left, top), (right, top)),
        ((right, top), (right, bottom)),
        ((right, bottom), (left, bottom)),
        ((left, bottom), (left, top)),
    )
    for line_colour, thickness in (("#101010", width + 2), (colour, width)):
        for start, end in sides:
            pieces = _dashes(start, end, 5 * width) if dashed else [(start, end)]
            for piece in pieces:
                canvas.line(piece, fill=line_colour, width=thickness)


def _dashes(
    start: tuple[float, float], end: tuple[float, float], length: float
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    whole = math.dist(start, end)
    count = min(400, max(1, round(whole / (2 * length))))
    ends = [
        tuple(a + (b - a) * place / (2 * count) for a, b in zip(start, end, strict=True))
        for place in range(2 * count + 1)
    ]
    return [((ends[i][0], ends[i][1]), (ends[i + 1][0], ends[i + 1][1])) for i in range(0, 2 * count, 2)]


def _point(
    canvas: object, centre: tuple[float, float], colour: str, width: int, crossed: bool, label: str
) -> None:
    """A ring, the prediction's with a cross; its label beside it."""
    from PIL import ImageFont
    from PIL.ImageDraw import ImageDraw

    assert isinstance(canvas, ImageDraw)
    x, y = centre
    radius = 5.0 * width
    for line_colour, thickness in (("#101010", width + 2), (colour, width)):
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), outline=line_colour, width=thickness)
        if crossed:
            canvas.line(((x - radius, y), (x + radius, y)), fill=line_colour, width=thickness)
            canvas.line(((x, y - radius), (x, y + radius)), fill=line_colour, width=thickness)
    if label:
        font = ImageFont.load_default(size=8 * width)
        place = (x + radius * 1.3, y + (radius * 0.4 if crossed else -radius * 1.8))
        canvas.text(place, label[:12], fill=colour, font=font, stroke_width=2, stroke_fill="#101010")


def _joined(images: Sequence[Image]) -> Image | None:
    from PIL import Image as pillow

    if len(images) < 2:
        return images[0] if images else None
    columns = min(COLUMNS, len(images)) if len(images) != 4 else 2
    width, height = max(p.width for p in images), max(p.height for p in images)
    gap = 6
    rows = -(-len(images) // columns)
    whole = pillow.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "#808080")
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        whole.paste(image, (column * (width + gap), row * (height + gap)))
    return whole


def data_address(image: Image) -> str:
    """The image inside an address, as JPEG."""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"
