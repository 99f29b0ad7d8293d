"""The demonstration's data: asked as evaluation asks, and never a picture of the miniature."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import evalkit
from evalkit import registry
from evalkit.comparison import Key
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


@pytest.mark.parametrize(
    ("domain", "general", "status"),
    [("improved", "no_evidence", 0), ("no_evidence", "improved", 1), ("regressed", "improved", 1)],
)
def test_the_demonstration_fails_where_the_domain_did_not_rise(
    domain: str,
    general: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdicts = dict.fromkeys(demo.HEADLINES, general) | {demo.DOMAIN: domain}
    results = [
        SimpleNamespace(
            key=Key(task, MINIATURE),
            name=name,
            verdict=verdict,
            difference=SimpleNamespace(base=20.0, new=50.0),
        )
        for task, verdict in verdicts.items()
        for name in (demo.HEADLINES[task], "another")
    ]
    monkeypatch.setattr(evalkit, "compare", lambda *runs, output: SimpleNamespace(metrics=results))
    assert demo.summarise("runs", "demo@final") == status
    said = capsys.readouterr().out
    assert f"{demo.DOMAIN} {demo.HEADLINES[demo.DOMAIN]}: 20.0 -> 50.0, {domain}" in said
    assert ("did not rise" in said) == bool(status) and "another" not in said


def test_the_same_data_every_time(drawn: Path, tmp_path: Path) -> None:
    demo.draw_data(tmp_path / "again")
    for name in ("domain", "general"):
        assert _lines(drawn / name / "meta.json") == _lines(tmp_path / "again" / name / "meta.json")
