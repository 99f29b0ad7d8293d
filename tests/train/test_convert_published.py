"""Converters of published instruction files: boxes upright, choices as the evaluation asks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evalkit.cli.main import invoke
from evalkit.errors import DataError
from mini_internvl_train.conversations import Conversation, parse_line, read_lines, read_meta
from mini_internvl_train.convert import convert
from mini_internvl_train.convert.drivelm import _questions
from mini_internvl_train.convert.rotated_boxes import upright_corners, upright_middles


def conversations(output: Path) -> dict[str, list[Conversation]]:
    """What training reads of the converted files."""
    return {
        found.name: [parse_line(found, line) for line in read_lines(found)]
        for found in read_meta(output / "meta.json")
    }


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 30)).save(path)
    return path


def spoken(*turns: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(turns)]


@pytest.mark.parametrize(
    ("text", "upright"),
    [
        ("{<10><20><30><40>|<0>}", "<box>[[100, 200, 300, 400]]</box>"),
        ("{<10><20><30><60>|<90>}", "<box>[[0, 300, 400, 500]]</box>"),
        ("{<10><20><30><40>}", "<box>[[100, 200, 300, 400]]</box>"),
        ("{<40><40><60><60>|<45>}", "<box>[[359, 359, 641, 641]]</box>"),
        ("{<0><0><100><100>|<45>}", "<box>[[0, 0, 1000, 1000]]</box>"),
        (
            "<p>2 ships</p> {<1><2><3><4>|<0>}<delim>{<5><6><7><8>|<0>} at the top",
            "<ref>2 ships</ref><box>[[10, 20, 30, 40], [50, 60, 70, 80]]</box> at the top",
        ),
        ("{<1><2><3><4>|<0>}{<5><6><7><8>|<0>}", "<box>[[10, 20, 30, 40], [50, 60, 70, 80]]</box>"),
        ("no box", "no box"),
    ],
)
def test_boxes_of_geochat(text: str, upright: str) -> None:
    assert upright_corners(text) == upright


@pytest.mark.parametrize(
    ("text", "upright"),
    [
        ("<rbox>({<20.5><30><10><20>|<0>})</rbox>", "<box>[[155, 200, 255, 400]]</box>"),
        ("<rbox>({<50><50><20><40>|<90>})</rbox>", "<box>[[300, 400, 700, 600]]</box>"),
        (
            "There are 2 ships: <rbox>({<10><10><2><2>|<0>}, {<20><20><2><2>|<0>})</rbox>.",
            "There are 2 ships: <box>[[90, 90, 110, 110], [190, 190, 210, 210]]</box>.",
        ),
    ],
)
def test_boxes_of_fit_rs(text: str, upright: str) -> None:
    assert upright_middles(text) == upright


def test_geochat_and_fit_rs(tmp_path: Path) -> None:
    picture(tmp_path / "geo/final_images_llava/a.png")
    turns = spoken(
        "<image>\n[identify] What is {<1><2><3><4>|<0>}?", "a ship", "Where?", "<p>ship</p> {<1><2><3><4>}"
    )
    items: list[dict[str, Any]] = [{"id": "7", "image": "a.png", "conversations": turns}]
    (tmp_path / "geo/GeoChat_Instruct.json").write_text(json.dumps(items))
    convert("geochat", tmp_path / "geo", tmp_path / "out", repeat=3)
    (found,) = conversations(tmp_path / "out")["geochat_instruct"]
    assert [turn.text for turn in found.turns] == [
        "<image>\n[identify] What is <box>[[10, 20, 30, 40]]</box>?",
        "a ship",
        "Where?",
        "<ref>ship</ref><box>[[10, 20, 30, 40]]</box>",
    ]
    assert json.loads((tmp_path / "out/meta.json").read_text())["geochat_instruct"]["repeat_time"] == 3
    picture(tmp_path / "fit/images/a.png")
    (tmp_path / "fit/fit_rs_vqa_100k.jsonl").write_text(
        json.dumps({"id": 1, "image": "a.png", "question": "How many?", "answer": "two"}) + "\n"
    )
    convert("fit-rs", tmp_path / "fit", tmp_path / "fit-out")
    (asked,) = conversations(tmp_path / "fit-out")["fit_rs_vqa_100k"]
    assert [turn.text for turn in asked.turns] == ["<image>\nHow many?", "two"]


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"conversations": spoken("a")}, "questions and answers by turns"),
        ({"conversations": spoken("a", "b")[::-1]}, "must be human and gpt"),
        ({"conversations": spoken("a", "{<1><2><3><4>|<5>} {<1><2>}")}, None),
        ({"conversations": spoken("a", "<rbox>(1, 2, 3, 4)</rbox>")}, "a rotated box cannot be read"),
        ({"conversations": spoken("a", "b"), "image": ["a.png"]}, "image must be a path"),
        ({"question": "a"}, "'answer' missing"),
    ],
)
def test_items_of_another_form_are_refused(tmp_path: Path, item: dict[str, Any], told: str | None) -> None:
    (tmp_path / "GeoChat_Instruct.json").write_text(json.dumps([{"id": 1, **item}]))
    if told is None:
        convert("geochat", tmp_path, tmp_path / "out")
        return
    with pytest.raises(DataError, match=f"GeoChat_Instruct.json: item 0.*{told}"):
        convert("geochat", tmp_path, tmp_path / "out")


def test_pmc_vqa_is_asked_as_gmai_mmbench_is(tmp_path: Path) -> None:
    picture(tmp_path / "images/F1.jpg")
    head = "Figure_path,Question,Answer,Choice A,Choice B,Choice C,Choice D,Answer_label\n"
    row = "F1.jpg, What is shown? ,Focal,A:Diffuse,B:Focal,C:None, D:Unknown,"
    for number, last in enumerate(("B", "")):
        (tmp_path / "train.csv").write_text(f"{head}{row}{last}\n")
        convert("pmc-vqa", tmp_path, tmp_path / str(number))
        (found,) = conversations(tmp_path / str(number))["pmc_vqa_train"]
        question, answer = (turn.text for turn in found.turns)
        assert question.startswith("<image>\nWhat is shown?\nA. Diffuse\nB. Focal\n")
        assert answer == "B"
    (tmp_path / "train.csv").write_text(f"{head}{row.replace('Focal,A', 'Other,A')}\n")
    with pytest.raises(DataError, match="line 2: the answer 'Other' is not one of the choices"):
        convert("pmc-vqa", tmp_path, tmp_path / "wrong")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_pmc_oa_describes_its_figures(tmp_path: Path, form: str) -> None:
    picture(tmp_path / "images/a.jpg")
    text = {"csv": "figure,caption\na.jpg,Lungs.\n", "jsonl": '{"image": "a.jpg", "caption": "Lungs."}\n'}[
        form
    ]
    (tmp_path / f"train.{form}").write_text(text)
    convert("pmc-oa", tmp_path, tmp_path / "out")
    (found,) = conversations(tmp_path / "out")["pmc_oa"]
    assert found.turns[1].text == "Lungs."
    (tmp_path / f"train.{form}").write_text(text.replace("Lungs.", " "))
    with pytest.raises(DataError, match="row 0: needs figure and caption"):
        convert("pmc-oa", tmp_path, tmp_path / "empty")


def test_the_general_sets_are_named_where_they_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "playground/data/ai2d/a.png")
    path = tmp_path / "playground/opensource/ai2d_train_12k.jsonl"
    path.parent.mkdir()
    path.write_text(
        json.dumps({"id": 1, "image": "a.png", "conversations": spoken("<image>\na", "b")}) + "\n"
    )
    output = tmp_path / "out"
    assert invoke(["train", "convert", "general", "--data-root", str(tmp_path), "-o", str(output)]) == 0
    told = capsys.readouterr().out
    assert "1 samples; published with 12,413 samples; not there: sharegpt4v" in told
    (found,) = conversations(output)["ai2d_train_12k"]
    assert Path(found.images[0]).is_file()
    assert [path.name for path in output.iterdir()] == ["meta.json"]
    with pytest.raises(DataError, match="holds none of opensource"):
        convert("general", tmp_path / "nothing", tmp_path / "none")


def test_a_clip_of_bdd_x_is_one_sample(tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / f"frames/{number}.jpg")
    past = "<image>\n<image>\nPast: Speed: [1.0, 2.0]\n"
    turns = spoken(
        f"{past}What is done?", "It stops", "Why?", "because", "Predict the speed.", "1.5",
        "Predict the turning angle.", "-0.5",
    )  # fmt: skip
    item = {"id": "9", "image": ["frames/0.jpg", "frames/1.jpg"], "conversations": turns}
    (tmp_path / "train.json").write_text(json.dumps([item]))
    (written,) = convert("bdd-x", tmp_path, tmp_path / "out")
    assert written.samples == 1
    (found,) = conversations(tmp_path / "out")["bdd_x"]
    texts = [turn.text for turn in found.turns]
    assert texts[0] == "Frame1: <image>\nFrame2: <image>\nPast: Speed: [1.0, 2.0]\nWhat is done?"
    assert texts[1:] == [
        "It stops", "Why?", "because", "Predict the speed.", "1.5", "Predict the turning angle.", "-0.5"
    ]  # fmt: skip


def test_drivelm_lists_carry_boxes_and_no_question_comes_twice() -> None:
    tag, seen = "<c1,CAM_BACK,800.0,450.0>", "What are the important objects in the current scene? Name them."
    known = {tag: {"Visual_description": "Car.", "2d_bbox": [0, 0, 1600, 900]}}
    pairs = [
        {"Q": seen, "A": f"A car. The IDs are {tag}."},
        {"Q": f"Where is {tag}?", "A": f"{tag} is behind."},
    ]
    frame = {"QA": {"perception": [*pairs, *pairs]}, "key_object_infos": known}
    found = list(_questions(frame, "name", "frame 1"))
    assert [answer for _, answer in found] == [
        "A car. The IDs are <c1,CAM_BACK,[500, 750]><box>[[333, 500, 667, 1000]]</box>.",
        "<c1,CAM_BACK,[500, 750]> is behind.",
    ]
