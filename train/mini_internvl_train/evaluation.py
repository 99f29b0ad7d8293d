"""Scores of a checkpoint during training, by the harness itself: ordinary run folders, one a checkpoint."""

from __future__ import annotations

from pathlib import Path

from mini_internvl_train.merge import is_adapter, merge
from mini_internvl_train.recipe import Evaluation, Recipe

Scores = dict[str, dict[str, float | None]]


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
    from evalkit.job import make_job
    from evalkit.options import RunOptions

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
    import mini_internvl
    from evalkit.contracts import ModelOptions
    from evalkit_models.mini_internvl import MiniInternVLModel

    folder = checkpoint
    if is_adapter(checkpoint):
        folder = checkpoint.parent / "merged" / checkpoint.name
        folder.parent.mkdir(exist_ok=True)
        merge(checkpoint, folder)
    settings = recipe.evaluation
    network = mini_internvl.load(folder)
    model = MiniInternVLModel(network, f"{recipe.name}@{checkpoint.name}", ModelOptions())
    scores: Scores = {}
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


def score_lines(step: int, scores: Scores) -> list[str]:
    """One line a task."""
    return [
        f"step {step}: {task}: "
        + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None)
        for task, metrics in scores.items()
    ]
