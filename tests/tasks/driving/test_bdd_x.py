"""BDD-X: conversations of both forms, frames, parsing, captions and signals against plain formulas."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from general_tables import plain_values, png, records_of, values
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Failure, Record, Response
from evalkit.data.images import VideoFrame
from evalkit.errors import DataError
from evalkit.metrics.captions import bleu_statistics, bleu_value, cider_scores, rouge_l_scores, tokenize
from evalkit.metrics.package_variants import nltk_bleu_statistics, nltk_bleu_value
from evalkit.task import failed_record
from evalkit_tasks.driving.bdd_x import FRAMES, BddX

ASKED = (
    "What is the action of ego car?",
    "Why does the ego car doing this?",
    "Predict the speed.",
    "Predict the turning angle.",
)
HISTORY = "Control Signal until current Frame Sequence is: Speed: [6.4, 1.4]\n Curvature: [-0.03, 0.03]\n"


def clip(name: str, answers: tuple[str, ...], first: str = "", **more: Any) -> dict[str, Any]:
    asked = ASKED if len(answers) != 3 else (*ASKED[:2], "Predict the control signal for next frame.")
    turns = []
    for question, answer in zip(asked, answers, strict=False):
        turns.append({"from": "human", "value": f"{first if not turns else ''}{question}"})
        turns.append({"from": "gpt", "value": answer})
    return {"id": name, "image": ["f/0.jpg", "f/1.jpg"], "conversations": turns, **more}


def write(root: Path, clips: list[Any], name: str = "test.json") -> Path:
    lines = name.endswith(".jsonl")
    text = "\n".join(map(json.dumps, clips)) if lines else json.dumps(clips)
    (root / name).write_text(text, encoding="utf-8")
    return root


FOUR = ("The car stops", "because of a stop sign.", "1.42", "-3.2")
THREE = ("The car stops", "because of a stop sign.", "Speed: 1.42 Course: -3.2")


@pytest.mark.parametrize("name", ["test.json", "test.jsonl", "val.json", "train.jsonl"])
def test_four_turns(tmp_path: Path, name: str) -> None:
    write(tmp_path, [clip("7", FOUR)], name)
    split = name.partition(".")[0]
    samples = list(BddX().samples(split, tmp_path))
    assert [(s.id, s.target, s.cluster) for s in samples] == [
        ("7/description", "The car stops", "7"),
        ("7/justification", "because of a stop sign.", "7"),
        ("7/speed", {"speed": 1.42}, "7"),
        ("7/angle", {"angle": -3.2}, "7"),
    ]
    assert samples[3].turns == (f"Frame1: <image>\nFrame2: <image>\n{ASKED[3]}",)
    assert BddX().request(samples[0]).image_policy.max_tiles == 1
    assert all(file.find(tmp_path) for file in BddX().data_source.files_of(split))


def test_three_turns_of_a_video(tmp_path: Path) -> None:
    item = clip("7", THREE, f"<video>\n{HISTORY}", video="BDDX_Test/video/a.mp4")
    del item["image"]
    write(tmp_path, [item], "conversation_bddx_eval_v1.json")
    samples = list(BddX().samples("test", tmp_path))
    assert [s.id for s in samples] == ["7/description", "7/justification", "7/control"]
    assert samples[2].target == {"speed": 1.42, "angle": -3.2}
    path = str(tmp_path / "BDDX_Test/video/a.mp4")
    assert samples[0].images == tuple(VideoFrame(path, i, FRAMES) for i in range(8))
    frames = "".join(f"Frame{i}: <image>\n" for i in range(1, 9))
    assert samples[0].turns == (f"{frames}{HISTORY}{ASKED[0]}",)
    assert samples[2].turns == (f"{frames}{HISTORY}Predict the control signal for next frame.",)


@pytest.mark.parametrize(
    "marks", ["<image>\n", "<image>\n<image>\n", "Frame1: <image>\nFrame2: <image>\n", "<image><image>\n", ""]
)
def test_image_marks_of_the_file_are_replaced(tmp_path: Path, marks: str) -> None:
    write(tmp_path, [clip("7", FOUR, marks)])
    sample = next(iter(BddX().samples("test", tmp_path)))
    assert sample.turns == (f"Frame1: <image>\nFrame2: <image>\n{ASKED[0]}",)


def test_images_are_relative_to_the_data_root(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "0.jpg").write_bytes(png())
    write(tmp_path, [clip("7", FOUR)])
    sample = next(iter(BddX().samples("test", tmp_path)))
    assert sample.images[0].open().size == (4, 3)
    assert sample.images[1].digest() == "missing"
    write(tmp_path, [clip("7", FOUR, image=["../secret.jpg"])])
    with pytest.raises(DataError, match="under the data root"):
        list(BddX().samples("test", tmp_path))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (clip("7", FOUR[:2]), "2 question-answer turns"),
        ({"id": "7", "image": ["a"]}, "'conversations' missing"),
        ({**clip("7", FOUR), "image": []}, "list of image paths"),
        ({**clip("7", FOUR), "image": [1]}, "list of image paths"),
        ({k: v for k, v in clip("7", FOUR).items() if k != "image"}, "neither image nor video"),
        ({**clip("7", FOUR), "conversations": [{"value": "q"}]}, "by turns"),
        ({**clip("7", FOUR), "conversations": "x"}, "by turns"),
        (clip("7", ("a", "b", "fast", "0")), "holds no speed"),
        (clip("7", ("a", "b", "Speed: 1 Course: left")), "holds no speed and angle"),
        ("x", "expected an object"),
    ],
)
def test_malformed_conversations(tmp_path: Path, item: Any, message: str) -> None:
    write(tmp_path, [item])
    with pytest.raises(DataError, match=message):
        list(BddX().samples("test", tmp_path))


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test\.json"):
        list(BddX().samples("test", tmp_path))
    (tmp_path / "test.json").write_text('[{"id": "7"', encoding="utf-8")
    with pytest.raises(DataError, match="broken JSON"):
        list(BddX().samples("test", tmp_path))


# Signals ------------------------------------------------------------------------------------------------


def answered(root: Path, answers: dict[str, str]) -> list[Record]:
    return records_of(BddX(), "test", root, answers)


def test_unparsable_signals_are_misses_out_of_rmse_and_counted(tmp_path: Path) -> None:
    clips = [clip(str(i), ("a", "b", "10", "0")) for i in range(4)]
    write(tmp_path, clips)
    speeds = ("10.05", "no idea", "12", "about 10.5 m/s")
    answers = {f"{i}/{kind}": "x 0" for i in range(4) for kind in ("description", "justification", "angle")}
    records = answered(tmp_path, answers | {f"{i}/speed": text for i, text in enumerate(speeds)})
    found = values(BddX(), records)
    assert found["speed_rmse"].value == pytest.approx(math.sqrt((0.05**2 + 2**2 + 0.5**2) / 3), abs=1e-9)
    assert found["speed_rmse"].n == 3
    shares = [found[f"speed_a_{tau}"].value for tau in ("0.1", "0.5", "1.0", "5.0")]
    assert shares == [25.0, 25.0, 50.0, 75.0]
    assert found["speed_a_5.0"].n == 4
    assert [r.id for r in records if "unparsed" in r.flags] == ["1/speed"]
    assert found["speed_rmse"].unit == "m/s"
    assert found["angle_rmse"].unit == "degrees"


def test_both_signals_in_one_answer(tmp_path: Path) -> None:
    write(tmp_path, [clip(str(i), THREE) for i in range(3)])
    controls = ("Speed: 1.42 Course: 0", "Course: -3.2", "1.42 -3.2")
    answers = {f"{i}/{kind}": "x" for i in range(3) for kind in ("description", "justification")}
    records = answered(tmp_path, answers | {f"{i}/control": text for i, text in enumerate(controls)})
    found = plain_values(BddX(), records)
    assert found["speed_a_0.1"] == pytest.approx(100 / 3)
    assert found["angle_a_0.1"] == pytest.approx(100 / 3)
    assert found["angle_rmse"] == pytest.approx(math.sqrt(3.2**2 / 2))
    assert sum("unparsed" in r.flags for r in records) == 2


def test_the_angle_is_not_wrapped(tmp_path: Path) -> None:
    write(tmp_path, [clip("0", ("a", "b", "0", "179"))])
    records = answered(
        tmp_path, {"0/description": "", "0/justification": "", "0/speed": "0", "0/angle": "-179"}
    )
    assert plain_values(BddX(), records)["angle_rmse"] == pytest.approx(358.0)


@pytest.mark.parametrize(
    "answers", [("a", "b", "Speed: 1.42 Curvature: 0.03"), ("a", "b", "1.42", "Curvature: 0.03")]
)
def test_a_curvature_is_no_angle(tmp_path: Path, answers: tuple[str, ...]) -> None:
    write(tmp_path, [clip("0", answers), clip("1", answers)])
    samples = list(BddX().samples("test", tmp_path))
    records = answered(tmp_path, {s.id: "Speed: 1.42 Curvature: 9" for s in samples})
    found = values(BddX(), records)
    for name, value in found.items():
        if name.startswith("angle_"):
            assert value.value is None
            assert "Curvature" in str(value.reason)
    assert found["speed_a_0.1"].value == 100.0
    assert not any("unparsed" in r.flags for r in records)


# Captions -----------------------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from(["the", "car", "stops", "at", "a", "red", "light", "because", "it", "turns"]), max_size=8
)
CAPTION = st.one_of(
    WORDS.map(" ".join), st.sampled_from(["", "  ", "The car\nstops.", "Because it doesn't, OK?"])
)


def plain(hypotheses: list[str], truths: list[str]) -> dict[str, float]:
    given, wanted = tokenize(hypotheses), [(text,) for text in tokenize(truths)]
    return {
        "cider": 100 * float(cider_scores(given, wanted).mean()),
        "bleu_4": 100 * float(bleu_value(bleu_statistics(given, wanted).sum(axis=0))[3]),
        "rouge_l": 100 * float(rouge_l_scores(given, wanted).mean()),
    }


@given(st.lists(st.tuples(CAPTION, CAPTION, CAPTION, CAPTION), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_captions_of_description_justification_and_full(
    tmp_path_factory: pytest.TempPathFactory, clips: list[tuple[str, str, str, str]]
) -> None:
    root = write(
        tmp_path_factory.mktemp("bdd"),
        [clip(str(i), (a, b, "1", "2")) for i, (a, b, _, _) in enumerate(clips)],
    )
    answers = {}
    for i, (_, _, action, reason) in enumerate(clips):
        kinds = {"description": action, "justification": reason, "speed": "1", "angle": "2"}
        answers |= {f"{i}/{kind}": text for kind, text in kinds.items()}
    found = plain_values(BddX(), answered(root, answers))
    texts = {
        "description": ([c[2] for c in clips], [c[0] for c in clips]),
        "justification": ([c[3] for c in clips], [c[1] for c in clips]),
        "full": ([f"{c[2]} {c[3]}" for c in clips], [f"{c[0]} {c[1]}" for c in clips]),
    }
    for part, (given_texts, truths) in texts.items():
        of_nltk = nltk_bleu_value(nltk_bleu_statistics(given_texts, [[text] for text in truths]).sum(axis=0))
        assert found[f"{part}_bleu_4.nltk"] == pytest.approx(100 * float(of_nltk[3]), abs=1e-9)
        for name, value in plain(given_texts, truths).items():
            assert found[f"{part}_{name}"] == pytest.approx(value, abs=1e-9)


def test_a_clip_with_one_caption_failed_has_no_full_caption(tmp_path: Path) -> None:
    write(tmp_path, [clip("0", FOUR), clip("1", FOUR)])
    task = BddX()
    samples = list(task.samples("test", tmp_path))
    records = [
        failed_record(s, Response(error=Failure("missing", "none")))
        if s.id == "1/justification"
        else task.score(s, Response(text="The car stops 1"))
        for s in samples
    ]
    found = values(task, records)
    assert [found[f"{part}_rouge_l"].n for part in ("description", "justification", "full")] == [2, 1, 1]


def test_metrics_are_those_of_the_tables_then_the_variants() -> None:
    captions = [
        f"{p}_{m}" for p in ("description", "justification", "full") for m in ("cider", "bleu_4", "rouge_l")
    ]
    signals = [f"{s}_{m}" for s in ("speed", "angle") for m in ("rmse", "a_0.1", "a_0.5", "a_1.0", "a_5.0")]
    variants = [
        f"{p}_{m}"
        for p in ("description", "justification", "full")
        for m in ("bleu_4.nltk", "rouge_l.rouge_score")
    ]
    metrics = BddX().metrics()
    assert [metric.name for metric in metrics] == captions + signals + variants
    assert [metric.name for metric in metrics if metric.variant] == variants


# Real and drawn files -----------------------------------------------------------------------------------


def test_real_conversations(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "data" / "bdd-x" / "RAG-Driver" / "conversation_bddx_eval_v1.json"
    if not source.is_file():
        pytest.skip("no BDD-X excerpt")
    (tmp_path / "test.json").write_bytes(source.read_bytes())
    samples = list(BddX().samples("test", tmp_path))
    assert len(samples) == 36
    assert samples[0].id == "2010/description"
    assert samples[2].target == {"speed": 1.42}
    assert "Control Signal until current Frame Sequence is" in samples[2].turns[0]
    assert "<video>" not in samples[0].turns[0]
    answers = {
        s.id: s.target if isinstance(s.target, str) else f"Speed: {s.target['speed']}" for s in samples
    }
    found = values(BddX(), answered(tmp_path, answers))
    assert found["description_cider"].value == pytest.approx(1000.0)
    assert found["speed_rmse"].value == 0.0
    assert found["angle_rmse"].value is None


def test_miniature(tmp_path: Path) -> None:
    task = BddX()
    task.data_source.draw(tmp_path)
    samples = list(task.samples("miniature", tmp_path))
    answers = {
        s.id: s.target if isinstance(s.target, str) else str(next(iter(s.target.values()))) for s in samples
    }
    found = plain_values(task, records_of(task, "miniature", tmp_path, answers))
    assert found["full_rouge_l"] == pytest.approx(100.0)
    assert found["angle_a_0.1"] == 100.0
    assert samples[0].images[0].open().size == (128, 128)
