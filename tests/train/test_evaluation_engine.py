"""Evaluation during training may run on a cluster: the same loader, taken there."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mini_internvl
from evalkit.engines.base import Load
from evalkit.pipeline import run as workflow
from evalkit.pipeline.options import RunOptions
from mini_internvl_train.evaluation import evaluate
from mini_internvl_train.recipe import Evaluation


def test_a_checkpoint_is_evaluated_by_the_actors_of_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[RunOptions] = []
    closed: list[Any] = []

    def pool(load: Load, options: RunOptions) -> Any:
        taken.append(options)
        model = pickle.loads(pickle.dumps(load))(0)
        monkeypatch.setattr(model, "close", lambda: closed.append(model))
        return model

    monkeypatch.setattr(workflow, "ray_engine", pool)
    folder, runs = tmp_path / "out/step-000002", tmp_path / "runs"
    shutil.copytree(Path(mini_internvl.__file__).parent / "tiny", folder)
    settings = Evaluation(
        ("chartqa",), split="miniature", limit=2, runs=str(runs), engine="ray", cpus_per_worker=2
    )
    recipe = SimpleNamespace(name="recipe", output=str(folder.parent), evaluation=settings)
    scores = evaluate(recipe, folder)  # type: ignore[arg-type]
    assert scores["chartqa"]["average"] is not None and len(closed) == 1
    assert [(options.engine, options.cpus_per_worker) for options in taken] == [("ray", 2)]
    assert [path.name for path in runs.iterdir()] == ["recipe@step-000002"]
    (noted,) = json.loads((folder.parent / "evaluated.json").read_text())["2"].values()
    assert Path(noted).is_relative_to(runs)
