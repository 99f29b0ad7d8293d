"""Lines of ms-swift and LLaMA-Factory train like InternVL's; nothing of a line is lost in silence."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mini_internvl_train.conversations import Conversation, DataSet, parse_line, read_lines
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.line_forms import internvl_line

TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
MESSAGES = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "A cat."}]
PARTS = ({"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"})
SAME: list[dict[str, Any]] = [
    {"image": "a.png", "conversations": TURNS},
    {"images": ["a.png"], "conversations": TURNS},
    {"images": [{"path": "a.png", "bytes": None}], "messages": MESSAGES},
    {"images": "a.png", "messages": MESSAGES, "tools": None, "objects": {}},
    {"images": ["a.png"], "query": "<image>\nWhat?", "response": "A cat."},
    {
        "messages": [
            {
                "role": "user",
                "content": [*PARTS],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        ]
    },
]


def read(folder: Path, content: str) -> list[Conversation]:
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    path = folder / "lines"
    path.write_text(content, encoding="utf-8")
    data_set = DataSet("set", folder, path)
    return [parse_line(data_set, line) for line in read_lines(data_set)]


@pytest.mark.parametrize("line", SAME)
def test_every_form_is_the_same_sample(tmp_path: Path, line: dict[str, Any]) -> None:
    plain = read(tmp_path, json.dumps({"id": "1", "image": "a.png", "conversations": TURNS}))
    assert read(tmp_path, json.dumps({"id": "1", **line})) == plain


@pytest.mark.parametrize("line", SAME[1:4])
def test_a_system_key_is_the_system_turn(tmp_path: Path, line: dict[str, Any]) -> None:
    (sample,) = read(tmp_path, json.dumps({**line, "system": "Be short."}))
    assert (sample.turns[0].role, sample.turns[0].text) == ("system", "Be short.")
    assert len(sample.turns) == 3


def test_what_a_key_of_another_program_means_for_a_line() -> None:
    line = {"image": "a.png", "conversations": TURNS}
    ignored = "id width height width_list height_list length source category type split"
    for key in ignored.split():
        assert internvl_line({**line, key: 7}, "line 1").unread == (), key
    decisive = "tools objects rejected_response rejected_messages chosen rejected loss kto_tag"
    for key in decisive.split():
        with pytest.raises(TrainingDataError, match=f"line 1: '{key}' is not read"):
            internvl_line({**line, key: 7}, "line 1")
        assert internvl_line({**line, key: None}, "line 1").unread == ()
    assert internvl_line({**line, "mood": 7, "note": "", "more": "b"}, "line 1").unread == ("mood", "more")
    for value in ("b.WEBP", ["b.mp4"], {"at": ["x", {"y": "b.flac"}]}):
        with pytest.raises(TrainingDataError, match="'mood' is not read"):
            internvl_line({**line, "mood": value}, "line 1")


def test_history_comes_first(tmp_path: Path) -> None:
    line = {"history": [["a?", "b"], ["c?", "d"]], "query": "e?", "response": "f"}
    (sample,) = read(tmp_path, json.dumps(line))
    assert [turn.text for turn in sample.turns] == ["a?", "b", "c?", "d", "e?", "f"]


def test_a_json_list_is_read_as_its_elements(tmp_path: Path) -> None:
    lines = [{"id": str(i), "images": ["a.png"], "conversations": TURNS, "ünï": "码"} for i in range(5)]
    samples = read(tmp_path, json.dumps(lines, indent=1, ensure_ascii=False))
    assert [sample.id for sample in samples] == [f"set/{i}" for i in range(5)]
    assert samples[3].where.endswith("lines:4")
    data = (tmp_path / "lines").read_bytes()
    for line in read_lines(DataSet("set", tmp_path, tmp_path / "lines")):
        assert data[line.offset : line.offset + len(line.content)] == line.content
    one = json.dumps(lines[0])
    for torn in ("[", f"[{one}", f"[{one} {one}]", f"[{one},,]"):
        with pytest.raises(TrainingDataError, match="not a JSON list"):
            read(tmp_path, torn)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"image_path": "a.png", "conversations": TURNS}, "'image_path' is not read"),
        ({"extra": {"pic": ["x/Y.JPG"]}, "conversations": TURNS}, "'extra' is not read"),
        ({"image": "a.png", "images": ["a.png"], "conversations": TURNS}, "image and images"),
        ({"messages": MESSAGES, "conversations": TURNS}, "one form of messages"),
        ({"images": ["a.png"], "messages": MESSAGES, "objects": {"bbox": [[1, 2, 3, 4]]}}, "'objects'"),
        ({"images": ["a.png"], "messages": MESSAGES, "rejected_response": "A dog."}, "'rejected_response'"),
        (
            {"images": ["a.png"], "messages": [{**MESSAGES[0], "loss": False}, MESSAGES[1]]},
            "loss of message 1",
        ),
        ({"images": ["http://x/a.png"], "messages": MESSAGES}, "download the images"),
        ({"images": [{"bytes": "xx"}], "messages": MESSAGES}, "must be paths"),
        ({"videos": ["a.mp4", "b.mp4"], "messages": MESSAGES}, "one a line"),
        ({"instruction": "What?", "output": "A cat."}, "no conversations, messages"),
        ({"query": "What?"}, "one form of messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "needs role"),
        ({"system": "a", "messages": [{"role": "system", "content": "b"}, *MESSAGES]}, "given once"),
    ],
)
def test_what_would_be_lost_is_refused_by_name(tmp_path: Path, line: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingDataError, match=words):
        read(tmp_path, json.dumps(line))


def test_keys_that_teach_nothing_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = {"image": "a.png", "conversations": TURNS, "model": "x", "width": 4, "note": ""}
    with caplog.at_level(logging.INFO):
        read(tmp_path, f"{json.dumps(line)}\n{json.dumps({**line, 'images': None})}\n")
    assert [record.message for record in caplog.records] == ["set: 'model' of its lines: not read"]


def test_the_form_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read(tmp_path, "\n".join(json.dumps(SAME[2]) for _ in range(3)))
    (record,) = caplog.records
    assert "form messages" in record.message
