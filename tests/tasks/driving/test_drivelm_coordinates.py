"""DriveLM's object tags between camera pixels and the stitched image."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit_tasks.driving.drivelm_coordinates import (
    CAMERAS,
    decode_tags,
    encode_box,
    encode_tags,
    to_camera,
    to_stitched,
)

GRID = {
    "CAM_FRONT_LEFT": (0, 0),
    "CAM_FRONT": (1, 0),
    "CAM_FRONT_RIGHT": (2, 0),
    "CAM_BACK_LEFT": (0, 1),
    "CAM_BACK": (1, 1),
    "CAM_BACK_RIGHT": (2, 1),
}


def reference_decode(text: str) -> str:
    """The rule of InternVL's evaluation, written out step by step."""
    shape = r"<c[^,]*,\s*[^,]*,\s*\[\s*-?[0-9]*\.?[0-9]+\s*,\s*-?[0-9]*\.?[0-9]+\s*\]\s*>"
    for found in re.findall(shape, text):
        bare = "".join(character for character in found if character not in "<>")
        parts = bare.split(",")
        try:
            point = json.loads(bare[len(parts[0]) + len(parts[1]) + 2 :])
            if parts[1] not in GRID:
                continue
            column, row = GRID[parts[1]]
            x = (point[0] / 1000) * 2688
            y = (point[1] / 1000) * 896
            x -= column * 896
            y -= row * 448
            x = x / 896 * 1600
            y = y / 448 * 900
            x = round(max(0, min(1600, x)), 1)
            y = round(max(0, min(900, y)), 1)
        except (ValueError, OverflowError):
            continue
        text = text.replace(found, "<" + parts[0] + "," + parts[1] + "," + str(x) + "," + str(y) + ">")
    return text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<c1,CAM_FRONT,[500.0,250.0]>", "<c1,CAM_FRONT,800.0,450.0>"),
        ("<c1,CAM_BACK,[510.5,733.2]>", "<c1,CAM_BACK,850.4,419.8>"),
        ("<c1, CAM_FRONT, [500,250]>", "<c1, CAM_FRONT, [500,250]>"),
        ("<c1,CAM_FRONT, [ 500 , 250 ] >", "<c1,CAM_FRONT,800.0,450.0>"),
        ("<c1,CAM_FRON,[500,250]>", "<c1,CAM_FRON,[500,250]>"),
        ("<c1,CAM_FRONT,800.0,450.0>", "<c1,CAM_FRONT,800.0,450.0>"),
        ("<c1,CAM_FRONT,[500,250,1]>", "<c1,CAM_FRONT,[500,250,1]>"),
        # Clamped values lose their decimal point, as in the original.
        ("<c1,CAM_FRONT,[0,250]>", "<c1,CAM_FRONT,0,450.0>"),
        ("<c1,CAM_FRONT,[1000,999.9]>", "<c1,CAM_FRONT,1600,900>"),
        ("<c1,CAM_FRONT_LEFT,[0,0]>", "<c1,CAM_FRONT_LEFT,0,0>"),
        ("<c1,CAM_FRONT,[-5.5,250]>", "<c1,CAM_FRONT,0,450.0>"),
        # Not JSON numbers.
        ("<c1,CAM_FRONT,[.5,250]>", "<c1,CAM_FRONT,[.5,250]>"),
        ("<c1,CAM_FRONT,[007,250]>", "<c1,CAM_FRONT,[007,250]>"),
        ("<c1,CAM_FRONT,[" + "9" * 400 + ",250]>", "<c1,CAM_FRONT,[" + "9" * 400 + ",250]>"),
        # The loose head of the pattern swallows text before the tag and drops the angle bracket within.
        ("<car <c1,CAM_FRONT,[500,250]>", "<car c1,CAM_FRONT,800.0,450.0>"),
        (
            "twice <c1,CAM_FRONT,[500,250]> <c1,CAM_FRONT,[500,250]>.",
            "twice <c1,CAM_FRONT,800.0,450.0> <c1,CAM_FRONT,800.0,450.0>.",
        ),
        ("", ""),
        (" no tag ", " no tag "),
    ],
)
def test_answers_come_back_in_camera_pixels(answer: str, expected: str) -> None:
    assert decode_tags(answer) == expected
    assert reference_decode(answer) == expected


NUMBERS = st.one_of(
    st.integers(-50, 1100).map(str),
    st.floats(-50, 1100).map(lambda value: f"{value:.3f}"),
    st.sampled_from([".5", "0", "1000", "333.3333", "00.5", "-.5", "1e3", "12."]),
)
CAMERA_NAMES = st.sampled_from([*GRID, "CAM_FRON", " CAM_FRONT", "<CAM_BACK>", "cam_front", ""])


@st.composite
def answers(draw: st.DrawFn) -> str:
    pieces = []
    for _ in range(draw(st.integers(0, 4))):
        space = draw(st.sampled_from(["", " ", "\n"]))
        tag = f"<c{draw(st.sampled_from(['1', '', '12', 'ar']))},{draw(CAMERA_NAMES)},{space}"
        pieces.append(f"{tag}[{draw(NUMBERS)},{space}{draw(NUMBERS)}]{space}>")
        pieces.append(draw(st.sampled_from(["", " and ", "<c", "<", ">", ",", ". <c9,CAM_FRONT,1.0,2.0>"])))
    return "".join(pieces)


#: Fragments of tags in any order.
FRAGMENTS = st.lists(
    st.sampled_from(["<c", "<", "c1", ",", "CAM_BACK", "[", "]", ">", "500", "1.5", "-", ".", " ", "\n"]),
    max_size=40,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(answers(), FRAGMENTS))
def test_any_answer_comes_back_as_in_the_original(answer: str) -> None:
    assert decode_tags(answer) == reference_decode(answer)


@pytest.mark.parametrize(
    "text",
    ["<c" * 200_000, "<c," * 200_000, "<c,CAM_FRONT,[" + "1" * 400_000, "<c1,CAM_FRONT,[500, 250]>" * 40_000],
    ids=["starts", "commas", "digits", "tags"],
)
@pytest.mark.timeout(120)
def test_a_huge_answer_ends(text: str) -> None:
    assert decode_tags(text).startswith("<c")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(CAMERAS)), st.floats(0, 1600), st.floats(0, 900))
def test_forward_and_back_is_the_same_point(camera: str, x: float, y: float) -> None:
    back = to_camera(camera, *to_stitched(camera, x, y))
    assert back == pytest.approx((x, y), abs=0.0501)


def test_questions_go_in_as_whole_thousandths_of_the_stitched_image() -> None:
    assert encode_tags("Is <c1,CAM_FRONT,800.0,450.0> far?") == "Is <c1,CAM_FRONT,[500, 250]> far?"
    assert encode_tags("<c2,CAM_BACK_RIGHT,1600.0,900.0>") == "<c2,CAM_BACK_RIGHT,[1000, 1000]>"
    assert encode_tags("<c1,CAM_BACK,1088.3,497.5> <c3,CAM_FRONT_LEFT,0.0,0.0>") == (
        "<c1,CAM_BACK,[560, 776]> <c3,CAM_FRONT_LEFT,[0, 0]>"
    )


@pytest.mark.parametrize(
    "text", ["<c1,CAM_TOP,1.0,2.0>", "no tag", "<c1,CAM_FRONT,[500, 250]>", "<c1,CAM_FRONT,1.0>"]
)
def test_what_is_no_tag_of_the_six_cameras_stays(text: str) -> None:
    assert encode_tags(text) == text


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(CAMERAS)), st.integers(10, 15990), st.integers(10, 8990))
def test_a_tag_survives_prompt_and_answer_within_the_rounding(camera: str, x: int, y: int) -> None:
    tag = f"<c1,{camera},{x / 10:.1f},{y / 10:.1f}>"
    numbers = decode_tags(encode_tags(tag)).strip("<>").split(",")[2:]
    assert float(numbers[0]) == pytest.approx(x / 10, abs=2.5)
    assert float(numbers[1]) == pytest.approx(y / 10, abs=1.0)


def test_boxes_are_written_in_thousandths() -> None:
    assert encode_box("CAM_FRONT", (0, 0, 1600, 900)) == "<box>[[333, 0, 667, 500]]</box>"
    with pytest.raises(KeyError):
        encode_box("CAM_TOP", (0, 0, 1, 1))
