"""Samples by filter, images with boxes, training logs."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from evalkit.contracts import Failure, Record, Response
from evalkit.errors import RunFolderError
from evalkit.store import Scored, load_run, write_records
from evalkit.task import Region
from evalkit_leaderboard import logs, overlays
from evalkit_leaderboard.records import Filter, table
from evalkit_leaderboard.theme import PREDICTION_COLOUR, TARGET_COLOUR


def folder_of(root: Path, model: str, task: str) -> Path:
    (found,) = (root / model / f"{task}@miniature").glob("2*")
    return found


def ids(folder: Path, wanted: Filter) -> list[str]:
    found = table(folder)
    return [str(row["id"]) for row in found.preview(found.fitting(wanted).tolist(), wanted.score)]


def test_filters_find_what_the_records_say(real_tree: Path) -> None:
    folder = folder_of(real_tree, "worse", "rsvqa-lr")
    stored = load_run(folder).records()
    right = [r.id for r in stored if r.scores["accuracy"] == 1]
    wrong = [r.id for r in stored if r.scores["accuracy"] == 0]
    assert right and wrong
    assert ids(folder, Filter("accuracy")) == [r.id for r in stored]
    assert ids(folder, Filter("accuracy", "right")) == right
    assert ids(folder, Filter("accuracy", "wrong")) == wrong
    counted = [r.id for r in stored if r.tags["type"] == "presence"]
    assert ids(folder, Filter("accuracy", tags={"type": "presence"})) == counted
    nonsense = [r.id for r in stored if "nonsense" in r.text]
    assert ids(folder, Filter("accuracy", text="NonSense")) == nonsense == wrong


def test_graded_and_missing_scores(real_tree: Path) -> None:
    folder = folder_of(real_tree, "worse", "dior-rsvg")
    stored = load_run(folder).records()
    between = [r.id for r in stored if 0 < r.scores["iou"] < 1]
    assert ids(folder, Filter("iou", "between")) == between
    frames = folder_of(real_tree, "good", "drivelm")
    without = [r.id for r in load_run(frames).records() if "accuracy" not in r.scores]
    assert without and ids(frames, Filter("accuracy", "not scored")) == without


def test_unparsed_answers_are_found(real_tree: Path) -> None:
    folder = folder_of(real_tree, "worse", "rsvqa-lr")
    unparsed = [r.id for r in load_run(folder).records() if "unparsed" in r.flags]
    assert unparsed and ids(folder, Filter("accuracy", "unparsed")) == unparsed


def test_previews_are_of_the_rows_asked(real_tree: Path) -> None:
    folder = folder_of(real_tree, "good", "rsvqa-lr")
    everything = ids(folder, Filter("accuracy"))
    rows = table(folder).fitting(Filter("accuracy"))
    assert rows.tolist() == list(range(len(everything)))
    page = table(folder).preview(rows[5:15].tolist(), "accuracy")
    assert [row["id"] for row in page] == everything[5:15]
    assert all(row["score"] in (0.0, 1.0) and row["question"] for row in page)


def test_failures_by_kind(tmp_path: Path) -> None:
    failures = [Failure("image", "first"), Failure("image", "second"), Failure("memory", "third")]
    found = [
        Record(str(n), "c", "", None, None, flags=("error",), error=failure)
        for n, failure in enumerate(failures)
    ]
    write_records(tmp_path, [Scored(record, Response(), "k", "?", ()) for record in found])
    assert table(tmp_path).failures == [("image", 2, "first"), ("memory", 1, "third")]


def test_disagreement_with_another_run(real_tree: Path) -> None:
    good, worse = (folder_of(real_tree, model, "rsvqa-lr") for model in ("good", "worse"))
    scores = [{r.id: r.scores["accuracy"] for r in load_run(f).records()} for f in (good, worse)]
    differing = [name for name, score in scores[0].items() if score != scores[1][name]]
    assert differing and ids(good, Filter("accuracy", other=worse)) == differing


def test_one_sample_with_everything(real_tree: Path) -> None:
    folder = folder_of(real_tree, "good", "dior-rsvg")
    row = table(folder).row_of("3")
    assert row is not None
    found = table(folder).sample(row)
    stored = next(r for r in load_run(folder).records() if r.id == "3")
    assert found.record == stored and found.question.startswith("<ref>") and len(found.images) == 1
    assert table(folder).row_of("no such sample") is None


def test_names_of_scores_and_tags(real_tree: Path) -> None:
    found = table(folder_of(real_tree, "good", "rsvqa-lr"))
    assert found.scores == ["accuracy"] and "presence" in found.tags["type"]


def test_broken_and_missing_tables_are_said(tree: Path) -> None:
    folder = folder_of(tree, "good", "rsvqa-lr")
    (folder / "records.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(RunFolderError, match="broken"):
        table(folder)
    (folder / "records.parquet").unlink()
    with pytest.raises(RunFolderError, match="missing"):
        table(folder)


def test_quotes_in_filters_are_only_text(real_tree: Path) -> None:
    folder = folder_of(real_tree, "good", "rsvqa-lr")
    nasty = "'; DROP TABLE records; --"
    assert not ids(folder, Filter(nasty, "right", {nasty: nasty}, nasty, nasty))


def coloured(image: Image.Image, colour: str) -> np.ndarray:
    """Where an image has a colour, `[height, width]`."""
    return (np.asarray(image) == ImageColor.getrgb(colour)).all(axis=-1)


def extent(mask: np.ndarray) -> list[int]:
    """Left, top, right and bottom of what is marked."""
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])]


@pytest.mark.parametrize(("role", "colour"), [("target", TARGET_COLOUR), ("prediction", PREDICTION_COLOUR)])
def test_boxes_and_points_are_drawn_where_they_are(tmp_path: Path, role: Any, colour: str) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (1000, 500), "white").save(path)
    size = (100.0, 50.0)
    for corners in ((10.0, 20.0, 60.0, 45.0), (60.0, 45.0, 10.0, 20.0)):
        sheet = overlays.sheet([str(path)], [Region(role, corners, size)])
        assert sheet.image is not None and sheet.sizes == ((1000, 500),) and not sheet.problems
        mask = coloured(sheet.image, colour)
        assert extent(mask) == pytest.approx([100, 200, 600, 450], abs=4)
        assert not mask[210:440, 110:590].any() and sheet.image.getpixel((50, 300)) == (255, 255, 255)
        for side in (mask[200, 100:600], mask[450, 100:600], mask[200:450, 100], mask[200:450, 600]):
            assert side.mean() == pytest.approx(1.0 if role == "target" else 0.5, abs=0.1)
        assert sheet.image.getpixel((110, 203)) == (16, 16, 16)  # the rim, a pixel beside a line of 5
    plain, named = (
        overlays.sheet([str(path)], [Region(role, (50.0, 25.0), size, label=label)]).image
        for label in ("", "c1")
    )
    assert plain is not None and named is not None
    mask = coloured(plain, colour)
    assert extent(mask) == pytest.approx([475, 225, 525, 275], abs=2)
    assert mask[250, 500] == mask[262, 500] == mask[250, 488] == (role == "prediction")
    left, top, right, bottom = extent((np.asarray(plain) != np.asarray(named)).any(axis=-1))
    assert 525 < left < right < 600 and (bottom < 250 if role == "target" else top > 250)


@pytest.mark.parametrize(
    "region",
    [
        Region("target", (math.nan, 0.0, 1.0, 1.0), (100.0, 50.0)),
        Region("target", (0.0, 0.0, math.inf, 1.0), (100.0, 50.0)),
        Region("target", (0.0, 0.0, 1e300, 1.0), (100.0, 50.0)),
        Region("target", (0.0, 0.0, 1.0), (100.0, 50.0)),
        Region("target", (0.0, 0.0, 50.0, 50.0), (0.0, 50.0)),
        Region("target", (10.0, 10.0, 90.0, 90.0), (100.0, 100.0)),
        Region("target", (10.0, 10.0, 40.0, 40.0), (100.0, 50.0), image=7),
    ],
)
def test_impossible_regions_are_not_drawn(tmp_path: Path, region: Region) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (1000, 500), "white").save(path)
    sheet = overlays.sheet([str(path)], [region])
    assert sheet.image is not None and sheet.image.getcolors() == [(500_000, (255, 255, 255))]


def test_views_are_set_in_rows_and_what_is_missing_is_said(tmp_path: Path) -> None:
    paths = []
    for place in range(13):
        paths.append(str(tmp_path / f"{place}.png"))
        Image.new("RGB", (160, 90), (15 * place, 0, 0)).save(paths[-1])
    mark = Region("prediction", (80.0, 45.0), (160.0, 90.0), 4, "c1")
    for count, columns in ((1, 1), (2, 2), (3, 3), (4, 2), (6, 3), (12, 3)):
        sheet = overlays.sheet(paths[:count], [mark])
        assert sheet.image is not None and sheet.sizes == ((160, 90),) * count and not sheet.problems
        rows = -(-count // columns)
        assert sheet.image.size == (columns * 646 - 6, rows * 366 - 6)
        for place in range(count):
            row, column = divmod(place, columns)
            left, top = 646 * column, 366 * row
            assert sheet.image.getpixel((left + 20, top + 20)) == (15 * place, 0, 0)
            cell = sheet.image.crop((left, top, left + 640, top + 360))
            assert coloured(cell, PREDICTION_COLOUR).any() == (place == 4)
    sheet = overlays.sheet(paths, [mark])
    assert len(sheet.sizes) == 12 and sheet.problems == ("1 more images are not shown",)
    gone = overlays.sheet([paths[0], str(tmp_path / "gone.jpg"), "/dev/zero"], [])
    assert gone.image is not None and len(gone.problems) == 2 and "gone.jpg" in gone.problems[0]


def test_transparent_and_palette_images(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    Image.new("RGBA", (700, 700), (0, 0, 0, 0)).save(path)
    sheet = overlays.sheet([str(path)], [])
    assert sheet.image is not None and sheet.image.getpixel((5, 5)) == (255, 255, 255)
    assert overlays.data_address(sheet.image).startswith("data:image/jpeg;base64,")


def test_logs_are_read_up_to_their_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "a" / "log.jsonl"
    path.parent.mkdir()
    lines = [
        json.dumps({"step": 1, "loss": 2.0, "note": "x"}),
        "nonsense",
        "[1]",
        json.dumps({"step": 2, "lr": 1}),
    ]
    path.write_text("\n".join(lines) + '\n{"step": 3')
    log = logs.read_log(path)
    assert log.steps == [1.0, 2.0] and log.broken == 2
    assert log.values["loss"][0] == 2.0 and math.isnan(log.values["loss"][1]) and log.values["lr"][1] == 1.0
    assert logs.find(logs.LOG, tmp_path, tmp_path) == [path]


def test_a_long_log_shows_its_end_and_a_wide_one_its_first_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    line = '{"step": %d, "loss": 1.5}\n'  # 25 bytes
    path.write_text("".join(line % step for step in range(10)))
    for most, first in ((250, 0), (249, 1), (60, 8), (10, 10)):
        monkeypatch.setattr(logs, "_MOST", most)
        log = logs.read_log(path)
        assert log.steps == list(range(first, 10)) and log.broken == 0, most
        assert log.values == ({"loss": [1.5] * (10 - first)} if first < 10 else {})
    monkeypatch.undo()
    path.write_text(json.dumps({"step": 1, **{f"n{place}": place for place in range(201)}}) + "\n")
    assert list(logs.read_log(path).values) == [f"n{place}" for place in range(200)]


def test_logs_are_found_three_folders_deep_and_not_in_hidden_ones(tmp_path: Path) -> None:
    for folder in (".", "a/b/c", "a/b/c/d", ".hidden/x"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "log.jsonl").write_text("")
    assert logs.find(logs.LOG, tmp_path) == [tmp_path / "log.jsonl", tmp_path / "a/b/c/log.jsonl"]


def test_absurd_numbers_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 1, "loss": {10**400}, "x": NaN, "y": Infinity}}\n')
    log = logs.read_log(path)
    assert log.steps == [1.0] and not log.values


def test_responses_are_counted_as_they_come(tmp_path: Path) -> None:
    counter = logs.Counter()
    path = tmp_path / "responses-0.jsonl"
    path.write_text("{}\n{}\n{")
    assert counter.responses(tmp_path) == 2
    with path.open("a") as file:
        file.write("}\n{}\n")
    (tmp_path / "responses-1.jsonl").write_text("{}\n")
    assert counter.responses(tmp_path) == 5
    path.write_text("{}\n")
    assert counter.responses(tmp_path) == 2


def test_a_pipe_in_place_of_a_log_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    os.mkfifo(tmp_path / "responses-0.jsonl")
    assert logs.find(logs.LOG, tmp_path) == []
    assert logs.Counter().responses(tmp_path) == 0
