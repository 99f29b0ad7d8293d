"""The methods side by side: what learns and what is stored differ in order; scores come by step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_training import make_recipe

from evalkit.cli.main import invoke

OWN = """
from evalkit_tasks.general.mmbench import MMBench
from evalkit_tasks.miniatures.mmbench import draw

class Own(MMBench):
    name = "own"

    def draw_miniature(self, folder):
        draw(folder)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_three_methods_from_one_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_recipe(tmp_path, steps__max_steps=2, output=str(tmp_path / "elsewhere"))
    recipe = str(tmp_path / "recipe.yaml")
    flags = ["--eval-task", "own", "--eval-split", "miniature", "--eval-limit", "4", "--eval-every", "2"]
    included = tmp_path / "own.py"
    included.write_text(OWN)
    output = ["-o", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--include", str(included)]
    assert invoke(["train", "compare-methods", recipe, *flags, *output, "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert [point["label"] for point in points] == ["full", "frozen_vit", "lora"]
    methods = [point["trainings"][0] for point in points]
    learns = [found["learns"] for found in methods]
    assert learns == sorted(learns, reverse=True)
    assert len(set(learns)) == 3
    state = [
        (Path(found["output"]) / "latest/training/optimizer.safetensors").stat().st_size for found in methods
    ]
    assert state == sorted(state, reverse=True)
    assert all("own/circular" in found["scores"]["2"] for found in methods)
    lines = [(tmp_path / "out" / m / "log.jsonl").read_text().splitlines() for m in ("full", "lora")]
    first = [next(line["loss"] for line in map(json.loads, log) if "loss" in line) for log in lines]
    assert first[0] == pytest.approx(first[1], abs=1e-2)
    assert "| point | learns |" in (tmp_path / "out/sweep.md").read_text()
    assert invoke(["train", "compare-methods", recipe, "--method", "everything"]) == 2


@pytest.mark.slow
def test_two_trainings_at_once_and_one_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In processes of their own; both need the base model's scores, and one takes them."""
    make_recipe(tmp_path, steps__max_steps=1)
    varied = ["--vary", "optimizer.stop_norm=1e-6,1000", "--at-once", "2"]
    flags = ["--eval-task", "docvqa", "--eval-split", "miniature", "--eval-limit", "2"]
    runs = tmp_path / "runs"
    recipe = str(tmp_path / "recipe.yaml")
    assert invoke(["train", "sweep", recipe, *varied, *flags, "--runs", str(runs), "-o", str(tmp_path)]) == 3
    shown = capsys.readouterr()
    told = shown.err.splitlines()
    assert ["training in" in line for line in told[:2]] == [True, True]
    assert any("training ended with status 1: step 1: gradient norm" in line for line in told)
    assert "step 1: gradient norm" in shown.out
    assert len(list(runs.glob("*@step-000000"))) == len(list(runs.glob("*@step-000001"))) == 1
