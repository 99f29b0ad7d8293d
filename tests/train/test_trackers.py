"""A training in an experiment tracker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_training import make_recipe

from evalkit.trackers import base
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.fine_tuning import train

QUIET: dict[str, Any] = {"say": lambda line: None, "quiet": True}


def test_a_training_is_tracked_and_goes_on_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny (extra mlflow)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    recipe = make_recipe(tmp_path, log_to=["mlflow"])
    assert recipe.fingerprint() == replace(recipe, log_to=()).fingerprint()
    short = replace(recipe, steps=replace(recipe.steps, max_steps=2))
    train(replace(short, checkpoints=replace(short.checkpoints, every=1)), **QUIET)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("evalkit").experiment_id
    (stored,) = client.search_runs([experiment])
    assert stored.data.params["name"] == recipe.name and stored.info.status == "FINISHED"
    steps = client.get_metric_history(stored.info.run_id, "train/loss")
    assert [each.step for each in steps] == [1, 2]
    train(replace(short, checkpoints=replace(short.checkpoints, every=1)), **QUIET)
    assert len(client.search_runs([experiment])) == 1


def test_a_tracker_that_fails_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(name: str) -> base.Tracker:
        raise ConnectionError("nobody there")

    pytest.importorskip("mlflow", reason="needs mlflow-skinny (extra mlflow)")
    monkeypatch.setattr(base, "make", refuse)
    recipe = make_recipe(tmp_path, log_to=["mlflow"])
    assert train(replace(recipe, steps=replace(recipe.steps, max_steps=1)), **QUIET).is_dir()
    assert "--log-to mlflow: ConnectionError: nobody there" in caplog.text
    with pytest.raises(RecipeError, match="log_to nothing: there are wandb"):
        make_recipe(tmp_path, log_to=["nothing"])
