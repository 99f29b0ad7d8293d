"""GeoChat-Bench's question files: RSVQA's with the official answers, references to objects of DIOR images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import invoke
from evalkit.errors import DataError
from evalkit_tasks.remote_sensing.dior_rsvg import DiorRsvg
from evalkit_tasks.remote_sensing.rsvqa import RsvqaHr, RsvqaLr

ADDED = "\nAnswer the question using a single word or phrase."


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def asked(i: int, kind: str = "presence", **more: Any) -> dict[str, Any]:
    return {"question_id": i, "image": "7.tif", "text": f"Is it?{ADDED}", "category": kind, **more}


def answers(path: Path, *texts: str) -> None:
    rows = [{"id": 500 + i, "question_id": i, "answer": text, "active": True} for i, text in enumerate(texts)]
    path.write_text(json.dumps({"answers": [{"id": 3, "active": False}, *rows]}), encoding="utf-8")


@pytest.mark.parametrize(
    ("task", "split", "name", "prefix", "folder"),
    [
        (RsvqaLr, "test", "lrben.jsonl", "LR_split_test", "Images_LR"),
        (RsvqaHr, "test2", "hrben.jsonl", "USGS_split_test_phili", "Data"),
    ],
)
def test_questions_are_joined_with_the_official_answers(
    task: Any, split: str, name: str, prefix: str, folder: str, tmp_path: Path
) -> None:
    lines(tmp_path / name, [asked(1), asked(0, "comp")])
    answers(tmp_path / f"{prefix}_answers.json", "no", "yes")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "7.tif").write_bytes(b"x")
    first, second = task().samples(split, tmp_path)
    assert (first.id, first.target, first.tags, second.target) == ("1", "yes", {"type": "presence"}, "no")
    assert task().request(first).messages[-1].text == f"Is it?{ADDED}"
    assert first.images[0].paths() == (str(tmp_path / folder / "7.tif"),)
    assert all(file.find(tmp_path) for file in task().data_source.files_of(split))


def test_the_official_questions_come_first(tmp_path: Path) -> None:
    lines(tmp_path / "lrben.jsonl", [asked(0)])
    answers(tmp_path / "LR_split_test_answers.json", "no")
    row = {"id": 0, "img_id": 7, "type": "comp", "question": "Q?", "answers_ids": [500], "active": True}
    (tmp_path / "LR_split_test_questions.json").write_text(json.dumps({"questions": [row]}))
    (sample,) = RsvqaLr().samples("test", tmp_path)
    assert (sample.target, sample.tags["type"]) == ("no", "comp")
    assert RsvqaLr().request(sample).messages[-1].text == f"Q?{ADDED}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (asked(0), "no answer; put LR_split_test_answers.json"),
        (asked(0, "default", ground_truth="no"), "'default' is no type of question"),
        ({"question_id": 0}, "'category' missing"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    lines(tmp_path / "lrben.jsonl", [row])
    with pytest.raises(DataError, match=message):
        list(RsvqaLr().samples("test", tmp_path))


def referring(i: int, **more: Any) -> dict[str, Any]:
    corners = [[[10, 20], [110, 20], [120, 90], [12, 88]]]
    row = {"image_id": "00017", "question": "The large Ship", "ground_truth": corners, "type": "ref"}
    return {**row, "question_id": f"q{i}", "dataset": "SIOR", "obj_ids": [4], "size_group": "large", **more}


def test_references_to_one_object_of_dior_images(tmp_path: Path) -> None:
    other = [
        referring(1, dataset="SOTA"),
        referring(2, type="grounding"),
        referring(3, ground_truth=referring(0)["ground_truth"] * 2),
    ]
    lines(tmp_path / "referring.jsonl", [*other, referring(4)])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "00017.png").write_bytes(b"x")
    (sample,) = DiorRsvg().samples("geochat", tmp_path)
    assert (sample.id, sample.target, sample.data) == ("q4", [10, 20, 120, 90], {"size": [800, 800]})
    assert sample.images[0].paths() == (str(tmp_path / "images" / "00017.png"),)
    assert DiorRsvg().request(sample).messages[-1].text == "Detect <ref>the large ship</ref>"


def test_dior_s_own_images_serve_as_well(tmp_path: Path) -> None:
    lines(tmp_path / "referring.jsonl", [referring(1, image_id="00017.png")])
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "00017.jpg").write_bytes(b"x")
    (sample,) = DiorRsvg().samples("geochat", tmp_path)
    assert sample.images[0].paths() == (str(tmp_path / "JPEGImages" / "00017.jpg"),)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([referring(1), referring(1)], "occurs twice"),
        ([referring(1, dataset="FAST")], "no row refers to one object"),
        ([referring(1, ground_truth=[[1, 2, 3, 4]])], "no list of corners"),
        ([referring(1, ground_truth=[[["a", 1]]])], "no list of corners"),
    ],
)
def test_broken_references(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list(DiorRsvg().samples("geochat", lines(tmp_path / "referring.jsonl", rows).parent))


def test_a_run_names_the_split_whose_files_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(tmp_path / "referring.jsonl", [referring(1), referring(2)])
    given = lines(tmp_path / "p.jsonl", [{"id": f"q{i}", "text": "[[12, 25, 150, 113]]"} for i in (1, 2)])
    command = ["run", "-m", f"predictions:{given}", "-t", "dior-rsvg", "--data-root", str(tmp_path)]
    command += ["-o", str(tmp_path / "runs"), "--json"]
    assert invoke(command) == 3
    assert "it holds the split geochat: --split geochat" in capsys.readouterr().err
    assert invoke([*command, "--split", "geochat"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert (found["split"], found["metrics"]["acc_0.5"]["value"]) == ("geochat", 100.0)
    assert {row["split"] for row in found["reference"]} == {"test"}
