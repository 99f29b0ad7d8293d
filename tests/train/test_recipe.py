"""Recipes: every packaged one reads, and a wrong one says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from mini_internvl_train.errors import RecipeError
from mini_internvl_train.recipe import packaged, read_recipe

MINIMAL = "name: a\nmodel: mini-internvl-tiny\noutput: out\ndata: {meta: meta.json}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_minimal_recipe_has_the_published_defaults(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL))
    assert recipe.optimizer.lr == 1e-5
    assert recipe.packing.max_tokens == 16384
    assert recipe.weighting == "square"


@pytest.mark.parametrize("domain", ["drivelm", "bdd-x", "medical", "remote-sensing"])
@pytest.mark.parametrize("size", ["1b", "2b", "4b"])
def test_published_domain_recipes(domain: str, size: str) -> None:
    recipe = read_recipe(f"{domain}-{size}")
    assert recipe.model == f"mini-internvl-{size}"
    assert recipe.optimizer.lr == 1e-5
    steps = {"drivelm": 15100, "bdd-x": 240, "medical": 2200, "remote-sensing": 2500}
    assert recipe.steps.max_steps == steps[domain]


def test_every_packaged_recipe_says_where_its_settings_come_from() -> None:
    for name in packaged():
        assert read_recipe(name).source, name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL + "optimiser: {lr: 1}\n", ["optimiser", "optimizer"]),
        (MINIMAL + "optimizer: {learning_rate: 1}\n", ["learning_rate"]),
        (MINIMAL + "optimizer: {lr: fast}\n", ["lr", "float", "fast"]),
        (MINIMAL + "trainable: everything\n", ["trainable", "full", "lora"]),
        (MINIMAL + "seed: true\n", ["seed", "int"]),
        (MINIMAL + "optimizer: {betas: [0.9]}\n", ["betas", "2 values"]),
        ("name: a\nmodel: b\noutput: c\n", ["data", "must be given"]),
        ("- a\n", ["mapping"]),
        ("a: [\n", ["YAML"]),
        (MINIMAL.replace("{meta: meta.json}", "{meta: m, general_ratio: 0.25}"), ["general_meta"]),
    ],
)
def test_wrong_recipes_say_what_is_wrong(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        read_recipe(write(tmp_path, text))
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="drivelm-2b"):
        read_recipe("driveml-2b")


def test_overrides_and_fingerprint(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    plain = read_recipe(path)
    moved = read_recipe(path, {"output": "elsewhere", "checkpoints.every": "5"})
    hotter = read_recipe(path, {"optimizer.lr": "1e-3"})
    assert moved.checkpoints.every == 5
    assert moved.fingerprint() == plain.fingerprint()
    assert hotter.optimizer.lr == 1e-3
    assert hotter.fingerprint() != plain.fingerprint()
