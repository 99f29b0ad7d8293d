"""Scores of a checkpoint during training, by the harness itself: ordinary run folders, one a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.store import find_runs
from evalkit.store.atomic import read_json, write_json
from mini_internvl_train.checkpoints import step_of
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.log import Scores
from mini_internvl_train.merge import is_adapter, merge
from mini_internvl_train.recipe import Evaluation, Recipe

EVALUATED = "evaluated.json"
"""In a training's folder: the run folder of each task, by step."""

if TYPE_CHECKING:
    from evalkit.contracts import Model, ModelOptions
    from evalkit.engines.base import Engine


def due(evaluation: Evaluation, step: int, total: int) -> bool:
    """Whether the checkpoint of a step is evaluated: the start (0), every `every` steps, and the last."""
    if not evaluation.tasks:
        return False
    return step in (0, total) or bool(evaluation.every and step % evaluation.every == 0)


def check_tasks(evaluation: Evaluation) -> None:
    """Reads what the tasks will ask, so that missing data is found before the first step.

    Raises:
        EvalkitError: an unknown task, or its data is missing.
    """
    if not evaluation.tasks:
        return
    from evalkit.pipeline.job import make_job
    from evalkit.pipeline.options import RunOptions

    options = RunOptions("", **_settings(evaluation))
    for task in evaluation.tasks:
        make_job(task, options)


def check_name(recipe: Recipe) -> None:
    """Refuses a name under which another training's checkpoints stand in the folder of runs.

    Raises:
        RecipeError: names the other training.
    """
    if not recipe.evaluation.tasks:
        return
    output = Path(recipe.output).resolve()
    for folder in sorted(Path(recipe.evaluation.runs).glob("*@step-*")):
        run = next(find_runs(folder), None)
        if run is None:
            continue
        manifest = read_json(run / "manifest.json")
        name = str((manifest.get("model") or {}).get("name")).rpartition("@")[0]
        checkpoint = (manifest.get("settings") or {}).get("checkpoint")
        if name != recipe.name or not checkpoint:
            continue
        other = Path(checkpoint).resolve()
        if not other.is_relative_to(output) and other.is_dir():
            raise RecipeError(
                f"name: {recipe.name} is the name of another training, whose checkpoint {checkpoint} was "
                f"evaluated into {recipe.evaluation.runs}; give another name (--set name=…) or other --runs"
            )


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    """The options of a run that the recipe sets."""
    from evalkit.pipeline.options import RunSettings, options_of

    return {name: getattr(evaluation, name) for name in options_of(RunSettings)}


def evaluate(recipe: Recipe, checkpoint: Path) -> Scores:
    """Runs the recipe's tasks on a saved checkpoint.

    The model is called `<recipe>@step-000100` and its manifest names the checkpoint folder, which is how
    `evalkit history` and the leaderboard find the step. An interrupted run is continued.

    Args:
        recipe: its `evaluation` says what is run.
        checkpoint: a step's folder; an adapter is folded into its base first.

    Returns:
        Value by task and metric; None where it cannot be computed.

    Raises:
        EvalkitError: data missing, or a run that failed.
    """
    import evalkit

    folder = checkpoint
    if is_adapter(checkpoint):
        folder = checkpoint.parent / "merged" / checkpoint.name
        folder.parent.mkdir(exist_ok=True)
        merge(checkpoint, folder)
    settings = _settings(recipe.evaluation)
    model = _model(recipe.evaluation, folder, f"{recipe.name}@{checkpoint.name}")
    scores: dict[str, dict[str, float | None]] = {}
    runs: dict[str, str] = {}
    try:
        for task in recipe.evaluation.tasks:
            result = evalkit.run(
                model, task, **settings, checkpoint=folder, output=recipe.evaluation.runs, quiet=True
            )
            scores[task] = {name: metric.value for name, metric in result.metrics.items()}
            runs[task] = str(result.path.resolve())
    finally:
        model.close()
    _remember(Path(recipe.output), step_of(checkpoint), runs)
    return scores


def _remember(output: Path, step: int, runs: Mapping[str, str]) -> None:
    """Notes the run folders of a step; a later step of an older training is forgotten."""
    path = output / EVALUATED
    known = read_json(path) if path.is_file() else {}
    kept = {number: found for number, found in known.items() if int(number) < step}
    write_json(path, {**kept, str(step): dict(runs)})


@dataclass(frozen=True)
class LoadCheckpoint:
    """Loads a checkpoint under a name, here or in a worker.

    Attributes:
        folder: the checkpoint. name: as reports call it. options: how it runs.
    """

    folder: Path
    name: str
    options: ModelOptions

    def __call__(self, number: int) -> Model:
        from evalkit_models.mini_internvl import FAMILY

        return FAMILY.load(str(self.folder), self.options, self.name)


def _model(evaluation: Evaluation, folder: Path, name: str) -> Model | Engine:
    """The model in this process, or in the actors of a cluster."""
    from evalkit.pipeline.options import RunOptions, model_options
    from evalkit.pipeline.run import ray_engine

    options = RunOptions(name, **_settings(evaluation))
    load = LoadCheckpoint(folder.resolve(), name, model_options(options))
    return load(0) if options.engine == "local" else ray_engine(load, options)


def score_lines(step: int, scores: Scores) -> list[str]:
    """One line a task."""
    return [
        f"step {step}: {task}: "
        + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None)
        for task, metrics in scores.items()
    ]
