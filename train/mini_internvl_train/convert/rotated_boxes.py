"""Rotated boxes of remote sensing data, in percent of the image, as InternVL's upright ones.

GeoChat writes `{<x1><y1><x2><y2>|<angle>}`: corners before the rotation about the middle, in degrees. FIT-RS
writes `<rbox>({<cx><cy><w><h>|<angle>})</rbox>`: middle and sides. InternVL's boxes are upright, so each
becomes the smallest upright box that holds it, in thousandths. The images are square, as both sets' are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

_N = r"<\s*(-?\d+(?:\.\d+)?)\s*>"
_BOX = rf"\{{{_N}{_N}{_N}{_N}(?:\|{_N})?\}}"
_CORNERS = re.compile(rf"{_BOX}(?:\s*(?:<delim>)?\s*{_BOX})*")
_MIDDLES = re.compile(rf"<rbox>\s*\(?\s*({_BOX}(?:\s*,?\s*{_BOX})*)\s*\)?\s*</rbox>")
_ONE = re.compile(_BOX)

Rectangle = tuple[float, float, float, float]
"""Middle and sides, in percent."""


def upright_corners(text: str) -> str:
    """A text of GeoChat with its boxes as InternVL writes them, and `<p>` as `<ref>`."""
    rewritten = _CORNERS.sub(lambda found: _boxes(found.group(), _of_corners), text)
    return rewritten.replace("<p>", "<ref>").replace("</p> <box>", "</ref><box>").replace("</p>", "</ref>")


def upright_middles(text: str) -> str:
    """A text of FIT-RS with its boxes as InternVL writes them, and `<ref>` where it marks a name."""
    rewritten = _MIDDLES.sub(lambda found: _boxes(found.group(), lambda *sides: sides), text)
    return rewritten.replace("<ref> ", "<ref>").replace(" </ref>", "</ref>")


def has_rotated(text: str) -> bool:
    """Whether a rotated box is left."""
    return bool(_ONE.search(text)) or "<rbox>" in text


def _of_corners(x1: float, y1: float, x2: float, y2: float) -> Rectangle:
    return (x1 + x2) / 2, (y1 + y2) / 2, abs(x2 - x1), abs(y2 - y1)


def _boxes(text: str, rectangle: Callable[[float, float, float, float], Rectangle]) -> str:
    """`<box>[[x1, y1, x2, y2], …]</box>` of all boxes in a text."""
    found = []
    for *sides, angle in _ONE.findall(text):
        a, b, c, d = map(float, sides)
        found.append(_upright(rectangle(a, b, c, d), float(angle or 0.0)))
    return f"<box>[{', '.join(found)}]</box>"


def _upright(rectangle: Rectangle, degrees: float) -> str:
    x, y, width, height = rectangle
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    across, down = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    edges = (x - across, y - down, x + across, y + down)
    return f"[{', '.join(str(min(1000, max(0, round(10 * edge)))) for edge in edges)}]"
