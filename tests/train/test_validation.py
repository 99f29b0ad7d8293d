"""Held-out samples: their loss by step, the best checkpoint, early stopping, the base model as step 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_training import make_recipe, write_data

from mini_internvl_train.errors import RecipeError, TrainingDataError
from mini_internvl_train.fine_tuning import FineTuning, train
from mini_internvl_train.held_out import split_pool
from mini_internvl_train.log import Validated, read_log
from mini_internvl_train.packing import SamplePool
from mini_internvl_train.plan import plan_data
from mini_internvl_train.recipe import Evaluation, Recipe, Validation, read_recipe
from mini_internvl_train.selection import Selection, make_selection
from mini_internvl_train.start import load_start

QUIET: dict[str, Any] = {"say": lambda line: None, "quiet": True}


def lines_with(recipe: Recipe, key: str) -> list[dict[str, Any]]:
    return [line for line in read_log(Path(recipe.output) / "log.jsonl") if key in line]


def held_out(folder: Path, **settings: Any) -> Recipe:
    """Colours to learn, and others in a file of their own."""
    meta = write_data(folder / "held", 6, seed=5, name="shades")
    return make_recipe(folder, data__validation=str(meta), **settings)


def test_a_share_takes_whole_images() -> None:
    looks = [place // 3 for place in range(60)]  # three questions about each image
    learned, held = split_pool(SamplePool("a", range(60), 2.0), looks, 0.1, seed=1)
    assert sorted([*learned.indices, *held.indices]) == list(range(60))
    assert len(held.indices) == 6
    assert not {looks[i] for i in learned.indices} & {looks[i] for i in held.indices}
    assert (learned.repeat_time, held.repeat_time) == (2.0, 1.0)
    assert split_pool(SamplePool("a", range(60)), looks, 0.1, seed=1)[1] == held
    assert split_pool(SamplePool("a", range(60)), looks, 0.1, seed=2)[1].indices != held.indices
    assert split_pool(SamplePool("b", range(60)), looks, 0.1, seed=1)[1].indices != held.indices
    assert len(split_pool(SamplePool("a", range(3)), [0, 1, 2], 0.01, seed=1)[1].indices) == 1
    with pytest.raises(TrainingDataError, match="the same image"):
        split_pool(SamplePool("a", range(3)), [0, 0, 0], 0.5, seed=1)


def test_held_out_samples_are_never_learned(tmp_path: Path) -> None:
    general = write_data(tmp_path / "general", 8, seed=3, name="general")
    recipe = make_recipe(
        tmp_path, data__validation=0.25, data__general_meta=str(general), data__general_ratio=0.5
    )
    samples, order = plan_data(recipe, load_start(recipe))
    held = {pool.name: set(pool.indices) for pool in samples.held_out}
    assert {name: len(indices) for name, indices in held.items()} == {"colours": 3, "general": 2}
    seen = {index for pack in order.epoch(0) for index in pack.samples}
    assert not seen & (held["colours"] | held["general"])
    assert len(seen) == 9 + round(0.5 * 9)


def test_the_loss_of_every_validation_and_step_0_are_in_the_log(tmp_path: Path) -> None:
    recipe = held_out(tmp_path, validation__every=3)
    said: list[str] = []
    train(recipe, say=said.append, quiet=True)
    found = lines_with(recipe, "validation_loss")
    assert [line["step"] for line in found] == [0, 3, 6]
    assert all(line["validation"]["shades"]["samples"] == 6 for line in found)
    assert found[0]["validation_loss"] == found[0]["validation"]["shades"]["loss"] > 4
    assert found[2]["validation_loss"] < found[0]["validation_loss"]
    assert any(line.startswith("step 0: validation loss") for line in said)
    plain = make_recipe(tmp_path, output=str(tmp_path / "plain"))
    train(plain, **QUIET)
    one, other = (
        load_file(folder / "final/model.safetensors") for folder in (tmp_path / "out", tmp_path / "plain")
    )
    assert all(torch.equal(one[name], other[name]) for name in one), "validation changes the weights"


@pytest.mark.parametrize("packed", [True, False])
def test_the_validation_loss_is_the_training_loss_of_the_same_samples(tmp_path: Path, packed: bool) -> None:
    meta = write_data(tmp_path / "data", 6)
    recipe = make_recipe(
        tmp_path, samples=6, data__validation=str(meta), drop_path=0.0, packing__enabled=packed,
        steps__packs_per_step=99, steps__max_steps=None, steps__epochs=1.0,
    )  # fmt: skip
    train(recipe, **QUIET)
    first = lines_with(recipe, "loss")[0]
    assert first["samples"] == 6
    assert math.isclose(
        lines_with(recipe, "validation_loss")[0]["validation_loss"], first["loss"], rel_tol=1e-5
    )


def told(monkeypatch: pytest.MonkeyPatch, losses: Sequence[float]) -> None:
    """Validation finds these losses, one a step."""

    def loss(self: FineTuning, loop: Any) -> Validated:
        return Validated(losses[loop.done], {"shades": (losses[loop.done], 6)})

    monkeypatch.setattr(FineTuning, "validate", loss)


EARLY: dict[str, Any] = {
    "validation__every": 1,
    "validation__best": "loss",
    "validation__patience": 2,
    "checkpoints__every": 100,
    "checkpoints__keep": 1,
}


def test_the_best_checkpoint_is_kept_and_becomes_the_final_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = held_out(tmp_path, **EARLY)
    told(monkeypatch, [4, 3, 2, 2.5, 2.1, 1, 0])
    said: list[str] = []
    final = train(recipe, say=said.append, quiet=True)
    assert [line["step"] for line in lines_with(recipe, "loss")] == [1, 2, 3, 4]
    assert [line["best_step"] for line in lines_with(recipe, "best_step")] == [0, 1, 2]
    assert lines_with(recipe, "stopped_early") == [{"step": 4, "stopped_early": True}]
    assert sorted(path.name for path in (tmp_path / "out").glob("step-*")) == ["step-000002", "step-000004"]
    assert (tmp_path / "out/best").resolve().name == "step-000002"
    one, other = (load_file(folder / "model.safetensors") for folder in (final, tmp_path / "out/step-000002"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "stopped early, after step 4 of 6: loss was best after step 2" in said
    before = list(said)
    train(recipe, say=said.append, quiet=True)  # stays stopped
    assert [line["step"] for line in lines_with(recipe, "loss")] == [1, 2, 3, 4]
    assert said[-1] == before[-1]
    train(read_recipe(tmp_path / "recipe.yaml", {"validation.patience": "3"}), **QUIET)
    assert [line["best_step"] for line in lines_with(recipe, "best_step")] == [0, 1, 2, 5, 6]


def test_a_base_model_that_is_best_becomes_the_final_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = held_out(tmp_path, trainable="lora", **EARLY)
    told(monkeypatch, [1, 3, 2])
    final = train(recipe, **QUIET)
    base, found = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", final))
    assert all(torch.equal(base[name], found[name]) for name in base)


def test_a_resumed_training_chooses_as_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = held_out(tmp_path, **{**EARLY, "validation__patience": None})
    told(monkeypatch, [4, 1, 2, 2.5, 2.1, 3, 3])
    step = FineTuning.backward

    def stops(self: FineTuning, loop: Any, batches: Any) -> Any:
        if loop.done == 3:
            raise KeyError("power cut")
        return step(self, loop, batches)

    monkeypatch.setattr(FineTuning, "backward", stops)
    with pytest.raises(KeyError):
        train(recipe, **QUIET)
    monkeypatch.setattr(FineTuning, "backward", step)
    said: list[str] = []
    train(recipe, say=said.append, quiet=True)
    assert said[-1].endswith("of step 1: loss 1 is best")
    assert [line["step"] for line in lines_with(recipe, "validation_loss")] == list(range(7))


def test_other_held_out_samples_are_not_compared_with_those_before() -> None:
    selection = Selection("loss", False, None, "a")
    assert selection.add(0, 2.0) and not selection.add(1, 2.0) and not selection.add(2, math.nan)
    again, other = Selection("loss", False, None, "a"), Selection("loss", False, None, "b")
    assert again.restore(selection.state()) and again.values == selection.values
    assert not other.restore(selection.state()) and other.best is None


def test_a_metric_chooses_in_its_own_direction() -> None:
    found = make_selection(Validation(best="bdd-x/speed_rmse"), Evaluation(tasks=("bdd-x",)), "")
    assert found is not None and not found.higher
    found = make_selection(Validation(best="mmbench/circular"), Evaluation(tasks=("mmbench",)), "")
    assert found is not None and found.higher
    assert found.value_in({"mmbench": {"circular": 4.0}}) == 4.0 and math.isnan(found.value_in({}))
    with pytest.raises(RecipeError, match=r"no metric 'circulr' \(nearest: circular\)"):
        make_selection(Validation(best="mmbench/circulr"), Evaluation(tasks=("mmbench",)), "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation.best": "loss"}, "needs data.validation"),
        ({"validation.best": "accuracy"}, "neither loss nor TASK/METRIC"),
        ({"validation.best": "mmbench/circular"}, "its task among evaluation.tasks"),
        ({"validation.patience": "2"}, "patience needs best"),
        ({"data.validation": "1.5"}, "neither a share above 0 and below 1"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    make_recipe(tmp_path)
    with pytest.raises(RecipeError, match=message):
        read_recipe(tmp_path / "recipe.yaml", settings)


def test_shared_images_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    meta = write_data(tmp_path / "data", 12)
    recipe = make_recipe(tmp_path, data__validation=str(meta))
    plan_data(recipe, load_start(recipe))
    assert "12 of 12 samples of colours show images that are learned from" in caplog.text
