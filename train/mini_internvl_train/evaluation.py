"""Scores of a checkpoint during training, by the harness itself: ordinary run folders, one a checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.store import find_runs
from evalkit.store.atomic import read_json, write_json
from mini_internvl_train.checkpoints import checkpoints, step_of
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.log import Scores
from mini_internvl_train.merge import is_adapter, merge
from mini_internvl_train.recipe import Evaluation, Recipe
from mini_internvl_train.settings import plain

EVALUATED = "evaluated.json"
"""In a training's folder: the run folder of each task, by step."""
WITHOUT_END = -1.0
"""Patience of who waits for another training's scores."""

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


def evaluate(recipe: Recipe, checkpoint: Path, shared: Path | None = None) -> Scores:
    """Runs the recipe's tasks on a saved checkpoint.

    The model is called `<recipe>@step-000100` and its manifest names the checkpoint folder, which is how
    `evalkit history` and the leaderboard find the step. An interrupted run is continued.

    Args:
        recipe: its `evaluation` says what is run.
        checkpoint: a step's folder; an adapter is folded into its base first.
        shared: folder in which trainings keep the scores of step 0 for each other: one base model is
            evaluated once, under the name of the training that came first.

    Returns:
        Value by task and metric; None where it cannot be computed.

    Raises:
        EvalkitError: data missing, or a run that failed.
    """
    folder = checkpoint
    if is_adapter(checkpoint):
        folder = checkpoint.parent / "merged" / checkpoint.name
        folder.parent.mkdir(exist_ok=True)
        merge(checkpoint, folder)
    step, name = step_of(checkpoint), f"{recipe.name}@{checkpoint.name}"
    if step or shared is None:
        found = _run_tasks(recipe.evaluation, folder, name)
    else:
        found = _run_once(recipe.evaluation, folder, name, shared)
    _remember(Path(recipe.output), step, found["runs"])
    scores: Scores = found["scores"]
    return scores


def _run_tasks(evaluation: Evaluation, folder: Path, name: str) -> dict[str, Any]:
    """`scores` by task and metric, and `runs`, the run folder of each task."""
    import evalkit

    settings = _settings(evaluation)
    model = _model(evaluation, folder, name)
    scores: dict[str, dict[str, float | None]] = {}
    runs: dict[str, str] = {}
    try:
        for task in evaluation.tasks:
            result = evalkit.run(
                model, task, **settings, checkpoint=folder, output=evaluation.runs, quiet=True
            )
            scores[task] = {name: metric.value for name, metric in result.metrics.items()}
            runs[task] = str(result.path.resolve())
    finally:
        model.close()
    return {"scores": scores, "runs": runs}


def _run_once(evaluation: Evaluation, folder: Path, name: str, shared: Path) -> dict[str, Any]:
    """`_run_tasks`, or what another training found for the same files and settings; waits while it looks."""
    from evalkit.store import lock
    from mini_internvl.identity import checkpoint_identity
    from mini_internvl.weights import fingerprint, weight_files

    identity = checkpoint_identity(folder, fingerprint(weight_files(folder)))
    settings = json.dumps([identity, plain(evaluation)], sort_keys=True)
    place = shared / hashlib.sha256(settings.encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    held = lock.acquire(place, WITHOUT_END, "give another --output")
    try:
        known = place / EVALUATED
        if known.is_file():
            found: dict[str, Any] = read_json(known)
            if all(Path(run).is_dir() for run in found["runs"].values()):
                return found
        found = _run_tasks(evaluation, folder, name)
        write_json(known, found)
        return found
    finally:
        held.release()


def is_evaluated(recipe: Recipe, step: int) -> bool:
    """Whether the runs of a step's checkpoint are known."""
    path = Path(recipe.output) / EVALUATED
    return path.is_file() and str(step) in read_json(path)


def _remember(output: Path, step: int, runs: Mapping[str, str]) -> None:
    """Notes the run folders of a step; later steps of an older training are forgotten."""
    path = output / EVALUATED
    known = read_json(path) if path.is_file() else {}
    newest = max((step_of(folder) for folder in checkpoints(output)), default=step)
    kept = {number: found for number, found in known.items() if int(number) <= newest}
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
