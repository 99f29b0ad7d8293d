"""README.md of a published model or of published results, with the metadata that the Hub reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.contracts import MetricValue
from evalkit.reports.markdown import markdown_table
from evalkit.task_parts import MINIATURE
from evalkit.text import value_text

if TYPE_CHECKING:
    from evalkit.pipeline.results import RunResult

#: Statuses of runs that a card may show as a benchmark's score.
COMPLETE = "complete"


@dataclass(frozen=True)
class Training:
    """How a model came about, as its last training state says.

    Attributes:
        base: the model it started from. settings: of the recipe, by dotted name.
        data: names of the data sets.
        steps, samples: optimizer steps, and samples seen.
    """

    base: str | None
    settings: Mapping[str, Any]
    data: Sequence[str]
    steps: int
    samples: int


def comparable(run: RunResult) -> bool:
    """Whether a run's values may stand as the benchmark's: all of an official split, by the protocol."""
    asked = run.manifest["settings"].get("nonstandard")
    return run.status == COMPLETE and run.manifest["task"]["split"] != MINIATURE and not asked


def model_card(name: str, training: Training | None, runs: Sequence[RunResult], licence: str | None) -> str:
    """The model's card: metadata with `model-index`, the recipe, scores with their intervals.

    Args:
        name: of the repository, OWNER/NAME. training: None where the folder says nothing of it.
        runs: of this model; those that are not `comparable` stand in the table alone, with their status.
        licence: as the Hub spells it, or None.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=run.manifest["task"]["name"],
            dataset_name=run.manifest["task"]["name"],
            dataset_split=run.manifest["task"]["split"],
            metric_type=metric,
            metric_name=metric,
            metric_value=value.value,
            metric_config=run.signature,
        )
        for run in runs
        if comparable(run)
        for metric, value in run.metrics.items()
        if value.value is not None
    ]
    data = ModelCardData(
        model_name=name.split("/")[-1],
        eval_results=results or None,
        base_model=None if training is None else training.base,
        license=licence,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["internvl", "mini-internvl", "evalkit"],
    )
    lines = ["---", data.to_yaml(), "---", "", f"# {name.split('/')[-1]}", ""]
    if training is not None:
        lines += ["## Training", ""]
        lines += [f"- base: `{training.base}`"] if training.base else []
        lines += [
            f"- data: {', '.join(f'`{part}`' for part in training.data) or 'not stated'}",
            f"- {training.steps:,} optimizer steps, {training.samples:,} samples",
            "",
            *markdown_table(("setting", "value"), [(key, str(v)) for key, v in training.settings.items()]),
            "",
        ]
    return "\n".join([*lines, *_scores(runs)]) + "\n"


def results_card(name: str, runs: Sequence[RunResult], folders: Sequence[str]) -> str:
    """The card of a dataset of results.

    Args:
        name: of the repository. runs: what is published. folders: of each run, in the repository.
    """
    from huggingface_hub import DatasetCardData

    configs = [
        {"config_name": folder.replace("/", "--"), "data_files": f"{folder}/records.parquet"}
        for folder in folders
    ]
    data = DatasetCardData(tags=["evaluation-results", "evalkit"], configs=configs, pretty_name=name)
    lines = ["---", data.to_yaml(), "---", "", f"# {name.split('/')[-1]}", ""]
    lines += [
        "Answers and scores by evalkit. A folder holds a run: manifest, summary, records.",
        "",
    ]
    return "\n".join([*lines, *_scores(runs)]) + "\n"


def _scores(runs: Sequence[RunResult]) -> list[str]:
    if not runs:
        return []
    rows = [row for run in runs for row in _rows(run)]
    header = ("model", "task", "split", "metric", "value", "95% interval", "samples", "status")
    signatures = [f"- `{signature}`" for signature in dict.fromkeys(run.signature for run in runs)]
    return ["## Scores", "", *markdown_table(header, rows), "", "Measured as:", "", *signatures]


def _rows(run: RunResult) -> Iterable[tuple[str, ...]]:
    task = run.manifest["task"]
    status = run.status if comparable(run) or run.status != COMPLETE else "not the benchmark's own setting"
    for metric, value in run.metrics.items():
        if value.value is not None:
            yield (
                str(run.summary["model"]), task["name"], task["split"], metric,
                value_text(value.value), _interval(value), str(value.n), status,
            )  # fmt: skip


def _interval(value: MetricValue) -> str:
    return "" if value.ci95 is None else f"{value_text(value.ci95[0])} to {value_text(value.ci95[1])}"
