"""A question or answer that is no text is refused, in every task's reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.errors import DataError
from evalkit_tasks.remote_sensing import geochat

WRONG: list[Any] = [{"text": "yes"}, 5, 1.5, True, None]
#: Task, its split, the official file, and fields that must be text.
FILES = [
    ("chartqa", "test", "test/test_human.json", ("imgname", "query", "label")),
    ("docvqa", "val", "val/val_v1.0.json", ("question", "image", "answers")),
    ("infovqa", "val", "infographicsVQA_val_v1.0.json", ("question", "image_local_name", "answers")),
    ("textvqa", "val", "TextVQA_0.5.1_val.json", ("question", "image_id", "answers")),
    ("mathvista", "testmini", "data/testmini.json", ("question", "answer", "question_type", "image")),
    (
        "mme-realworld-driving",
        "test",
        "MME_RealWorld.json",
        ("Text", "Ground truth", "Image", "Task", "Answer choices"),
    ),
    ("drivelm", "miniature", "test_eval.json", ("Q", "CAM_FRONT")),
    ("bdd-x", "test", "test.json", ("value",)),
    ("rsvqa-lr", "test", "LR_split_test_questions.json", ("question", "type")),
    ("rsvqa-hr", "test1", "USGS_split_test_answers.json", ("answer",)),
]


def spoil(content: Any, field: str, value: Any) -> bool:
    """Put `value` into the first `field` found; in a list of texts, into its first element."""
    if isinstance(content, dict) and field in content:
        if isinstance(content[field], list):
            content[field][0] = value
        else:
            content[field] = value
        return True
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return any(spoil(each, field, value) for each in inner)


@pytest.mark.parametrize(("task", "split", "name", "names"), FILES, ids=[case[0] for case in FILES])
def test_official_json(task: str, split: str, name: str, names: tuple[str, ...], tmp_path: Path) -> None:
    chosen = registry.task(task)
    assert chosen.data_source.draw is not None
    chosen.data_source.draw(tmp_path)
    whole = (tmp_path / name).read_text(encoding="utf-8")
    assert list(chosen.samples(split, tmp_path))
    for field in names:
        for value in WRONG:
            content = json.loads(whole)
            assert spoil(content, field, value)
            (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
            with pytest.raises(DataError, match="not text") as caught:
                list(chosen.samples(split, tmp_path))
            assert Path(name).name in str(caught.value) and field in str(caught.value)


def test_references_of_drivelm_are_text_or_absent(tmp_path: Path) -> None:
    task = registry.task("drivelm")
    assert task.data_source.draw is not None
    task.data_source.draw(tmp_path)
    path = tmp_path / "test_eval.json"
    whole = path.read_text(encoding="utf-8")
    for value in WRONG:
        content = json.loads(whole)
        assert spoil(content, "A", value)
        path.write_text(json.dumps(content), encoding="utf-8")
        if value is None:
            assert next(iter(task.samples("miniature", tmp_path))).target is None
        else:
            with pytest.raises(DataError, match=r"'A' is .*not text"):
                list(task.samples("miniature", tmp_path))


@pytest.mark.parametrize("value", WRONG)
def test_lists_of_other_projects(value: Any, tmp_path: Path) -> None:
    row = {"image": "a.png", "question": "q", "answer": value}
    for subset in ("human", "augmented"):
        (tmp_path / f"test_{subset}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError, match=r"test_human.jsonl: line 1: field 'answer' is .*not text"):
        list(registry.task("chartqa").samples("test", tmp_path))
    rows = {"question_id": 1, "category": "presence", "text": value, "image": "a.tif", "ground_truth": "yes"}
    (tmp_path / "hrben.jsonl").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"hrben.jsonl: line 1: field 'text' is .*not text"):
        list(geochat.questions(tmp_path / "hrben.jsonl", ("presence",)))


@pytest.mark.parametrize(
    ("task", "split", "cells", "field"),
    [
        ("chartqa", "test", {"type": "human_test", "question": "q", "answer": [5]}, "answer"),
        ("docvqa", "val", {"questionId": "1", "question": 5, "answers": ["a"]}, "question"),
        ("textvqa", "val", {"question_id": 1, "question": "q", "answers": [1] * 10}, "answers"),
        ("ai2d", "test", {"question": None, "options": ["a", "b"], "answer": "1"}, "question"),
        (
            "mmmu",
            "val",
            {"id": "v", "question": "q", "options": "['a', {'b': 1}]", "answer": "A"},
            "list of texts",
        ),
    ],
)
def test_parquet(task: str, split: str, cells: dict[str, Any], field: str, tmp_path: Path) -> None:
    column = "image_1" if task == "mmmu" else "image"
    table = pyarrow.Table.from_pylist([{**cells, column: {"bytes": b"x", "path": "a.png"}}])
    names = {"docvqa": "validation", "textvqa": "validation", "mmmu": "validation"}
    folder = tmp_path / "DocVQA" if task == "docvqa" else tmp_path
    folder.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(table, folder / f"{names.get(task, 'test')}-00000-of-00001.parquet")
    with pytest.raises(DataError, match=field) as caught:
        list(registry.task(task).samples(split, tmp_path))
    assert "00000-of-00001.parquet" in str(caught.value)


def test_the_command_says_it_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = registry.task("chartqa")
    assert task.data_source.draw is not None
    task.data_source.draw(tmp_path)
    path = tmp_path / "test/test_human.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content[3]["label"] = {"value": 4}
    path.write_text(json.dumps(content), encoding="utf-8")
    capsys.readouterr()
    assert invoke(["data", "check", "chartqa", "--data-root", str(tmp_path)]) == 3
    out, err = capsys.readouterr()
    assert "test_human.json item 3: field 'label' is dict ({'value': 4}), not text" in out + err
    assert "an error in evalkit" not in out + err
