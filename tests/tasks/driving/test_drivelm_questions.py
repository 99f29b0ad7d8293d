"""DriveLM's test questions: which are taken from the annotations, their tags, and the multiple choice."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import DataError
from evalkit_tasks.driving.drivelm_questions import Question, extract, offer_choices

MOVING = "What is the moving status of object <c1,CAM_BACK,1.0,2.0>?"


def reference_extract(frame: Mapping[str, Any]) -> list[tuple[str, str, str, tuple[int, ...]]]:
    """The challenge's extraction of one frame, with its shared objects and overwritten tags."""
    frame = copy.deepcopy(dict(frame))
    names = [
        entry["Visual_description"].split(".")[0].lower() for entry in frame["key_object_infos"].values()
    ]
    spots = [spot.lower() for spot in frame["key_object_infos"]]
    out: dict[str, list[Any]] = {"perception": [], "prediction": [], "planning": [], "behavior": []}

    def take(kind: str, pair: dict[str, Any], tag: int) -> None:
        pair["tag"] = [tag]
        out[kind].append(pair)

    perception, prediction = frame["QA"]["perception"], frame["QA"]["prediction"]
    for pair in perception:
        if not [name for name in names if name not in pair["A"].lower()]:
            take("perception", pair, 2)
            break
    for pair in perception:
        if "what is the moving status of object" in pair["Q"].lower():
            take("perception", pair, 0)
            break
    for pair in prediction:
        if not [spot for spot in spots if spot not in pair["A"].lower()]:
            take("prediction", pair, 3)
            break
    for pair in prediction:
        if "yes" in pair["A"].lower() or "no" in pair["A"].lower():
            take("prediction", pair, 0)
            break
    seen = set()
    for pair in frame["QA"]["planning"]:
        for phrase in ("what actions could the ego vehicle take", "lead to a collision", "safe actions"):
            if phrase in pair["Q"].lower() and phrase not in seen:
                take("planning", pair, 1)
                seen.add(phrase)
        if len(seen) == 3:
            break
    for pair in frame["QA"]["behavior"]:
        take("behavior", pair, 0)
    return [(kind, pair["Q"], pair["A"], tuple(pair["tag"])) for kind, pairs in out.items() for pair in pairs]


def frame(objects: Mapping[str, str] = {}, **questions: list[tuple[str, str]]) -> dict[str, Any]:
    qa = {kind: [] for kind in ("perception", "prediction", "planning", "behavior")}
    qa |= {
        kind: [{"Q": question, "A": answer} for question, answer in pairs]
        for kind, pairs in questions.items()
    }
    infos = {tag: {"Visual_description": description} for tag, description in objects.items()}
    return {"key_object_infos": infos, "QA": qa}


def taken(content: Mapping[str, Any]) -> list[tuple[str, str, str | None, tuple[int, ...] | None]]:
    return [(q.kind, q.question, q.answer, q.tags) for q in extract(content, "frame")]


def test_a_slot_without_a_fitting_question_stays_empty() -> None:
    content = frame({"<c1,CAM_BACK,1.0,2.0>": "Red car."}, perception=[("What?", "A blue car.")])
    assert taken(content) == reference_extract(content) == []


def test_without_objects_the_first_questions_fit() -> None:
    content = frame(perception=[("What?", "Nothing.")], prediction=[("Which?", "It is.")])
    assert [tags for *_, tags in taken(content)] == [(2,), (3,)]
    assert taken(content) == reference_extract(content)


def test_a_question_in_two_slots_is_asked_twice_with_the_later_tag() -> None:
    tag = "<c1,CAM_BACK,1.0,2.0>"
    content = frame({tag: "Red car."}, prediction=[("Which?", f"Firstly notice {tag}.")])
    assert taken(content) == reference_extract(content)
    assert [tags for *_, tags in taken(content)] == [(0,), (0,)]
    content = frame({tag: "Red car."}, perception=[(MOVING, "The red car is stopped.")])
    assert [tags for *_, tags in taken(content)] == [(0,), (0,)]


def test_yes_and_no_are_found_inside_words() -> None:
    content = frame({"<c1>": "x."}, prediction=[("a", "maybe"), ("b", "None."), ("c", "Yes.")])
    assert [(question, tags) for _, question, _, tags in taken(content)] == [("b", (0,))]


def test_one_planning_question_can_fill_several_slots() -> None:
    both = "Which safe actions lead to a collision?"
    content = frame(
        planning=[
            (both, "a"),
            ("Which SAFE actions?", "b"),
            ("What actions could the ego vehicle take?", "c"),
        ]
    )
    assert taken(content) == reference_extract(content)
    assert [question for _, question, _, _ in taken(content)] == [
        both,
        both,
        content["QA"]["planning"][2]["Q"],
    ]


TEXTS = st.sampled_from(
    [
        "What is the moving status of object <c1,A,1.0,1.0>?",
        "what actions could the ego vehicle take, and are these safe actions?",
        "What can lead to a collision?",
        "Safe actions?",
        "Notice the red car at <c1,A,1.0,1.0> and the van at <C2,B,2.0,2.0>.",
        "A Red Car and a VAN.",
        "Yes.",
        "none",
        "",
    ]
)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=5)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["<c1,A,1.0,1.0>", "<c2,B,2.0,2.0>"]), st.sampled_from(["Red car.", "Van", ""])
    ),
    PAIRS,
    PAIRS,
    PAIRS,
    PAIRS,
)
def test_any_frame_is_taken_as_by_the_challenge(
    objects: dict[str, str],
    perception: list[tuple[str, str]],
    prediction: list[tuple[str, str]],
    planning: list[tuple[str, str]],
    behavior: list[tuple[str, str]],
) -> None:
    content = frame(
        objects, perception=perception, prediction=prediction, planning=planning, behavior=behavior
    )
    assert taken(content) == reference_extract(content)


def test_the_official_sample_is_taken_from_its_annotations(shared_dir: Path) -> None:
    folder = shared_dir / "data/drivelm"
    annotated = json.loads((folder / "train_sample.json").read_text())
    expected = json.loads((folder / "test.json").read_text())
    for scene, content in annotated.items():
        for name, annotated_frame in content["key_frames"].items():
            official = expected[scene]["key_frames"][name]["QA"]
            assert taken(annotated_frame) == [
                (kind, pair["Q"], pair["A"], tuple(pair["tag"]))
                for kind, pairs in official.items()
                for pair in pairs
            ]


def test_malformed_annotations_are_named() -> None:
    with pytest.raises(DataError, match="frame 7"):
        extract({"QA": {}}, "frame 7")
    with pytest.raises(DataError, match="frame 7 planning: field 'A' missing"):
        extract({"key_object_infos": {}, "QA": {"planning": [{"Q": "x"}]}}, "frame 7")


def choices_of(question: str) -> list[str]:
    listed = question.split("Please select the correct answer from the following options: A. ")[1]
    first, rest = listed.split(" B. ")
    second, rest = rest.split(" C. ")
    return [first, second, *rest.split(" D. ")]


@pytest.mark.parametrize(
    ("kind", "question", "answer"),
    [
        ("perception", MOVING, "Going ahead."),
        ("perception", MOVING, "Drive backward."),
        ("behavior", "Predict.", "The ego vehicle is going straight. The ego vehicle is not moving."),
        ("behavior", "Q", "The ego vehicle is steering to the right. The ego vehicle is driving very fast."),
    ],
)
def test_the_answer_becomes_a_letter_among_four_choices(kind: str, question: str, answer: str) -> None:
    letters = []
    for number in range(40):
        asked = offer_choices(Question(kind, question, answer, (0,)), f"scene_frame_{number}")
        choices = choices_of(asked.question)
        assert asked.question.startswith(
            f"{question} Please select the correct answer from the following options: A. "
        )
        assert asked.answer is not None and choices["ABCD".index(asked.answer)] == answer
        assert len(set(choices)) == 4 and not asked.odd_choice and asked.tags == (0,)
        assert asked == offer_choices(Question(kind, question, answer, (0,)), f"scene_frame_{number}")
        letters.append(asked.answer)
    assert set(letters) == set("ABCD")


def test_choices_are_the_challenge_s_own() -> None:
    seen: set[str] = set()
    moving: set[str] = set()
    for number in range(300):
        behaviour = Question(
            "behavior", "Q", "The ego vehicle is going straight. The ego vehicle is driving fast.", (0,)
        )
        seen.update(choices_of(offer_choices(behaviour, str(number)).question))
        moving.update(
            choices_of(offer_choices(Question("perception", MOVING, "Stopped.", (0,)), str(number)).question)
        )
    assert (
        len(seen) == 21
        and "The ego vehicle is steering to the left. The ego vehicle is driving slowly." in seen
    )
    others = {"Turn right.", "Turn left.", "Back up.", "Reverse parking.", "Drive backward."}
    assert moving == {"Going ahead.", "Stopped.", *others}


def test_an_answer_that_is_no_choice_is_offered_all_the_same_and_marked() -> None:
    asked = offer_choices(Question("perception", MOVING, "Flying.", (0,)), "id")
    assert asked.odd_choice and asked.answer is not None
    assert choices_of(asked.question)["ABCD".index(asked.answer)] == "Flying."


def test_other_questions_stay_open() -> None:
    for question in (
        Question("perception", "What are the important objects?", "A car.", (2,)),
        Question("planning", MOVING, "x", (1,)),
    ):
        assert offer_choices(question, "id") == question


def test_the_draw_does_not_follow_the_interpreter_s_random_state() -> None:
    random.seed(1)
    first = offer_choices(Question("perception", MOVING, "Stopped.", (0,)), "id")
    random.seed(2)
    assert offer_choices(Question("perception", MOVING, "Stopped.", (0,)), "id") == first
