"""InternVL's training files read as published; bad lines are errors with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mini_internvl_train.conversations import (
    BadLines,
    Conversation,
    left_out,
    parse_line,
    read_lines,
    read_meta,
)
from mini_internvl_train.errors import TrainingDataError


def turns(question: str = "<image>\nWhat?", answer: str = "A cat.") -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def write(folder: Path, *lines: object, **entry: object) -> Path:
    (folder / "a.jsonl").write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
    )
    meta = folder / "meta.json"
    meta.write_text(json.dumps({"set": {"root": "pictures", "annotation": "a.jsonl", **entry}}))
    return meta


def read(meta: Path, bad: BadLines | None = None) -> list[Conversation]:
    found = []
    for data_set in read_meta(meta):
        for line in read_lines(data_set):
            with left_out(bad):
                found.append(parse_line(data_set, line))
    return found


def test_the_four_kinds(tmp_path: Path) -> None:
    meta = write(
        tmp_path,
        {"id": 1, "image": "a.png", "conversations": turns()},
        {"id": "two", "image": ["a.png", "b.png"], "conversations": turns("A <image> B <image>?")},
        {"video": "c.mp4", "conversations": turns("<video>\nWhat happens?"), "clip": [1, 2.5]},
        {"id": 4, "conversations": [{"from": "system", "value": "Be short."}, *turns("Hello", "Hi")]},
        max_dynamic_patch=6,
        data_augment=True,
    )
    one, two, video, text = read(meta)
    assert one.id == "set/1"
    assert one.images == (str(tmp_path / "pictures/a.png"),)
    assert one.max_tiles == 6
    assert one.augment
    assert len(two.images) == 2
    assert video.video == str(tmp_path / "pictures/c.mp4")
    assert video.clip == (1.0, 2.5)
    assert text.images == ()
    assert [turn.role for turn in text.turns] == ["system", "user", "assistant"]
    assert text.where == f"{tmp_path / 'a.jsonl'}:4"


def test_a_missing_mark_goes_in_front(tmp_path: Path) -> None:
    (item,) = read(write(tmp_path, {"image": "a.png", "conversations": turns("What?")}))
    assert item.turns[0].text == "<image>\nWhat?"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"image": "a.png", "image": "b.png", "conversations": []}', "key 'image' occurs twice"),
        ('{"width": NaN, "conversations": []}', "NaN is not a number of JSON"),
        ({"image": 3, "conversations": turns()}, "image must be"),
        ({"image": "a.png"}, "conversations"),
        ({"image": "a.png", "conversations": turns("<image><image>")}, "2 <image> for 1"),
        ({"image": ["a", "b"], "conversations": turns("none")}, "0 <image> for 2"),
        ({"conversations": turns("<image>\nWhat?")}, "without an image"),
        ({"conversations": turns("Hi", " ")}, "nothing to learn"),
        ({"conversations": turns()[:1]}, "alternate"),
        ({"conversations": [{"from": "dog", "value": "x"}]}, "turn 1"),
        ("[" * 100_000, "not JSON"),
        ({"video": "v.mp4", "clip": [1], "conversations": turns("<video>\n?")}, r"clip \[1\]"),
        ({"video": "v.mp4", "clip": [2, 1], "conversations": turns("<video>\n?")}, "clip"),
        ({"video": "v.mp4", "image": "a.png", "conversations": turns("<video>\n?")}, "without image"),
    ],
)
def test_bad_lines_name_file_and_line(tmp_path: Path, line: object, words: str) -> None:
    good = {"conversations": turns("Hello", "Hi")}
    meta = write(tmp_path, good, line, good)
    with pytest.raises(TrainingDataError, match=r"a\.jsonl:2: .*" + words):
        read(meta)
    bad = BadLines()
    assert len(read(meta, bad)) == 2
    assert len(bad.messages) == 1


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"repeat_time": 1.5}, "whole"),
        ({"repeat_time": float("nan")}, "repeat_time nan"),
        ({"repeat_time": float("inf")}, "repeat_time inf"),
        ({"annotation": "b.jsonl"}, "missing"),
        ({"max_dynamic_patch": "many"}, "max_dynamic_patch 'many'"),
        ({"max_dynamic_patch": 41}, "from 1 to 40"),
    ],
)
def test_bad_meta(tmp_path: Path, entry: dict[str, object], words: str) -> None:
    with pytest.raises(TrainingDataError, match=words):
        read_meta(write(tmp_path, {}, **entry))


def test_a_meta_file_is_an_object_of_different_names(tmp_path: Path) -> None:
    meta = write(tmp_path, {})
    entry = meta.read_text()[1:-1]
    meta.write_text(f"{{{entry}, {entry}}}")
    with pytest.raises(TrainingDataError, match="'set' occurs twice"):
        read_meta(meta)
    meta.write_text("[]")
    with pytest.raises(TrainingDataError, match="object of data sets"):
        read_meta(meta)


def test_an_unknown_key_of_a_meta_entry_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_meta(write(tmp_path, {}, repeat_tme=3, length=5))
    assert [record.message.partition(": data set ")[2] for record in caplog.records] == [
        "'set': 'repeat_tme' is not read; did you mean 'repeat_time'?"
    ]


def test_published_meta_files_count_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shell/data").mkdir(parents=True)
    (tmp_path / "playground").mkdir()
    (tmp_path / "playground/a.jsonl").write_text("{}\n")
    meta = tmp_path / "shell/data/meta.json"
    meta.write_text(json.dumps({"a": {"root": "playground/", "annotation": "playground/a.jsonl"}}))
    monkeypatch.chdir(tmp_path)
    (found,) = read_meta(meta)
    assert (found.root, found.annotation) == (Path("playground"), Path("playground/a.jsonl"))
