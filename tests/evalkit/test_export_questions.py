"""`evalkit export questions`: what a model would be asked, for any program to answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from evalkit.cli.main import invoke


def questions(task: str, path: Path, *flags: str) -> list[dict[str, object]]:
    """The lines written for a task's miniature."""
    assert invoke(["export", "questions", task, "--split", "miniature", "-o", str(path), *flags]) == 0
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("task", ["chartqa", "dior-rsvg", "bdd-x", "drivelm", "mmbench"])
def test_every_question_has_its_prompt_and_images(task: str, tmp_path: Path) -> None:
    lines = questions(task, tmp_path / "new" / "q.jsonl", "--limit", "6")
    assert len(lines) == 6 and len({line["id"] for line in lines}) == 6
    for line in lines:
        images, prompt = line["images"], line["prompt"]
        assert isinstance(images, list) and images and isinstance(prompt, str)
        assert prompt.count("<image>") in (0, len(images))
        for path in images:
            with Image.open(path) as image:
                assert image.width > 1


def test_answers_to_exported_questions_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = questions("dior-rsvg", tmp_path / "q.jsonl")
    answers = [{"id": line["id"], "text": "[[0, 0, 999, 999]]"} for line in lines]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    capsys.readouterr()
    model = f"predictions:{tmp_path / 'a.jsonl'}"
    run = ["run", "-m", model, "-t", "dior-rsvg", "--split", "miniature", "-o", str(tmp_path), "--json"]
    assert invoke(run) == 0
    counts = json.loads(capsys.readouterr().out)["runs"][0]["counts"]
    assert counts["answered"] == counts["expected"] == len(lines) and counts["errors"] == 0


def test_a_file_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["export", "questions", "chartqa@miniature"]) == 2
    assert "-o FILE" in capsys.readouterr().err
