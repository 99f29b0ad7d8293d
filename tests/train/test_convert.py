"""Converters: official files to training lines and back, in the words of the tasks."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_training import write_checkpoint, write_recipe

from evalkit import registry
from evalkit.errors import DataError
from evalkit.metrics.boxes import double_bracketed_box
from evalkit.metrics.control import read_signal
from evalkit_tasks.driving.drivelm_coordinates import decode_tags, encode_tags
from evalkit_tasks.remote_sensing.dior_rsvg import DiorRsvg
from mini_internvl_train.conversations import Conversation, parse_line, read_lines, read_meta
from mini_internvl_train.convert import convert
from mini_internvl_train.convert.lines import thousandths
from mini_internvl_train.recipe import read_recipe
from mini_internvl_train.sample_images import upright_size
from mini_internvl_train.samples import read_training_set
from mini_internvl_train.start import load_start


def conversations(output: Path) -> dict[str, list[Conversation]]:
    """What training reads of the converted files."""
    return {
        found.name: [parse_line(found, line) for line in read_lines(found)]
        for found in read_meta(output / "meta.json")
    }


def drawn(task: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small miniature of a task."""
    import importlib

    module = importlib.import_module(f"evalkit_tasks.miniatures.{task.replace('-', '_')}")
    for name in ("FRAMES", "PICTURES", "CLIPS", "TILES", "SCENES", "COUNT"):
        if isinstance(getattr(module, name, None), int) and getattr(module, name) > 6:
            monkeypatch.setattr(module, name, 6)
    folder.mkdir()
    registry.task(task).data_source.draw(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "split"),
    [
        ("drivelm", "miniature"),
        ("rsvqa-lr", "miniature"),
        ("rsvqa-hr", "miniature"),
        ("dior-rsvg", "miniature"),
        ("gmai-mmbench", "miniature"),
    ],
)
def test_miniatures_round_trip(
    tmp_path: Path, task: str, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = drawn(task, tmp_path / "data", monkeypatch)
    convert(task, root, tmp_path / "out", split)
    found = next(iter(conversations(tmp_path / "out").values()))
    asked = registry.task(task)
    samples = {f"{s.id}": s for s in asked.samples(split, root)}
    assert found
    matched = 0
    for conversation in found:
        assert all(Path(path).is_file() for path in conversation.images)
        sample = samples.get(conversation.id.partition("/")[2])
        if sample is None:  # DriveLM's second form of a question has a number of its own
            continue
        text = asked.request(sample).messages[-1].text
        bare = conversation.turns[0].text.replace("<image>\n", "")
        if task == "drivelm" and bare != text.replace("<image>\n", ""):
            continue
        matched += 1
        assert bare == text.replace("<image>\n", "")
        answer = conversation.turns[1].text
        if task == "dior-rsvg":
            width, height = sample.data["size"]
            box = double_bracketed_box(answer, width, height)
            assert box is not None
            assert all(
                abs(a - b) <= max(width, height) / 1000 for a, b in zip(box, sample.target, strict=True)
            )
        elif task == "drivelm":
            assert decode_tags(answer).split("<c")[0] == str(sample.target).split("<c")[0]
        else:
            assert answer == sample.target
    assert matched > len(found) / 2


def test_clips_of_bdd_x_are_asked_as_the_evaluation_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = drawn("bdd-x", tmp_path / "data", monkeypatch)
    convert("bdd-x", root, tmp_path / "out", "miniature")
    (clips,) = conversations(tmp_path / "out").values()
    task = registry.task("bdd-x")
    samples = list(task.samples("miniature", root))
    assert len(samples) == 4 * len(clips)
    for clip, place in zip(clips, range(0, len(samples), 4), strict=True):
        turns = [turn.text for turn in clip.turns]
        for sample, asked, said in zip(samples[place : place + 4], turns[::2], turns[1::2], strict=True):
            text = task.request(sample).messages[-1].text
            assert text.endswith(asked)
            if isinstance(sample.target, str):
                assert said == sample.target
            else:
                assert {signal: read_signal(said, signal) for signal in sample.target} == sample.target
        assert turns[0] == task.request(samples[place]).messages[-1].text
        assert "<image>" not in "".join(turns[1:])


@pytest.mark.slow
def test_real_samples_of_drivelm(shared_dir: Path, tmp_path: Path) -> None:
    convert("drivelm", shared_dir / "data/drivelm", tmp_path, "train")
    found = conversations(tmp_path)
    first = found["drivelm"][0]
    assert upright_size(first.images[0], "") == (2688, 896)
    assert all(item.max_tiles == 12 for item in found["drivelm"])
    official = json.loads((shared_dir / "data/drivelm/train_sample.json").read_text())
    pairs = [
        (pair["Q"], pair["A"])
        for scene in official.values()
        for frame in scene["key_frames"].values()
        for kind in frame["QA"].values()
        for pair in kind
    ]
    learned = {(item.turns[0].text, item.turns[1].text) for item in found["drivelm"]}
    plain = [(asked, re.sub("<box>.*?</box>", "", said)) for asked, said in learned]
    answers: dict[str, set[str]] = {}  # some questions come twice, with other answers too
    for question, answer in pairs:
        answers.setdefault(question, set()).add(encode_tags(answer))
    for question, known in answers.items():
        assert any(
            asked.startswith(f"<image>\n{encode_tags(question)}") and said in known for asked, said in plain
        )
    lists = [said for asked, said in learned if "What are the important objects in the current" in asked]
    assert lists
    assert all("<box>[[" in said for said in lists)
    asked = [(item.images[0], item.turns[0].text) for item in found["drivelm"]]
    assert len(asked) == len(set(asked))
    letters = [item for item in found["drivelm"] if item.turns[1].text in ("A", "B", "C", "D")]
    assert letters
    assert all("Please select the correct answer" in item.turns[0].text for item in letters)
    boxes = [item.turns[1].text for item in found["drivelm_objects"]]
    assert all(text.startswith("<ref>") and text.endswith("]]</box>") for text in boxes)


def test_real_samples_of_rsvqa_and_bdd_x(shared_dir: Path, tmp_path: Path) -> None:
    (written,) = convert("rsvqa", shared_dir / "data/rsvqa-lr", tmp_path / "rsvqa")
    (found,) = conversations(tmp_path / "rsvqa").values()
    assert written.samples == len(found)
    assert all(Path(item.images[0]).suffix == ".tif" for item in found)
    assert all(item.turns[0].text.endswith("using a single word or phrase.") for item in found)
    convert("bdd-x", shared_dir / "data/bdd-x/RAG-Driver", tmp_path / "bdd", "test")
    (clips,) = conversations(tmp_path / "bdd").values()
    assert clips[0].video is not None
    assert clips[0].turns[0].text.startswith("<video>\nThis is a video")
    assert clips[0].turns[1].text == "The car comes to a quick stop"


def test_a_real_sample_of_dior_rsvg(shared_dir: Path, tmp_path: Path) -> None:
    """The one object of the sample, under a list that names no other: its box there and back."""
    official = shared_dir / "data/dior-rsvg"
    root = tmp_path / "data"
    for name in ("Annotations", "JPEGImages"):
        shutil.copytree(official / name, root / name)
    (root / "train.txt").write_text("0\n")
    convert("dior-rsvg", root, tmp_path / "out")
    found = conversations(tmp_path / "out")
    (sample,) = DiorRsvg().samples("train", root)
    width, height = sample.data["size"]
    asked = found["dior_rsvg"][0].turns[0].text
    assert asked == f"<image>\n{DiorRsvg().request(sample).messages[-1].text}"
    for name in ("dior_rsvg", "dior_rsvg_regions"):
        box = double_bracketed_box(found[name][0].turns[1].text, width, height)
        assert box == pytest.approx(sample.target, abs=max(width, height) / 2000 + 1e-6)
    (drawn_in,) = found["dior_rsvg_drawn"][0].images
    left, top, right, _ = sample.target
    with Image.open(drawn_in) as picture:
        red, green, blue = picture.getpixel((round((left + right) / 2), round(top)))
    assert red > 150 > max(green, blue)


def test_an_incomplete_dior_rsvg_is_refused(shared_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wrong objects"):
        convert("dior-rsvg", shared_dir / "data/dior-rsvg", tmp_path)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for label in ("river", "dense_houses"):
        for number in range(2):
            path = tmp_path / "data/train" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (10, 100, 200)).save(path)
    return tmp_path / "data"


def test_classification_lists_its_classes(classes: Path, tmp_path: Path) -> None:
    (written,) = convert("classification", classes, tmp_path / "out")
    (found,) = conversations(tmp_path / "out").values()
    assert written.samples == 4
    for item in found:
        assert item.turns[1].text == Path(item.images[0]).parent.name.replace("_", " ")
    lists = [item.turns[0].text.partition(": ")[2].partition(".")[0].split(", ") for item in found]
    assert all(set(listed) == {"river", "dense houses"} for listed in lists)
    places = {listed.index(item.turns[1].text) for item, listed in zip(found, lists, strict=True)}
    assert places == {0, 1}  # the answer is not always the first
    (classes / "train.csv").write_text("image,label\ntrain/river/0.png,water\n")
    convert("classification", classes, tmp_path / "table")
    (listed,) = conversations(tmp_path / "table").values()
    assert [item.turns[1].text for item in listed] == ["water"]
    (classes / "train.csv").write_text("image,label\ntrain/river/0.png,\n")
    with pytest.raises(DataError, match="line 2"):
        convert("classification", classes, tmp_path / "broken")
    with pytest.raises(DataError, match="neither"):
        convert("classification", tmp_path / "nothing", tmp_path / "none")


def test_converted_files_train(classes: Path, tmp_path: Path) -> None:
    convert("classification", classes, tmp_path / "out")
    model = write_checkpoint(tmp_path / "model")
    settings: dict[str, Any] = {"data__max_tokens": 2000}
    recipe = read_recipe(write_recipe(tmp_path, model, tmp_path / "out/meta.json", **settings))
    start = load_start(recipe)
    assert len(read_training_set(recipe.data, start.encoder, start.tiling)) == 4


def test_thousandths_are_rounded_and_within_the_picture() -> None:
    assert thousandths((0, 0, 50, 100), (100, 200)) == "<box>[[0, 0, 500, 500]]</box>"
    assert thousandths((-3, 1, 101, 200), (100, 200)) == "<box>[[0, 5, 1000, 1000]]</box>"


@pytest.mark.parametrize("value", [{"text": "a"}, 5, None])
def test_what_is_no_text_becomes_none(value: object, tmp_path: Path) -> None:
    from evalkit.errors import DataError
    from mini_internvl_train.convert.bdd_x import _answers
    from mini_internvl_train.convert.drivelm import _questions

    frame = {"QA": {"perception": [{"Q": value, "A": "b"}]}}
    with pytest.raises(DataError, match=r"frame 1.* 'Q' is .*not text"):
        list(_questions(frame, "name", "frame 1"))
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": value}]
    (tmp_path / "test.json").write_text(json.dumps([{"id": "0", "conversations": turns}]))
    with pytest.raises(DataError, match=r"test.json: item 0: field 'value' is .*not text"):
        _answers(tmp_path, "test")
