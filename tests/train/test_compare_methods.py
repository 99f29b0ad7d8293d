"""The methods side by side: what learns and what is stored differ in order; scores come by step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_training import make_recipe

from evalkit.cli.main import invoke


@pytest.mark.slow
def test_three_methods_from_one_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_recipe(tmp_path, steps__max_steps=2, evaluation__runs=str(tmp_path / "runs"))
    recipe = str(tmp_path / "recipe.yaml")
    flags = ["--eval-task", "mmbench", "--eval-split", "miniature", "--eval-limit", "4", "--eval-every", "2"]
    assert invoke(["train", "compare-methods", recipe, *flags, "--json"]) == 0
    methods = json.loads(capsys.readouterr().out)["methods"]
    assert [found["method"] for found in methods] == ["full", "frozen_vit", "lora"]
    learns = [found["learns"] for found in methods]
    assert learns == sorted(learns, reverse=True)
    assert len(set(learns)) == 3
    state = [
        (tmp_path / "out" / found["method"] / "latest/training/optimizer.safetensors").stat().st_size
        for found in methods
    ]
    assert state == sorted(state, reverse=True)
    assert all("mmbench/circular" in found["scores"]["2"] for found in methods)
    first = [
        json.loads((tmp_path / "out" / m / "log.jsonl").read_text().splitlines()[0]) for m in ("full", "lora")
    ]
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], abs=1e-2)
    assert (tmp_path / "out/comparison.md").read_text().startswith("| method | learns |")
    assert invoke(["train", "compare-methods", recipe, "--method", "everything"]) == 2
