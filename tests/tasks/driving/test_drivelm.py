"""The DriveLM task: its files, samples, prompts, the known values, and the submission file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scored_answers import GivenReplies, score_texts

from evalkit.contracts import Failure, Generation, Record, Response
from evalkit.data.images import ImageFile
from evalkit.errors import DataError, UsageError
from evalkit.statistics import estimate_all
from evalkit.task import failed_record
from evalkit_tasks.driving.drivelm import DriveLM
from evalkit_tasks.driving.drivelm_coordinates import CAMERAS, STITCHED_SIZE
from evalkit_tasks.driving.drivelm_scene import StitchedViews

TASK = DriveLM()
assert DriveLM.submission is not None
SUBMISSION = DriveLM.submission
KINDS = ("perception", "prediction", "planning", "behavior")
SENTENCE = (
    "Objects are encoded using <c,CAM,[cx,cy]>, where c is the identifier, CAM indicates the camera where "
    "the object’s center point is situated, and x, y represent the horizontal and vertical coordinates of "
    "the center point of the 2D bounding box."
)


def qa(question: str, answer: Any = "A", **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("C", "con_up", "con_down", "cluster", "layer"))
    return {"Q": question, "A": answer, **empty, **more}


def write(root: Path, name: str, **questions: list[dict[str, Any]]) -> dict[str, Any]:
    """One official file with one frame; returns the frame to be changed and written again."""
    frame = {
        "key_object_infos": {"<c1,CAM_BACK,100.0,200.0>": {"Visual_description": "Red car."}},
        "QA": {kind: questions.get(kind, []) for kind in KINDS},
        "image_paths": {
            camera: f"../nuscenes/samples/{camera}/{camera}__1.jpg" for camera in reversed(CAMERAS)
        },
    }
    save(root / name, frame)
    return frame


def save(path: Path, frame: dict[str, Any]) -> None:
    path.write_text(json.dumps({"s1": {"scene_description": "x", "key_frames": {"f1": frame}}}))


def estimates(records: list[Record]) -> dict[str, Any]:
    return estimate_all(TASK.metrics(), records, resamples=100)


@pytest.mark.slow
def test_the_values_of_the_official_sample_s_own_answers(shared_dir: Path) -> None:
    folder = shared_dir / "data/drivelm"
    samples = list(TASK.samples("sample", folder))
    answers = {row["id"]: row["answer"] for row in json.loads((folder / "output.json").read_text())}
    assert {sample.id for sample in samples} == set(answers) and len(samples) == 66
    records = score_texts(TASK, samples, answers)
    found = estimates(records)
    assert sum(record.scores["left_out"] for record in records) == 35
    assert (found["accuracy"].value, found["accuracy"].n) == (0.0, 9)
    assert (found["match_f1"].value, found["match_f1"].n) == (0.0, 4)
    expected = {
        "bleu_1": 0.19878472,
        "bleu_2": 0.08021752,
        "bleu_3": 0.03049990,
        "bleu_4": 2.2409684e-06,
        "rouge_l": 0.18421722,
        "cider": 0.00172301,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=3e-6) and found[name].n == 9
    for name, n in (("chatgpt", 9), ("match", 4), ("final_score", 31)):
        assert (found[name].value, found[name].reason, found[name].n) == (None, "no judge given", n)


def test_the_official_sample_has_its_images_and_tags(shared_dir: Path) -> None:
    samples = list(TASK.samples("sample", shared_dir / "data/drivelm"))
    assert len({sample.cluster for sample in samples}) == 9
    tags = [sample.tags["tag"] for sample in samples]
    assert {tag: tags.count(tag) for tag in set(tags)} == {
        "language": 9,
        "accuracy": 26,
        "match": 4,
        "gpt": 27,
    }
    for sample in samples:
        (views,) = sample.images
        assert all(Path(path).is_file() for path in views.paths())
        assert [Path(path).parent.name for path in views.paths()] == list(CAMERAS)


def test_the_training_sample_gives_the_official_test_questions(shared_dir: Path) -> None:
    folder = shared_dir / "data/drivelm"
    ours = {sample.id: sample for sample in TASK.samples("train", folder)}
    official = {sample.id: sample for sample in TASK.samples("sample", folder)}
    assert ours.keys() == official.keys()
    for name, sample in official.items():
        stem = " Please select the correct answer"
        assert ours[name].data["question"].split(stem)[0] == sample.data["question"].split(stem)[0]
        assert ours[name].data["tags"] == sample.data["tags"]
        if stem not in sample.data["question"]:
            assert ours[name].target == sample.target


def test_questions_are_numbered_over_the_four_kinds_in_their_order(tmp_path: Path) -> None:
    frame = write(
        tmp_path,
        "test_eval.json",
        behavior=[qa("b", tag=[0])],
        planning=[qa("l", tag=[1])],
        perception=[qa("p", tag=[2]), qa("p2", tag=[0, 3])],
    )
    frame["QA"] = dict(reversed(frame["QA"].items()))
    del frame["QA"]["prediction"]
    save(tmp_path / "test_eval.json", frame)
    samples = list(TASK.samples("sample", tmp_path))
    assert [(s.id, s.data["question"]) for s in samples] == [
        ("s1_f1_0", "p"),
        ("s1_f1_1", "p2"),
        ("s1_f1_2", "l"),
        ("s1_f1_3", "b"),
    ]
    assert [s.tags for s in samples][1:3] == [
        {"question_type": "perception", "tag": "accuracy+match"},
        {"question_type": "planning", "tag": "gpt"},
    ]
    assert {s.cluster for s in samples} == {"s1_f1"}
    assert samples[0].target == "A"


def test_the_prompt_holds_the_tags_in_the_stitched_image_s_coordinates(tmp_path: Path) -> None:
    write(tmp_path, "test_eval.json", perception=[qa("Is <c1,CAM_FRONT,800.0,450.0> {moving}?", tag=[0])])
    (sample,) = TASK.samples("sample", tmp_path)
    request = TASK.request(sample)
    (message,) = request.messages
    assert (message.role, message.text) == (
        "user",
        f"<image>\nIs <c1,CAM_FRONT,[500, 250]> {{moving}}? {SENTENCE}",
    )
    assert sample.data["question"] == "Is <c1,CAM_FRONT,800.0,450.0> {moving}?"
    assert request.generation == Generation(max_new_tokens=200, temperature=0.0, num_beams=1)
    policy = request.image_policy
    assert (policy.min_tiles, policy.max_tiles, policy.thumbnail, policy.grid) == (1, 12, True, None)
    assert isinstance(sample.images[0], StitchedViews)


@pytest.mark.parametrize("place", ["nuscenes/samples", "samples", "../nuscenes/samples"])
def test_images_are_found_where_the_archives_put_them(place: str, tmp_path: Path) -> None:
    root = tmp_path / "drivelm"
    root.mkdir()
    write(root, "v1_1_val_nus_q_only.json", perception=[qa("p")])
    (root / place).mkdir(parents=True)
    (sample,) = TASK.samples("val", root)
    expected = (root / place).resolve() / "CAM_FRONT" / "CAM_FRONT__1.jpg"
    assert Path(sample.images[0].paths()[1]).resolve() == expected


@pytest.mark.parametrize("answer", ["", None, "absent"])
def test_the_validation_split_has_no_labels(answer: str | None, tmp_path: Path) -> None:
    pair = qa("Is <c1,CAM_BACK,1.0,2.0> moving?", answer, tag=[0])
    if answer == "absent":
        del pair["A"]
    write(tmp_path, "v1_1_val_nus_q_only.json", perception=[pair])
    (sample,) = TASK.samples("val", tmp_path)
    assert sample.target is None and sample.tags["tag"] == "accuracy"
    judge = GivenReplies("50")
    records = score_texts(TASK, [sample], "A", judge)
    assert all(value.value is None and "export" in str(value.reason) for value in estimates(records).values())
    assert not judge.asked


def test_the_training_split_asks_in_multiple_choice(tmp_path: Path) -> None:
    write(
        tmp_path,
        "v1_1_train_nus.json",
        perception=[
            qa("What is important?", "A red car."),
            qa("What is the moving status of object <c1,CAM_BACK,100.0,200.0>?", "Flying."),
        ],
        behavior=[qa("Predict.", "The ego vehicle is going straight. The ego vehicle is driving fast.")],
    )
    important, moving, behaviour = TASK.samples("train", tmp_path)
    assert (important.target, important.tags["tag"]) == ("A red car.", "language")
    assert str(moving.target) in "ABCD" and f" {moving.target}. Flying." in moving.data["question"]
    assert moving.data["odd_choice"] is True and "odd_choice" not in behaviour.data
    assert (
        "Please select the correct answer from the following options: A. "
        in TASK.request(behaviour).messages[0].text
    )
    assert score_texts(TASK, [moving], "A")[0].data["odd_choice"] is True


def listed(**more: Any) -> dict[str, Any]:
    return {
        "id": "s1_f1_3",
        "image": "s1_f1.jpg",
        "question_old": "Is <c1,CAM_FRONT,800.0,450.0> moving?",
        "conversations": [
            {"from": "human", "value": "<image>\nIs <c1,CAM_FRONT,[500, 250]> moving? Say so. \n"},
            {"from": "gpt", "value": "<c1,CAM_FRONT,[500, 250]>"},
        ],
        **more,
    }


@pytest.mark.parametrize(
    "layout", [("", "images/drivelm/stitch"), ("val", "images/drivelm/stitch"), ("", ".")]
)
def test_internvl_s_list_is_asked_as_it_stands(layout: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / layout[0]).mkdir(exist_ok=True)
    (tmp_path / layout[1]).mkdir(parents=True, exist_ok=True)
    (tmp_path / layout[1] / "s1_f1.jpg").touch()
    (tmp_path / layout[0] / "drivelm_val.jsonl").write_text(json.dumps(listed()))
    (sample,) = TASK.samples("val", tmp_path)
    assert (sample.id, sample.cluster, sample.target) == ("s1_f1_3", "s1_f1", "<c1,CAM_FRONT,800.0,450.0>")
    assert TASK.request(sample).messages[0].text == "<image>\nIs <c1,CAM_FRONT,[500, 250]> moving? Say so."
    assert isinstance(sample.images[0], ImageFile) and Path(sample.images[0].path).is_file()
    (record,) = score_texts(TASK, [sample], "no")
    assert record.data["question"] == "Is <c1,CAM_FRONT,800.0,450.0> moving?"
    assert "field tag" in str(estimates([record])["accuracy"].reason)


def test_a_list_without_answers_is_unlabelled(tmp_path: Path) -> None:
    (tmp_path / "drivelm_val.jsonl").write_text(
        json.dumps(listed(conversations=listed()["conversations"][:1]))
    )
    (sample,) = TASK.samples("val", tmp_path)
    assert sample.target is None


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"image_paths": {"CAM_FRONT": "x.jpg"}}, "frame f1: field 'CAM_FRONT_LEFT' missing"),
        ({"QA": {"perception": [{"A": "no question"}]}}, "frame f1 perception: field 'Q' missing"),
        ({"QA": {"perception": [qa("q", tag="0")]}}, "tag '0' is not a list of numbers"),
        ({"QA": {"perception": [qa("q", tag=[0, "1"])]}}, r"tag \[0, '1'\] is not a list of numbers"),
        ({"QA": []}, "expected an object, found list"),
    ],
)
def test_a_broken_file_names_the_place(broken: dict[str, Any], message: str, tmp_path: Path) -> None:
    save(tmp_path / "test_eval.json", {**write(tmp_path, "test_eval.json"), **broken})
    with pytest.raises(DataError, match=message):
        list(TASK.samples("sample", tmp_path))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "x"}, "line 1: field 'image' missing"),
        (listed(id="nonumber"), "does not end in a question's number"),
        (listed(conversations=[]), "no conversation"),
    ],
)
def test_a_broken_list_names_the_line(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "drivelm_val.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=message):
        list(TASK.samples("val", tmp_path))


def test_a_split_without_its_file_says_which(tmp_path: Path) -> None:
    for split, name in (("val", "v1_1_val_nus_q_only"), ("train", "v1_1_train_nus"), ("sample", "test_eval")):
        with pytest.raises(DataError, match=name):
            list(TASK.samples(split, tmp_path))
        assert TASK.data_source.files_of(split)[0].path.startswith(name)


def test_the_submission_file_has_the_challenge_s_form(tmp_path: Path, shared_dir: Path) -> None:
    folder = shared_dir / "data/drivelm"
    official = json.loads((folder / "submission.json").read_text())
    samples = list(TASK.samples("sample", folder))
    answers = {row["id"]: row["answer"] for row in official["results"]}
    records = score_texts(TASK, samples, {sample.id: answers.get(sample.id, "x") for sample in samples})
    SUBMISSION.write(records, tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written.keys() == official.keys()
    assert [row["id"] for row in written["results"]] == [sample.id for sample in samples]
    rows = {row["id"]: row for row in written["results"]}
    for row in official["results"]:
        assert rows[row["id"]].keys() == row.keys() and rows[row["id"]]["answer"] == row["answer"]


def test_the_submission_holds_the_official_question_and_the_answer_in_camera_pixels(tmp_path: Path) -> None:
    write(tmp_path, "v1_1_val_nus_q_only.json", perception=[qa("Is <c1,CAM_FRONT,800.0,450.0> moving?", "")])
    (sample,) = TASK.samples("val", tmp_path)
    SUBMISSION.write(score_texts(TASK, [sample], "<c1,CAM_FRONT,[500, 250]> è"), tmp_path / "out.json")
    (row,) = json.loads((tmp_path / "out.json").read_text())["results"]
    assert row == {
        "id": "s1_f1_0",
        "question": "<image>\nIs <c1,CAM_FRONT,800.0,450.0> moving?",
        "answer": "<c1,CAM_FRONT,800.0,450.0> è",
    }


def test_a_submission_with_a_missing_answer_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "v1_1_val_nus_q_only.json", perception=[qa("p", "")])
    (sample,) = TASK.samples("val", tmp_path)
    failed = failed_record(sample, Response(error=Failure("missing", "no prediction")))
    with pytest.raises(UsageError, match=r"1 of 1 samples have no answer \(s1_f1_0"):
        SUBMISSION.write([failed], tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_the_stitched_image_becomes_twelve_tiles() -> None:
    from mini_internvl.images import choose_grid

    policy = TASK.image_policy
    grid = choose_grid(*STITCHED_SIZE, min_tiles=policy.min_tiles, max_tiles=policy.max_tiles)
    assert grid == (6, 2)


@pytest.mark.slow
def test_the_miniature_has_all_tags_and_right_answers_score_full(tmp_path: Path) -> None:
    TASK.data_source.draw(tmp_path)
    samples = list(TASK.samples("miniature", tmp_path))
    assert {sample.tags["tag"] for sample in samples} == {"accuracy", "gpt", "language", "match"}
    records = score_texts(TASK, samples, {sample.id: sample.target for sample in samples})
    found = estimates(records)
    assert sum(record.scores["left_out"] for record in records) == 0
    assert found["accuracy"].value == 1.0
    assert found["match_f1"].value == pytest.approx(1.0, abs=1e-6)
    assert found["language"].value == pytest.approx(1.0, abs=1e-6)
    assert samples[0].images[0].open().size == STITCHED_SIZE


def test_the_page_draws_the_tags_of_target_and_prediction_on_the_camera_they_name() -> None:
    assert TASK.overlay is not None
    record = Record(
        id="1",
        cluster="1",
        text="",
        prediction="<c2,CAM_BACK,10.5,20.0> is next to <c9,CAM_TOP,1.0,2.0>.",
        target="<c1,CAM_FRONT_LEFT,800.0,450.0>",
    )
    found = [(r.role, r.corners, r.image, r.label) for r in TASK.overlay.regions(record)]
    assert found == [("target", (800.0, 450.0), 0, "c1"), ("prediction", (10.5, 20.0), 4, "c2")]
