"""Images changed at random: boxes move with a crop, sides are never mirrored, draws repeat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_training import make_recipe

from mini_internvl_train.augmentation import ImageChange, boxes_of, moved
from mini_internvl_train.plan import plan_data
from mini_internvl_train.samples import TrainingSet
from mini_internvl_train.start import load_start

SIZE = (200, 120)
PLACE = (60, 30, 130, 84)  # pixels of the red rectangle
BOX = [round(1000 * part / side) for part, side in zip(PLACE, SIZE * 2, strict=True)]
EPOCHS = 12


def data_of(folder: Path, *texts: tuple[str, str], entry: Any = None, **settings: Any) -> TrainingSet:
    """A set of questions and answers about one image, a red rectangle on blue."""
    recipe = make_recipe(folder, samples=1, data__max_tokens=2000, packing__max_tokens=2000, **settings)
    image = Image.new("RGB", SIZE, (0, 0, 200))
    image.paste((200, 0, 0), PLACE)
    image.save(folder / "data/pictures/box.png")
    lines = [
        {"image": "box.png", "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
        for q, a in texts
    ]
    (folder / "data/colours.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    meta = {"colours": {"root": "pictures", "annotation": "colours.jsonl", **(entry or {})}}
    (folder / "data/colours.json").write_text(json.dumps(meta))
    return plan_data(recipe, load_start(recipe))[0]


def test_boxes_move_with_the_crop(tmp_path: Path) -> None:
    box = f"<ref>it</ref><box>[{BOX}]</box>"
    data = data_of(
        tmp_path, ("Where?", box), (f"What is at {box}?", "it"), augment__crop=0.5, augment__flip=1
    )
    image = Image.open(tmp_path / "data/pictures/box.png").convert("RGB")
    assert data.kept == [
        "2 of 2 samples of colours are not mirrored: they hold boxes, coordinates, or words such as left"
    ]
    crops = set()
    for index, epoch in ((i, e) for i in range(2) for e in range(EPOCHS)):
        sample = data.augmented(index, epoch)
        assert len(sample.encoded.input_ids) == data.lengths[index].tokens
        crops.add(sample.change.crop)
        shown = sample.change.of(image)
        red = np.argwhere(np.asarray(shown)[..., 0] > 100)
        (top, left), (bottom, right) = red.min(0), red.max(0) + 1
        assert (right - left, bottom - top) == (PLACE[2] - PLACE[0], PLACE[3] - PLACE[1])  # never cut
        (found,) = boxes_of(" ".join(turn.text for turn in sample.conversation.turns))
        width, height = shown.size
        expected = (left / width, top / height, right / width, bottom / height)
        assert found == pytest.approx([1000 * part for part in expected], abs=2)
        assert width > 0.5 * SIZE[0] - 1
    assert len(crops) > EPOCHS


def test_what_names_sides_or_places_is_left_alone(tmp_path: Path) -> None:
    texts = (
        "What is LEFT of it?", "Turn right!", "CAM_FRONT_LEFT", "north-west?", "左边是什么?",
        "<c1,CAM_FRONT,0.5,0.3>?", "point (12, 40)", "bright copyright?",
    )  # fmt: skip
    data = data_of(tmp_path, *((text, "yes") for text in texts), augment__flip=1, augment__crop=0.5)
    changes = [data.augmented(index, 0).change for index in range(len(texts))]
    assert [change.flip for change in changes] == [False] * 7 + [True]
    assert [change.crop is None for change in changes] == [False] * 5 + [True, True, False]
    assert any("2 of 8 samples of colours are not cropped" in line for line in data.kept)


def test_draws_repeat_and_follow_seed_and_epoch(tmp_path: Path) -> None:
    settings = {"augment__flip": 0.5, "augment__colour": 0.5, "augment__crop": 0.2}
    data = data_of(tmp_path, ("What?", "it"), **settings)
    drawn = [data.augmented(0, epoch).change for epoch in range(EPOCHS)]
    assert drawn == [data.augmented(0, epoch).change for epoch in range(EPOCHS)]
    assert len(set(drawn)) == EPOCHS and {change.flip for change in drawn} == {True, False}
    other = data_of(tmp_path, ("What?", "it"), seed=8, **settings)
    assert drawn != [other.augmented(0, epoch).change for epoch in range(EPOCHS)]
    kept = data_of(tmp_path, ("What?", "it"), entry={"augment": False}, **settings)
    plain = data_of(tmp_path, ("What?", "it"))
    assert (
        kept.augmented(0, 0).change == plain.augmented(0, 0).change == data.sample(0).change == ImageChange()
    )


def test_pixels_are_changed() -> None:
    image = Image.new("RGB", (4, 2), (10, 10, 10))
    image.putpixel((0, 0), (200, 100, 0))
    assert ImageChange(flip=True).of(image).getpixel((3, 0)) == (200, 100, 0)
    assert ImageChange(crop=(0.5, 0.0, 1.0, 1.0)).of(image).size == (2, 2)
    assert ImageChange(colour=(0.5, 1.0, 1.0)).of(image).getpixel((0, 0)) == (100, 50, 0)
    grey = ImageChange(colour=(1.0, 1.0, 0.0)).of(image).getpixel((0, 0))
    assert isinstance(grey, tuple) and len(set(grey)) == 1


def test_numbers_of_a_box_keep_their_form() -> None:
    text = "<box>[[500, 250,750,500], [250,250,1000,1000]]</box> in 500"
    assert moved(text, (0.25, 0.25, 1.0, 1.0)) == "<box>[[333, 0,667,333], [0,0,1000,1000]]</box> in 500"
