"""Scores of a checkpoint during training, by the harness itself: ordinary run folders, one a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mini_internvl_train.log import Scores
from mini_internvl_train.merge import is_adapter, merge
from mini_internvl_train.recipe import Evaluation, Recipe

if TYPE_CHECKING:
    from evalkit.contracts import Model
    from evalkit.engines.base import Pool


def due(evaluation: Evaluation, step: int, total: int) -> bool:
    """Whether the checkpoint of a step is evaluated: every `every` steps, and the last."""
    if not evaluation.tasks:
        return False
    return step == total or bool(evaluation.every and step % evaluation.every == 0)


def check_tasks(evaluation: Evaluation) -> None:
    """Reads what the tasks will ask, so that missing data is found before the first step.

    Raises:
        EvalkitError: an unknown task, or its data is missing.
    """
    if not evaluation.tasks:
        return
    from evalkit.pipeline.job import make_job
    from evalkit.pipeline.options import RunOptions

    for task in evaluation.tasks:
        root = None if evaluation.data_root is None else Path(evaluation.data_root)
        make_job(task, RunOptions(model="", data_root=root, split=evaluation.split, limit=evaluation.limit))


def evaluate(recipe: Recipe, checkpoint: Path) -> Scores:
    """Runs the recipe's tasks on a saved checkpoint.

    The model is called `<recipe>@step-000100` and its manifest names the checkpoint folder, which is how
    `evalkit history` and the leaderboard find the step. A run that was broken off is gone on with.

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
    settings = recipe.evaluation
    model = _model(settings, LoadCheckpoint(folder, f"{recipe.name}@{checkpoint.name}"))
    scores: dict[str, dict[str, float | None]] = {}
    try:
        for task in settings.tasks:
            result = evalkit.run(
                model,
                task,
                split=settings.split,
                data_root=settings.data_root,
                limit=settings.limit,
                checkpoint=folder,
                output=settings.runs,
                quiet=True,
            )
            scores[task] = {name: figure.value for name, figure in result.metrics.items()}
    finally:
        model.close()
    return scores


@dataclass(frozen=True)
class LoadCheckpoint:
    """Loads a checkpoint under a name, here or in a worker.

    Attributes:
        folder: the checkpoint. name: as reports call it.
    """

    folder: Path
    name: str

    def __call__(self, number: int) -> Model:
        import mini_internvl
        from evalkit.contracts import ModelOptions
        from evalkit_models.mini_internvl import MiniInternVLModel

        return MiniInternVLModel(mini_internvl.load(self.folder), self.name, ModelOptions())


def _model(settings: Evaluation, load: LoadCheckpoint) -> Model | Pool:
    """The model in this process, or in the actors of a cluster."""
    if settings.engine == "local":
        return load(0)
    from evalkit.pipeline.options import RunOptions
    from evalkit.pipeline.run import ray_pool

    options = RunOptions(
        load.name,
        engine=settings.engine,
        ray_address=settings.ray_address,
        cpus_per_worker=settings.cpus_per_worker,
        ship_data=settings.ship_data,
        worker_timeout=settings.worker_timeout,
    )
    options.check()
    return ray_pool(LoadCheckpoint(load.folder.resolve(), load.name), options)


def score_lines(step: int, scores: Scores) -> list[str]:
    """One line a task."""
    return [
        f"step {step}: {task}: "
        + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None)
        for task, metrics in scores.items()
    ]
