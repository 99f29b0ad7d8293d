"""Sweeps: what is trained, how points are set against the first, what is told of a training that fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_training import make_recipe, write_data

from evalkit.cli.main import invoke
from evalkit.contracts import MetricValue, Record
from evalkit.errors import DataError
from evalkit.metrics.base import Accuracy
from evalkit.statistics import estimate
from evalkit.statistics.recipe import recipe_value
from mini_internvl_train import fine_tuning
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.evaluation import Scores
from mini_internvl_train.fine_tuning import FineTuning
from mini_internvl_train.log import Validated
from mini_internvl_train.packing import SamplePool, mix
from mini_internvl_train.recipe import Recipe
from mini_internvl_train.sweep import parse_varied, plan_sweep
from mini_internvl_train.sweep_outcomes import Outcome
from mini_internvl_train.sweep_scores import evaluated_runs
from mini_internvl_train.sweep_table import table

FLAGS = ("--eval-task", "docvqa", "--eval-split", "miniature", "--eval-limit", "5")


def test_values_are_combined_and_seeds_are_repeats(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    varied = [parse_varied("data.share=0.5,1"), parse_varied("seed=1,2"), parse_varied("trainable=full,lora")]
    points = plan_sweep(tmp_path / "recipe.yaml", {}, varied)
    assert [point.label for point in points] == [
        "share=0.5, full", "share=0.5, lora", "share=1, full", "share=1, lora"
    ]  # fmt: skip
    recipes = [recipe for point in points for recipe in point.recipes]
    assert [each.seed for each in recipes] == [1, 2] * 4
    assert recipes[1].name == "small-share-0.5--full--seed-2"
    assert Path(recipes[1].output) == Path(recipe.output) / "share-0.5--full--seed-2"
    assert len({each.name for each in recipes}) == len({each.output for each in recipes}) == 8
    assert {(each.data.share, each.trainable) for each in recipes[:2]} == {(0.5, "full")}
    earlier = Path(recipe.output) / "share=0.5,full,seed=2"  # as folders were called before
    earlier.mkdir(parents=True)
    assert Path(plan_sweep(tmp_path / "recipe.yaml", {}, varied)[0].recipes[1].output) == earlier
    (alone,) = plan_sweep(tmp_path / "recipe.yaml", {}, [parse_varied("seed=1,2")])
    assert alone.label == "all seeds"
    assert [each.seed for each in alone.recipes] == [1, 2]


@pytest.mark.parametrize(
    ("varied", "told"),
    [
        ((), "say what to vary"),
        (("data.share",), "write KEY=VALUE"),
        (("data.share=",), "write KEY=VALUE"),
        (("data.share=[0.5",), "cannot be read as YAML"),
        (("data.share=0.5,0.5",), "0.5 is given twice"),
        (("seed=1", "seed=2"), "name all its values once"),
        (("output=a,b",), "does not change what is learned"),
        (("checkpoints.every=1,2",), "does not change what is learned"),
        (("evaluation.limit=1,2",), "does not change what is learned"),
        (("data.shares=0.5,1",), "did you mean 'share'"),
        (("data.share=0.5,2",), "out of its bounds"),
        (("trainable=full,everything",), "is none of full"),
        (("data.general_ratio=0,1",), "needs general_meta"),
        (("optimizer.lr=1e-3,0.001",), "are the same training"),
    ],
)
def test_what_cannot_be_varied_is_refused_before_training(
    tmp_path: Path, varied: tuple[str, ...], told: str
) -> None:
    make_recipe(tmp_path)
    with pytest.raises(RecipeError, match=told):
        plan_sweep(tmp_path / "recipe.yaml", {}, [parse_varied(text) for text in varied])


@pytest.mark.parametrize("repeats", [1, 3, 0.5])
def test_a_share_takes_samples_and_smaller_ones_lie_in_larger_ones(repeats: float) -> None:
    pool = SamplePool("a", range(10, 50), repeats)
    taken = {
        share: mix([pool], [], ratio=None, share=None, domain_share=share, seed=3) for share in (0.25, 0.5, 1)
    }
    assert [len(found) for found in taken.values()] == [10 * repeats, 20 * repeats, 40 * repeats]
    if repeats >= 1:
        assert set(taken[0.25]) < set(taken[0.5]) < set(taken[1]) == set(range(10, 50))
        assert set(np.bincount(taken[0.25])[sorted(set(taken[0.25]))]) == {repeats}
    other = mix([pool], [], ratio=None, share=None, domain_share=0.25, seed=4)
    assert sorted(other) != sorted(taken[0.25])


def test_general_samples_follow_the_share_that_is_learned() -> None:
    domain, general = SamplePool("d", range(40)), SamplePool("g", range(100, 600))
    mixed = mix([domain], [general], ratio=2, share=None, domain_share=0.25, seed=0)
    assert sum(index < 100 for index in mixed) == 10
    assert sum(index >= 100 for index in mixed) == 20


def _sweep(folder: Path, *more: str) -> int:
    runs = ["--runs", str(folder / "runs"), "-o", str(folder / "sweep"), "--json"]
    return invoke(["train", "sweep", str(folder / "recipe.yaml"), *FLAGS, *runs, *more])


@pytest.mark.usefixtures("in_this_process")
def test_a_sweep_trains_compares_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    general = write_data(tmp_path / "general", 8, seed=5, name="general")
    make_recipe(tmp_path, steps__max_steps=1, data__general_meta=str(general))
    vary = ("--vary", "data.general_ratio=0,0.5", "--vary", "seed=1,2")
    assert _sweep(tmp_path, *vary) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["base"] == "general_ratio=0"
    assert [point["values"] for point in found["points"]] == [
        {"data.general_ratio": 0}, {"data.general_ratio": 0.5}
    ]  # fmt: skip
    trainings = [training for point in found["points"] for training in point["trainings"]]
    assert [training["seed"] for training in trainings] == [1, 2, 1, 2]
    assert all(training["failure"] is None and training["learns"] > 0 for training in trainings)
    (task,) = found["scores"]
    first, second = task["points"]
    assert (task["task"], task["split"], task["metric"], task["n"]) == ("docvqa", "miniature", "anls", 5)
    assert len(second["runs"]) == 2
    assert first["difference"] is None
    assert second["p_adjusted"] >= second["p"]
    assert second["verdict"] in ("improved", "regressed", "no_evidence")
    assert first["ci95"][0] <= first["value"] <= first["ci95"][1]
    folder = tmp_path / "sweep"
    assert json.loads((folder / "sweep.json").read_text()) == found
    assert "against general_ratio=0" in (folder / "sweep.md").read_text()
    assert (folder / "sweep.svg").read_text().count('r="4"') == 2
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == [
        "small-general_ratio-0--seed-1@step-000000",  # the base model of all four
        *(f"small-general_ratio-{ratio}--seed-{seed}@step-000001" for ratio in ("0", "0.5") for seed in "12"),
    ]
    for training in trainings:
        assert training["scores"].keys() == {"0", "1"}
        assert training["scores"]["0"] == trainings[0]["scores"]["0"]
    logs = sorted(folder.glob("*/log.jsonl"))
    before = [_losses(path) for path in logs]
    assert len(before) == 4
    assert _sweep(tmp_path, *vary[:3], "seed=1") == 0  # trained already: only read
    (again,) = json.loads(capsys.readouterr().out)["scores"]
    assert [point["value"] for point in again["points"]] == [point["runs"][0] for point in task["points"]]
    assert [_losses(path) for path in logs] == before


def _losses(log: Path) -> list[float]:
    return [line["loss"] for line in map(json.loads, log.read_text().splitlines()) if "loss" in line]


@pytest.mark.usefixtures("in_this_process")
def test_scores_are_of_the_checkpoint_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best by the loss on held-out samples, which no evaluation was due for."""
    make_recipe(tmp_path, steps__max_steps=3, data__validation=0.2)
    losses = [3.0, 1.0, 2.0, 2.0]
    monkeypatch.setattr(
        FineTuning, "validate", lambda self, loop: Validated(losses[loop.done], {"colours": (1.0, 2)})
    )
    best = ("--set", "validation.best=loss", "--set", "validation.every=1")
    assert _sweep(tmp_path, "--vary", "seed=1", *best, "--set", "validation.patience=2") == 0
    folder = tmp_path / "sweep/seed-1"
    runs = evaluated_runs(folder)
    assert [path.parts[-3:-1][0] for path in runs.values()] == ["small-seed-1@step-000001"]
    (task,) = json.loads(capsys.readouterr().out)["scores"]
    value = json.loads((next(iter(runs.values())) / "summary.json").read_text())["metrics"]["anls"]["value"]
    assert task["points"][0]["runs"] == [value]
    assert json.loads((folder / "evaluated.json").read_text()).keys() == {"0", "1", "3"}


@pytest.mark.usefixtures("in_this_process")
def test_a_training_that_fails_is_named_and_the_others_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_recipe(tmp_path, steps__max_steps=1)
    assert _sweep(tmp_path, "--vary", "optimizer.stop_norm=1e-6,1000") == 3
    found = json.loads(capsys.readouterr().out)
    first, second = (point["trainings"][0] for point in found["points"])
    assert "step 1: gradient norm" in first["failure"]
    assert second["failure"] is None
    assert [point["label"] for point in found["scores"][0]["points"]] == ["stop_norm=1000"]


@pytest.mark.usefixtures("in_this_process")
def test_a_final_model_that_could_not_be_evaluated_is_named_until_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_recipe(tmp_path, steps__max_steps=1)
    evaluate = fine_tuning.evaluate

    def full_disk(recipe: Recipe, folder: Path, shared: Path | None = None) -> Scores:
        if recipe.seed == 2 and folder.name != "step-000000":
            raise DataError("docvqa: the disk\n is full")
        return evaluate(recipe, folder, shared)

    with monkeypatch.context() as broken:
        broken.setattr(fine_tuning, "evaluate", full_disk)
        assert _sweep(tmp_path, "--vary", "data.share=0.5,1", "--vary", "seed=1,2") == 3
    found = json.loads(capsys.readouterr().out)
    told = [training["failure"] for point in found["points"] for training in point["trainings"]]
    assert told[0] is None and told[2] is None and not found["scores"]
    assert all(
        text.endswith(
            "step 1 has no scores of docvqa: docvqa: the disk is full; the same command evaluates it"
        )
        for text in (told[1], told[3])
    )
    assert _sweep(tmp_path, "--vary", "data.share=0.5,1", "--vary", "seed=1,2") == 0
    (task,) = json.loads(capsys.readouterr().out)["scores"]
    assert all(len(point["runs"]) == 2 and None not in point["runs"] for point in task["points"])


def _records(outcomes: Sequence[bool]) -> list[Record]:
    return [
        Record(str(n), str(n), "", None, None, {"accuracy": float(right)}) for n, right in enumerate(outcomes)
    ]


def _width(value: MetricValue) -> float:
    assert value.ci95 is not None
    return value.ci95[1] - value.ci95[0]


def test_the_mean_of_seeds_counts_samples_and_seeds() -> None:
    rng, metric = np.random.default_rng(0), Accuracy("accuracy")
    one = _records([bool(right) for right in rng.random(200) < 0.6])
    apart = [_records([bool(right) for right in rng.random(200) < rate]) for rate in (0.3, 0.6, 0.9)]
    single, alike = estimate(metric, one), recipe_value(metric, [one, one, one])
    assert alike.value == single.value
    assert _width(alike) == pytest.approx(_width(single), rel=0.1)
    assert _width(recipe_value(metric, apart)) > 3 * _width(alike)
    perfect = recipe_value(metric, [_records([True] * 200)] * 2)
    assert perfect.value == 100
    assert _width(perfect) > 1


def _outcome(**values: float) -> Outcome:
    scores: dict[int, dict[str, float | None]] = {int(step[1:]): {"t/a": values[step]} for step in values}
    return Outcome(10, 1_000_000, "process", 1.0, 3600.0, 2.0, 0.5, scores)


def test_memory_and_speed_stand_beside_those_of_the_first_point() -> None:
    costs = Outcome(10, 1_500_000_000, "process", 1.0, 3600.0, 2.0, 0.5, {})
    larger = replace(costs, memory=3_000_000_000, learns=20, iterations=1800.0)
    uncounted = replace(costs, memory=None)
    rows = table([("one", [costs]), ("two", [larger, costs]), ("none", [costs, uncounted])], [])
    assert [row for row in rows if row.startswith(("| one |", "| two |", "| none |"))] == [
        "| one | 10 | 1.50 GB | 1.00 | 3,600 | 1.00 | 2.00 | 0.5000 |",
        "| two | 20 | 3.00 GB | 2.00 | 2,700 | 0.75 | 2.00 | 0.5000 |",
        "| none | 10 | not counted | - | 3,600 | 1.00 | 2.00 | 0.5000 |",
    ]


def test_last_evaluations_share_a_column_whatever_their_step() -> None:
    """An epoch is a step longer with another seed, and half as long with half of the data."""
    whole = [_outcome(_0=1, _50=2, _100=4), _outcome(_0=1, _50=3, _101=6)]
    half = [_outcome(_0=1, _50=7), _outcome(_0=1, _50=8)]
    lines = table([("whole", whole), ("half", half)], [])
    assert lines[-4:] == [
        "| metric | point | step 0 | step 50 | last, step 50 to 101 |",
        "|---|---|---:|---:|---:|",
        "| t/a | whole | 1 | 2.5 | 5 |",
        "| t/a | half | 1 | - | 7.5 |",
    ]
    assert table([("half", half)], [])[-1] == "| t/a | half | 1 | 7.5 |"
    assert "step 0" not in "".join(table([("one", [_outcome(_0=1)])], []))
