"""Recipes: every packaged one reads, and a wrong one says what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from evalkit.pipeline.options import RunSettings, options_of
from mini_internvl_train.distill import Distillation
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.optimizer import warmup_steps
from mini_internvl_train.recipe import Evaluation, Recipe, packaged, read_recipe
from mini_internvl_train.settings import read_settings, settings_of

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


def test_published_batches_and_warm_ups() -> None:
    """Samples or packs of a step, and the steps of the warm-up."""
    expected = {
        "drivelm-2b": (8, True, 453), "bdd-x-2b": (64, True, 8), "medical-2b": (64, True, 66),
        "remote-sensing-2b": (64, True, 75), "lora-2b": (16, False, 30), "stage1-1b": (512, True, 100),
        "frozen-vit-2b": (128, False, 30), "stage1-2b": (2048, False, 100), "stage2-2b": (1024, False, 30),
    }  # fmt: skip
    for name, (packs, packed, warm) in expected.items():
        recipe = read_recipe(name)
        assert (recipe.steps.packs_per_step, recipe.packing.enabled) == (packs, packed), name
        assert warmup_steps(recipe.optimizer, recipe.steps.max_steps or 1000) == warm, name


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
        (MINIMAL + "optimizer: {lr: -1}\n", ["recipe.yaml: optimizer: lr: -1.0 is out of its bounds"]),
        (MINIMAL + "optimizer: {lr: .nan}\n", ["lr: nan"]),
        (MINIMAL + "optimizer: {betas: [0.9, 1.0]}\n", ["betas"]),
        (MINIMAL + "steps: {max_steps: 0}\n", ["max_steps: 0", "from 1"]),
        (MINIMAL + "steps: {epochs: 0}\n", ["epochs"]),
        (MINIMAL + "checkpoints: {every: 0}\n", ["every: 0"]),
        (MINIMAL + "lora: {rank: 0}\n", ["rank: 0"]),
        (MINIMAL + "drop_path: 1.0\n", ["drop_path"]),
        (MINIMAL.replace("{meta: meta.json}", "{meta: m, max_tiles: 41}"), ["max_tiles: 41", "to 40"]),
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


def test_every_setting_says_what_it_means() -> None:
    def check(kind: type[Any]) -> None:
        hints, own = get_type_hints(kind), settings_of(kind)
        for field in dataclasses.fields(kind):
            if dataclasses.is_dataclass(hints[field.name]):
                check(hints[field.name])
            elif field.name not in options_of(RunSettings):
                assert own[field.name].meaning.endswith("."), field.name

    for kind in (Recipe, Distillation):
        check(kind)


def test_options_of_a_run_are_settings_of_an_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.yaml"
    path.write_text(
        "tasks: [chartqa]\nbatch_size: 4\ngen: {max_new_tokens: 3}\nsample_id: [a, b]\nsharing: false\n"
        "worker-timeout: 20\ndata_root: data\n"
    )
    found = read_settings(Evaluation, path, {})
    assert (found.batch, found.gen_items, found.sample_ids) == (4, ("max_new_tokens=3",), ("a", "b"))
    assert (found.prefix_caching, found.worker_timeout, found.data_root) == (False, 20.0, "data")
    for wrong in ("batch_size: [3]", "engine: far", "limit: x", "limit: 0", "gen: 3", "judge: http://x"):
        path.write_text(wrong)
        with pytest.raises(RecipeError):
            read_settings(Evaluation, path, {})
