"""The demonstration's data: asked as evaluation asks, and never a picture of the miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from evalkit import registry
from evalkit.task import MINIATURE
from mini_internvl_train import demo


def _lines(meta: Path) -> list[dict[str, object]]:
    sets = json.loads(meta.read_text(encoding="utf-8"))
    texts = (
        (meta.parent / Path(each["annotation"]).name).read_text(encoding="utf-8") for each in sets.values()
    )
    return [json.loads(line) for text in texts for line in text.splitlines()]


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo, "SCANS", 200)
    monkeypatch.setattr(demo, "GENERAL", {"mmbench": 3, "docvqa": 2})
    demo.draw_data(tmp_path / "data")
    return tmp_path / "data"


def test_training_asks_what_evaluation_asks_of_other_pictures(drawn: Path, tmp_path: Path) -> None:
    task = registry.task(demo.DOMAIN)
    task.data_source.draw(tmp_path)
    lines = _lines(drawn / "domain" / "meta.json")
    first = [line["conversations"][0]["value"].split("\n")[1] for line in lines]  # type: ignore[index]
    pictures = {Image.open(path).tobytes() for path in (drawn / "domain" / "scans").iterdir()}
    for sample in task.samples(MINIATURE, tmp_path):
        assert task.request(sample).messages[-1].text.split("\n")[0] in first
        assert sample.images[0].open().convert("RGB").tobytes() not in pictures


def test_a_general_line_asks_one_question(drawn: Path) -> None:
    lines = _lines(drawn / "general" / "meta.json")
    assert len(lines) > 3 * 4
    assert all(len(line["conversations"]) == 2 for line in lines)  # type: ignore[arg-type]


def test_the_same_data_every_time(drawn: Path, tmp_path: Path) -> None:
    demo.draw_data(tmp_path / "again")
    for name in ("domain", "general"):
        assert _lines(drawn / name / "meta.json") == _lines(tmp_path / "again" / name / "meta.json")
