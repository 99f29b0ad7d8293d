"""Boxes in answers and how well they fit: two published parsers, two IoU conventions, cumulative IoU.

A box is (x1, y1, x2, y2) in pixels, x to the right and y down. Areas are signed as in the reference programs,
so an inverted box (x2 < x1) intersects nothing and its area may be negative.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np

from evalkit.contracts import Record
from evalkit.metrics.base import BoolArray, FloatArray, Metric, ratio

Box = tuple[float, float, float, float]


def bracketed(text: str) -> str | None:
    r"""The first hit of `\[*\[.*?,.*?,.*?,.*?\]\]*`, in time linear in the text.

    The lazy pattern takes, on the first line where it can, everything from the first `[` to the first `]`
    after the third comma, and the `]` that follow; regular expression engines need cubic time to fail.
    """
    for line in text.split("\n"):
        start = line.find("[")
        end = start
        for _ in range(3):
            end = line.find(",", end + 1) if end >= 0 else -1
        end = line.find("]", end + 1) if end >= 0 else -1
        if end >= 0:
            while end + 1 < len(line) and line[end + 1] == "]":
                end += 1
            return line[start : end + 1]
    return None


def double_bracketed_box(text: str, width: float, height: float) -> Box | None:
    """The box of an answer as rs_det/caculate.py reads it: `[[x1, y1, x2, y2]]`, thousandths of the image.

    The first bracketed hit must be a JSON list whose first element holds exactly four numbers; they are
    scaled to `width` x `height` pixels and clamped to the image. Single brackets, five numbers, two boxes
    in one list, text in place of numbers and NaN give None; fractions (0 to 1) are thousandths like all else.
    """
    found = bracketed(text)
    if found is None:
        return None
    try:
        x1, y1, x2, y2 = json.loads(found)[0]
        box = (
            min(max(x1 / 1000 * width, 0), width),
            min(max(y1 / 1000 * height, 0), height),
            min(max(x2 / 1000 * width, 0), width),
            min(max(y2 / 1000 * height, 0), height),
        )
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return None
    return None if any(math.isnan(value) for value in box) else box


def first_four_fields_box(text: str, width: float, height: float) -> Box | None:
    """The box of an answer as InternVL's RefCOCO script reads it: the first four comma fields in brackets.

    Single brackets and later boxes do no harm. Four numbers that sum to less than 4 are fractions of the
    image, others thousandths; nothing is clamped. Unreadable fields give None (the script scores the empty
    box (0, 0, 0, 0) instead, which no target meets).
    """
    found = bracketed(text)
    if found is None:
        return None
    try:
        values = [float(field) for field in found.lstrip("[").split("]", 1)[0].split(",", 3)]
    except ValueError:
        return None
    if len(values) != 4:
        return None
    scale = 1000 if sum(values) >= 4 else 1
    x1, y1, x2, y2 = (value / scale for value in values)
    box = (x1 * width, y1 * height, x2 * width, y2 * height)
    # The script's float32 areas overflow beyond this, which no target meets either.
    return box if all(abs(value) < 1e19 for value in box) else None


def overlap(one: Sequence[float], other: Sequence[float], *, pixel: float) -> tuple[float, float]:
    """Areas of intersection and union of two boxes.

    `pixel` is added to every width and height: 1 where coordinates name pixels inclusively
    (rs_det/caculate.py), 0 where they are edges (RefCOCO).
    """
    width = min(one[2], other[2]) - max(one[0], other[0]) + pixel
    height = min(one[3], other[3]) - max(one[1], other[1]) + pixel
    intersection = max(0.0, width) * max(0.0, height)
    union = _area(one, pixel) + _area(other, pixel) - intersection
    return intersection, union


def _area(box: Sequence[float], pixel: float) -> float:
    return (box[2] - box[0] + pixel) * (box[3] - box[1] + pixel)


def iou(intersection: float, union: float) -> float:
    """Intersection over union; 0 where the union is empty."""
    return intersection / union if union else 0.0


class CumulativeIoU(Metric):
    """100 x sum of intersections over sum of unions, from the scores `intersection` and `union`."""

    def selected(self, records: Sequence[Record]) -> BoolArray:
        """Records with both areas."""
        has = np.fromiter(("union" in r.scores for r in records), dtype=np.bool_, count=len(records))
        chosen: BoolArray = has & super().selected(records)
        return chosen

    def statistics(self, records: Sequence[Record]) -> FloatArray:
        """[intersection, union]."""
        return np.array(
            [
                (r.scores["intersection"], r.scores["union"]) if keep else (0.0, 0.0)
                for r, keep in zip(records, self.selected(records), strict=True)
            ],
            dtype=np.float64,
        ).reshape(len(records), 2)

    def value(self, sums: FloatArray) -> FloatArray:
        """100 * intersections / unions."""
        return 100.0 * ratio(sums[..., 0], sums[..., 1])
