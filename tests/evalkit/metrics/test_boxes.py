"""Boxes: the reference programs' formulas written out here, over chosen and drawn answers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Record
from evalkit.metrics.boxes import (
    CumulativeIoU,
    bracketed,
    double_bracketed_box,
    first_four_fields_box,
    iou,
    overlap,
)

PATTERN = r"\[*\[.*?,.*?,.*?,.*?\]\]*"
FIELDS = r"\[*\[(.*?),(.*?),(.*?),(.*?)\]\]*"


def caculate(text: str, target: list[float], size: tuple[float, float]) -> float | None:
    """IoU as rs_det/caculate.py takes it; None where it counts an answer as incorrect without one."""
    matches = re.findall(PATTERN, text)
    if not matches:
        return None
    try:
        x1, y1, x2, y2 = json.loads(matches[0])[0]
        w, h = size
        x1, x2 = min(max(x1 / 1000 * w, 0), w), min(max(x2 / 1000 * w, 0), w)
        y1, y2 = min(max(y1 / 1000 * h, 0), h), min(max(y2 / 1000 * h, 0), h)
        x3, y3, x4, y4 = target
        inner = max(0, min(x2, x4) - max(x1, x3) + 1) * max(0, min(y2, y4) - max(y1, y3) + 1)
        areas = (x2 - x1 + 1) * (y2 - y1 + 1) + (x4 - x3 + 1) * (y4 - y3 + 1)
        value = inner / (areas - inner)
    except Exception:
        return None
    return None if value != value else float(value)


def refcoco(text: str, target: list[float], size: tuple[float, float]) -> float:
    """IoU as InternVL's RefCOCO script takes it (in float64)."""
    found = re.findall(FIELDS, text)
    try:
        box = [float(field) for field in found[0][:4]]
    except Exception:
        box = [0.0, 0.0, 0.0, 0.0]
    if sum(box) >= 4:
        box = [value / 1000 for value in box]
    x1, y1, x2, y2 = box[0] * size[0], box[1] * size[1], box[2] * size[0], box[3] * size[1]
    x3, y3, x4, y4 = target
    inner = max(0.0, min(x2, x4) - max(x1, x3)) * max(0.0, min(y2, y4) - max(y1, y3))
    union = (x2 - x1) * (y2 - y1) + (x4 - x3) * (y4 - y3) - inner
    value = inner / union if union and inner == inner else 0.0
    return 0.0 if value != value else value  # NaN is never 0.5 or more


def ours(text: str, target: list[float], size: tuple[float, float], protocol: str) -> float:
    read, pixel = (double_bracketed_box, 1.0) if protocol == "paper" else (first_four_fields_box, 0.0)
    box = read(text, *size)
    return 0.0 if box is None else iou(*overlap(box, target, pixel=pixel))


NUMBERS = st.one_of(
    st.integers(-50, 1200).map(str),
    st.floats(-10, 1100, allow_nan=False).map(lambda value: f"{value:.3f}"),
    st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "1e999", "true", '"12"', "", "nan", " 7 ", "1_0", "null"]
    ),
)
BOXES = st.builds(
    lambda opening, values, closing, tail: opening + ", ".join(values) + closing + tail,
    st.sampled_from(["[[", "[", "[[[", "<box>[[", "box: [["]),
    st.lists(NUMBERS, min_size=0, max_size=6),
    st.sampled_from(["]]", "]", "]]]", "]]</box>", "], [1, 2, 3, 4]]", ""]),
    st.sampled_from(["", " and [[10, 20, 30, 40]]", "\n[[10, 20, 30, 40]]"]),
)
TARGETS = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(1, 400), st.integers(1, 400)).map(
    lambda t: [float(t[0]), float(t[1]), float(t[0] + t[2]), float(t[1] + t[3])]
)


@given(st.text(alphabet="[],1 a\n", max_size=40))
@settings(max_examples=300, deadline=None)
def test_bracketed_is_the_pattern(text: str) -> None:
    assert bracketed(text) == next(iter(re.findall(PATTERN, text)), None)


@given(BOXES, TARGETS)
@settings(max_examples=150, deadline=None)
def test_paper_iou_equals_caculate(text: str, target: list[float]) -> None:
    expected = caculate(text, target, (800.0, 600.0)) or 0.0
    assert ours(text, target, (800.0, 600.0), "paper") == pytest.approx(expected, abs=1e-9)


@given(BOXES, TARGETS)
@settings(max_examples=150, deadline=None)
def test_refcoco_iou_equals_the_script(text: str, target: list[float]) -> None:
    expected = refcoco(text, target, (800.0, 600.0))
    assert ours(text, target, (800.0, 600.0), "refcoco") == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[[125,125,375,375]]", (100, 100, 300, 300)),
        ("<ref>a ship</ref><box>[[125, 125, 375, 375]]</box>", (100, 100, 300, 300)),
        ("[[125,125,375,375]] and [[1,2,3,4]]", (100, 100, 300, 300)),
        ("[[-5,125,375,2000]]", (0, 100, 300, 800)),
        ("[[0.125,0.125,0.375,0.375]]", (0.1, 0.1, 0.3, 0.3)),
        ("[[0, 0, Infinity, Infinity]]", (0, 0, 800, 800)),
        ("[125,125,375,375]", None),
        ("[[125,125,375,375,9]]", None),
        ("[[125,125,375]]", None),
        ("[[125,125,375,375],[1,2,3,4]]", None),
        ("[[[125,125,375,375]]]", None),
        ("[[NaN,125,375,375]]", None),
        ('[["a",125,375,375]]', None),
        ("[[125,125,\n375,375]]", None),
        ("125,125,375,375", None),
        ("", None),
    ],
)
def test_double_bracketed_box(text: str, box: Any) -> None:
    found = double_bracketed_box(text, 800, 800)
    assert found == (None if box is None else pytest.approx(box))


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[125,125,375,375]", (100, 100, 300, 300)),
        ("[[125,125,375,375],[1,2,3,4]]", (100, 100, 300, 300)),
        ("[[0.125,0.125,0.375,0.375]]", (100, 100, 300, 300)),
        ("[[125,125,375,2000]]", (100, 100, 300, 1600)),
        ("[[125,125,375,375,9]]", None),
        ("[[nan,125,375,375]]", None),
        ("[[1e300,125,375,375]]", None),
        ("no box", None),
    ],
)
def test_first_four_fields_box(text: str, box: Any) -> None:
    found = first_four_fields_box(text, 800, 800)
    assert found == (None if box is None else pytest.approx(box))


@pytest.mark.parametrize(
    "text", ["[" * 1_000_000, "[1," * 400_000, "[," * 400_000 + "]" * 400_000, "[\n" * 400_000]
)
@pytest.mark.timeout(120)
def test_hostile_answers_end(text: str) -> None:
    assert double_bracketed_box(text, 800, 800) is None
    assert first_four_fields_box(text, 800, 800) is None


def _record(intersection: float, union: float) -> Record:
    return Record("x", "c", "", None, None, {"intersection": intersection, "union": union})


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.5, 20)), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_cumulative_iou_is_sums_over_sums(areas: list[tuple[float, float]]) -> None:
    metric = CumulativeIoU("cumulative_iou")
    records = [_record(*pair) for pair in areas] + [Record("y", "c", "", None, None)]
    assert metric.selected(records).tolist() == [True] * len(areas) + [False]
    value = float(metric.value(metric.statistics(records).sum(axis=0)))
    assert value == pytest.approx(100 * sum(a for a, _ in areas) / sum(b for _, b in areas), abs=1e-9)


def test_cumulative_iou_of_nothing_has_a_reason() -> None:
    assert CumulativeIoU("cumulative_iou").reason([]) == "no answered sample of this kind"
