"""Damage after hours is not the end: it stops, and goes on from there by --skip-bad or a repaired file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_training import make_recipe

from evalkit.cli.main import invoke
from mini_internvl_train.errors import ResumeError, TrainingDataError
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.log import read_log
from mini_internvl_train.plan import plan_data
from mini_internvl_train.recipe import Recipe, read_recipe
from mini_internvl_train.start import load_start

QUIET: dict[str, Any] = {"say": lambda line: None, "quiet": True}
#: A sample a step, so that the step of each is known.
SINGLE: dict[str, Any] = {"packing__enabled": False, "steps__packs_per_step": 1, "checkpoints__every": 100}


def equal(one: Path, other: Path) -> bool:
    left, right = (load_file(folder / "model.safetensors") for folder in (one, other))
    return all(torch.equal(left[name], right[name]) for name in left)


def picture_of_step(recipe: Recipe, step: int) -> Path:
    """An image that is first seen in a step, counted from 0."""
    samples, order = plan_data(recipe, load_start(recipe))
    return Path(samples.sample(order.step(step)[0].samples[0]).conversation.images[0])


def cut(path: Path) -> bytes:
    """Cuts an image behind its header; returns what it was."""
    content = path.read_bytes()
    os.truncate(path, len(content) - 30)
    return content


def steps_of(recipe: Recipe) -> list[tuple[int, int]]:
    lines = read_log(Path(recipe.output) / "log.jsonl")
    return [(line["step"], line["samples"]) for line in lines if "samples" in line]


def photographs(folder: Path) -> None:
    """Images in place of the small ones that are cut without losing their header."""
    for path in sorted((folder / "data/pictures").glob("*.png")):
        with Image.open(path) as picture:
            size = picture.size
        Image.effect_noise(size, 90).convert("RGB").save(path, "JPEG")


def damaged(folder: Path, step: int, **settings: Any) -> tuple[Recipe, Path, bytes]:
    """A training that stopped at the damaged image of a step."""
    recipe = make_recipe(folder, **{**SINGLE, **settings})
    photographs(folder)
    path = picture_of_step(recipe, step)
    content = cut(path)
    with pytest.raises(TrainingDataError, match=rf"{path.name}.*--skip-bad, and the same command goes on"):
        train(recipe, **QUIET)
    return recipe, path, content


def test_a_repaired_file_goes_on_to_the_undisturbed_weights(tmp_path: Path) -> None:
    recipe, path, content = damaged(tmp_path, 3)
    assert steps_of(recipe) == [(1, 1), (2, 1), (3, 1)]
    assert (tmp_path / "out/step-000003").is_dir()
    path.write_bytes(content)
    said: list[str] = []
    train(recipe, say=said.append, quiet=True)
    assert any("files of 1 samples of colours" in line for line in said)
    whole = read_recipe(tmp_path / "recipe.yaml", {"output": str(tmp_path / "whole")})
    train(whole, **QUIET)
    assert equal(tmp_path / "whole/final", tmp_path / "out/final")


def test_skip_bad_goes_on_without_the_damaged_image(tmp_path: Path) -> None:
    recipe, path, content = damaged(tmp_path, 3, drop_path=0.0)
    skipping = read_recipe(tmp_path / "recipe.yaml", {"data.skip_bad": "true"})
    said: list[str] = []
    train(skipping, say=said.append, quiet=True)
    assert "changed: data.skip_bad was False, is True; the 3 steps done stay as they are" in said
    assert steps_of(recipe) == [(1, 1), (2, 1), (3, 1), (4, 0), (5, 1), (6, 1)]
    resumed = [line for line in read_log(tmp_path / "out/log.jsonl") if "resumed" in line]
    assert resumed == [{"step": 3, "resumed": ["data.skip_bad was False, is True"]}]
    undisturbed = read_recipe(
        tmp_path / "recipe.yaml", {"data.skip_bad": "true", "output": str(tmp_path / "a")}
    )
    train(undisturbed, **QUIET)
    assert equal(tmp_path / "a/final", tmp_path / "out/final")
    path.write_bytes(content)  # repaired later, it is learned from then on
    longer = read_recipe(tmp_path / "recipe.yaml", {"steps.max_steps": "16"})
    said.clear()
    train(longer, say=said.append, quiet=True)
    assert "changed: steps.max_steps was 6, is 16; the 6 steps done stay as they are" in said
    assert [samples for _, samples in steps_of(recipe)][6:] == [1] * 10


def test_damage_inside_packs(tmp_path: Path) -> None:
    packed = {"packing__enabled": True, "steps__packs_per_step": 2, "drop_path": 0.0}
    recipe, path, content = damaged(tmp_path, 1, **packed)
    before = len(steps_of(recipe))
    train(read_recipe(tmp_path / "recipe.yaml", {"data.skip_bad": "true"}), **QUIET)
    path.write_bytes(content)
    whole = read_recipe(tmp_path / "recipe.yaml", {"output": str(tmp_path / "whole")})
    train(whole, **QUIET)
    missing = [b - a for (_, a), (_, b) in zip(steps_of(recipe), steps_of(whole), strict=True)]
    assert sum(missing[:before]) == 0 and set(missing[before:]) == {0, 1}


@pytest.mark.parametrize("fault", ["gone", "text"])
def test_a_file_that_loses_its_header_or_itself_on_the_way(tmp_path: Path, fault: str) -> None:
    recipe = make_recipe(tmp_path, **{**SINGLE, "steps__max_steps": 2})
    train(recipe, **QUIET)
    path = picture_of_step(recipe, 3)
    content = path.read_bytes()
    path.unlink() if fault == "gone" else path.write_text("no image")
    longer = {"steps.max_steps": "5"}
    with pytest.raises(TrainingDataError, match=path.name):
        train(read_recipe(tmp_path / "recipe.yaml", longer), **QUIET)
    train(read_recipe(tmp_path / "recipe.yaml", {**longer, "data.skip_bad": "true"}), **QUIET)
    assert [samples for _, samples in steps_of(recipe)] == [1, 1, 1, 0, 1]
    path.write_bytes(content)
    train(read_recipe(tmp_path / "recipe.yaml", {"steps.max_steps": "16"}), **QUIET)
    assert [samples for _, samples in steps_of(recipe)][5:] == [1] * 11


def test_an_image_that_was_learned_from_may_not_change(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, **{**SINGLE, "steps__max_steps": 4})
    learned, unseen = (picture_of_step(recipe, step) for step in (1, 5))
    train(recipe, **QUIET)
    longer = read_recipe(tmp_path / "recipe.yaml", {"steps.max_steps": "5"})

    def noise(path: Path) -> None:
        with Image.open(path) as picture:
            size = picture.size
        Image.effect_noise(size, 90).convert("RGB").save(path)

    noise(unseen)
    train(longer, **QUIET)
    noise(learned)
    with pytest.raises(
        ResumeError, match=r"the image of colours/\d+ \(.*colours.jsonl:\d+\) has another size"
    ):
        train(read_recipe(tmp_path / "recipe.yaml", {"steps.max_steps": "6"}), **QUIET)


def test_fewer_steps_and_other_settings_are_refused(tmp_path: Path) -> None:
    train(make_recipe(tmp_path, steps__max_steps=2), **QUIET)
    for change, message in (
        ({"steps.max_steps": "1"}, r"steps\.max_steps was 2, is 1"),
        ({"steps.max_steps": "8", "weighting": "token"}, r"\(weighting was 'square', is 'token'\)"),
        ({"data.validation": "0.2"}, r"data\.validation was None, is 0\.2"),
    ):
        with pytest.raises(ResumeError, match=message):
            train(read_recipe(tmp_path / "recipe.yaml", change), **QUIET)


@pytest.mark.parametrize("arguments", [(), ("--skip-bad",)])
def test_damage_among_the_held_out(tmp_path: Path, arguments: Sequence[str], capsys: Any) -> None:
    recipe = make_recipe(tmp_path, data__validation=0.2, steps__max_steps=1)
    photographs(tmp_path)
    samples, _ = plan_data(recipe, load_start(recipe))
    path = Path(samples.sample(samples.held_out[0].indices[0]).conversation.images[0])
    cut(path)
    status = invoke(["train", str(tmp_path / "recipe.yaml"), "-q", *arguments])
    told = capsys.readouterr().err
    assert (status, path.name in told) == (0 if arguments else 3, True)
    if arguments:
        lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
        assert lines[0]["validation"]["colours"]["samples"] == len(samples.held_out[0].indices) - 1
