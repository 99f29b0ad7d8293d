"""DriveLM's object tags: camera pixels in the data, 0 to 1000 of the stitched image in prompt and answer.

The data writes the centre of an object as `<c1,CAM_BACK,1088.3,497.5>`, in pixels of a 1600x900 camera
image. Mini-InternVL sees the six views in one image (drivelm_scene.py) and writes
`<c1,CAM_BACK,[560, 776]>`, in thousandths of that image (docs/tasks.md, DriveLM).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

#: Column and row of each view in the stitched image, in its order.
CAMERAS: Mapping[str, tuple[int, int]] = {
    "CAM_FRONT_LEFT": (0, 0),
    "CAM_FRONT": (1, 0),
    "CAM_FRONT_RIGHT": (2, 0),
    "CAM_BACK_LEFT": (0, 1),
    "CAM_BACK": (1, 1),
    "CAM_BACK_RIGHT": (2, 1),
}
#: Width and height in pixels of a camera image, of a view in the stitched image, and of the latter.
CAMERA_SIZE = (1600, 900)
VIEW_SIZE = (896, 448)
STITCHED_SIZE = (3 * VIEW_SIZE[0], 2 * VIEW_SIZE[1])

_PIXEL_TAG = re.compile(r"<(c[^<>,]*),\s*(CAM_[A-Z_]+)\s*,\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*>")
_NUMBER = r"\s*-?(?:[0-9]*\.)?[0-9]+\s*"
#: End of a tag in an answer, behind its second comma.
_BRACKET = re.compile(rf"\s*\[{_NUMBER},{_NUMBER}\]\s*>")


def to_stitched(camera: str, x: float, y: float) -> tuple[float, float]:
    """A point of a camera image (pixels) in thousandths of the stitched image.

    Raises:
        KeyError: not one of the six cameras.
    """
    column, row = CAMERAS[camera]
    left, top = column * VIEW_SIZE[0], row * VIEW_SIZE[1]
    return (
        1000 * (left + x * VIEW_SIZE[0] / CAMERA_SIZE[0]) / STITCHED_SIZE[0],
        1000 * (top + y * VIEW_SIZE[1] / CAMERA_SIZE[1]) / STITCHED_SIZE[1],
    )


def to_camera(camera: str, x: float, y: float) -> tuple[float, float]:
    """A point of the stitched image (thousandths) in pixels of a camera image.

    Clamped to the camera image and rounded to one decimal. A clamped value is an int, and so prints
    without a decimal point, which takes it out of sight of the challenge's scorer: kept as it is there.

    Raises:
        KeyError: not one of the six cameras. OverflowError: an integer beyond any float.
    """
    column, row = CAMERAS[camera]
    across = x / 1000 * STITCHED_SIZE[0] - column * VIEW_SIZE[0]
    down = y / 1000 * STITCHED_SIZE[1] - row * VIEW_SIZE[1]
    width, height = CAMERA_SIZE
    # The int comes first in both calls: on a tie (exactly 0.0 or 1600.0) the int is returned.
    return (
        round(max(0, min(width, across / VIEW_SIZE[0] * width)), 1),
        round(max(0, min(height, down / VIEW_SIZE[1] * height)), 1),
    )


def pixel_tags(text: str) -> Iterator[tuple[str, str, float, float]]:
    """Name, camera and centre (camera pixels) of every tag of one of the six cameras."""
    for name, camera, x, y in _PIXEL_TAG.findall(text):
        if camera in CAMERAS:
            yield name, camera, float(x), float(y)


def encode_tags(text: str) -> str:
    """Tags of camera pixels in thousandths of the stitched image, as whole numbers in brackets.

    A tag of a camera that is not one of the six stays as it is.
    """

    def encode(match: re.Match[str]) -> str:
        name, camera, x, y = match.groups()
        if camera not in CAMERAS:
            return match.group()
        across, down = to_stitched(camera, float(x), float(y))
        return f"<{name},{camera},[{round(across)}, {round(down)}]>"

    return _PIXEL_TAG.sub(encode, text)


def decode_tags(text: str) -> str:
    """Bracketed tags of an answer back in camera pixels: `<c1,CAM_FRONT,[500, 250]>` to
    `<c1,CAM_FRONT,800.0,450.0>`.

    Everything else stays as it is: tags without brackets, of another camera, with a space before the camera's
    name, or with a number that JSON does not know (`.5`, `007`).
    """
    spans = list(_bracketed(text))
    if any(text.find("<c", start + 2, end) >= 0 for start, end in spans):
        # A tag within another: the original replaces each tag wherever its text stands, one after the other.
        for tag in [text[start:end] for start, end in spans]:
            text = text.replace(tag, _decoded(tag))
        return text
    pieces, done = [], 0
    for start, end in spans:
        pieces += [text[done:start], _decoded(text[start:end])]
        done = end
    return "".join([*pieces, text[done:]])


def _bracketed(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of what InternVL's evaluation takes for a tag, in one pass over the text.

    Loose up to the second comma (`<c`, anything, a comma, anything, a comma), strict behind it; found from
    the left, without overlap.
    """
    start, commas = text.find("<c"), (-1, -1)
    while start >= 0:
        if commas[0] < start:
            first = text.find(",", start)
            commas = (first, text.find(",", first + 1))
            if min(commas) < 0:
                return
            bracket = _BRACKET.match(text, commas[1] + 1)
        if bracket is None:
            start = text.find("<c", start + 2)
        else:
            yield start, bracket.end()
            start = text.find("<c", bracket.end())


def _decoded(tag: str) -> str:
    name, camera, *numbers = tag.replace("<", "").replace(">", "").split(",")
    if camera not in CAMERAS:
        return tag
    try:
        x, y = to_camera(camera, *json.loads(",".join(numbers)))
    except (ValueError, OverflowError):
        return tag
    return f"<{name},{camera},{x},{y}>"


def encode_box(camera: str, box: Sequence[float]) -> str:
    """A box of a camera image (x1, y1, x2, y2 in pixels) as `<box>[[x1, y1, x2, y2]]</box>` of the stitched
    image, whole thousandths.

    Raises:
        KeyError: not one of the six cameras. ValueError: not four numbers.
    """
    left, top, right, bottom = box
    corners = (*to_stitched(camera, left, top), *to_stitched(camera, right, bottom))
    return f"<box>[[{', '.join(str(round(corner)) for corner in corners)}]]</box>"
