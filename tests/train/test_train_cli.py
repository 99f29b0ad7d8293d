"""`evalkit train`: recipes by name, plan, merge, convert, evaluation during training, errors in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from small_training import make_recipe

from evalkit.cli.main import invoke


def test_plan_says_what_it_takes_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_recipe(tmp_path)
    recipe = str(tmp_path / "recipe.yaml")
    assert invoke(["train", "plan", recipe, "--flops", "1e9"]) == 0
    text = capsys.readouterr().out
    for words in ("vision encoder", "expected memory", "12 samples", "steps: 6 of 2 packs", "as stated"):
        assert words in text
    assert not (tmp_path / "out").exists()
    assert invoke(["train", "plan", recipe, "--json", "--flops", "1e9", "--set", "trainable=lora"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 6
    assert plan["hours"] > 0
    assert [part["part"] for part in plan["parts"]][-1] == "LoRA adapters"
    assert plan["memory"]["optimizer"] == 8 * plan["parts"][-1]["trainable"]
    assert plan["memory"]["gradients"] == 4 * plan["parts"][-1]["trainable"]


def test_train_then_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_recipe(tmp_path, trainable="lora", steps__max_steps=1)
    assert invoke(["train", str(tmp_path / "recipe.yaml"), "-q"]) == 0
    assert (tmp_path / "out/final/model.safetensors").is_file()
    assert invoke(["train", "merge", str(tmp_path / "out/latest"), "-o", str(tmp_path / "merged")]) == 0
    assert "logits differ" in capsys.readouterr().out
    assert (tmp_path / "merged/model.safetensors").is_file()


def test_evaluation_during_training_is_ordinary_run_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_recipe(tmp_path, steps__max_steps=3)
    runs = str(tmp_path / "runs")
    recipe = str(tmp_path / "recipe.yaml")
    flags = ["--eval-task", "mmbench", "--eval-split", "miniature", "--eval-limit", "6", "--eval-every", "2"]
    assert invoke(["train", recipe, "-q", *flags, "--runs", runs]) == 0
    logged = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "evaluation" in line] == [0, 2, 3]
    capsys.readouterr()
    assert invoke(["history", "-m", "small@*", "-t", "mmbench", "-o", runs, "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert [point["checkpoint"] for point in points] == ["step-000000", "step-000002", "step-000003"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["train", "drivelm-9b"], 2, "drivelm-1b"),
        (["train", "RECIPE", "--set", "optimiser.lr=1"], 2, "optimizer"),
        (["train", "RECIPE", "--set", "nonsense"], 2, "KEY=VALUE"),
        (["train", "RECIPE", "--set", "data.meta=/nowhere.json"], 3, "meta file missing"),
        (["train", "RECIPE", "--set", "model=/nowhere"], 3, "nowhere"),
        (["train", "RECIPE", "--eval-task", "nonsense"], 2, "nonsense"),
        (["train", "merge", "DATA"], 3, "only LoRA"),
        (["train", "convert", "rsvqq", "--data-root", ".", "-o", "x"], 2, "rsvqa-lr"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    make_recipe(tmp_path)
    places = {"RECIPE": str(tmp_path / "recipe.yaml"), "DATA": str(tmp_path / "data")}
    assert invoke([places.get(argument, argument) for argument in arguments]) == status
    told = capsys.readouterr().err.strip()
    assert words in told
    assert told.startswith("evalkit: error:")
    assert len(told.splitlines()) == 1


def test_bad_lines_are_skipped_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_recipe(tmp_path, steps__max_steps=1)
    with (tmp_path / "data/colours.jsonl").open("a") as file:
        file.write('{"image": "missing.png", "conversations": [{"from": "human", "value": "?"}]}\n')
    recipe = str(tmp_path / "recipe.yaml")
    assert invoke(["train", recipe, "-q"]) == 3
    assert "colours.jsonl:13" in capsys.readouterr().err
    assert invoke(["train", recipe, "-q", "--skip-bad"]) == 0
    assert "left out" in capsys.readouterr().err


def test_damaged_pictures_and_samples_that_fit_no_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_recipe(tmp_path, steps__max_steps=1, steps__packs_per_step=12, data__max_tokens=5000)
    pictures = tmp_path / "data/pictures"
    cut = pictures / "cut.jpg"
    Image.effect_noise((200, 200), 50).save(cut)
    cut.write_bytes(cut.read_bytes()[:3000])
    asked = [{"from": "human", "value": "<image>" * 12}, {"from": "gpt", "value": "red"}]
    lines = [
        {"image": "cut.jpg", "conversations": [{"from": "human", "value": "?"}, asked[1]]},
        {"image": [next(pictures.glob("*.png")).name] * 12, "conversations": asked},
    ]
    recipe = str(tmp_path / "recipe.yaml")
    for line, words in zip(lines, ("cannot be read as an image", "12 tiles exceed a pack"), strict=True):
        make_recipe(tmp_path, steps__max_steps=1, steps__packs_per_step=12, data__max_tokens=5000)
        with (tmp_path / "data/colours.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        assert invoke(["train", recipe, "-q", "-o", str(tmp_path / words[:6])]) == 3
        told = capsys.readouterr().err
        assert "colours.jsonl:13" in told
        assert words in told
        assert invoke(["train", recipe, "-q", "--skip-bad", "-o", str(tmp_path / words[:6])]) == 0
        assert "left out 1 of 13 lines" in capsys.readouterr().err


def test_quiet_prints_nothing_and_else_the_steps_to_the_final_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_recipe(tmp_path, steps__max_steps=1)
    recipe = str(tmp_path / "recipe.yaml")
    assert invoke(["train", recipe, "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert invoke(["train", recipe, "-o", str(tmp_path / "again")]) == 0
    assert f"final model: {tmp_path / 'again/final'}" in capsys.readouterr().out


WITHOUT = """
import sys
from evalkit.cli.main import invoke
sys.modules["accelerate"] = None  # as if it were not installed
for command in (["run"], ["sweep", "--vary", "seed=1,2"], ["compare-methods"]):
    print(invoke(["train", command[0], sys.argv[1], *command[1:]]), flush=True)
"""


def test_without_the_extra_every_command_names_it(tmp_path: Path) -> None:
    make_recipe(tmp_path, steps__max_steps=1)
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "recipe.yaml")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.split() == ["2"] * 3, told
    lines = told.stderr.splitlines()
    assert len(lines) == 3 and all("needs the package" in line and "[train]'" in line for line in lines)
