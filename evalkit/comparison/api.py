"""`evalkit.compare` for Python."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from evalkit.comparison.baselines import resolve
from evalkit.comparison.compare import RESAMPLES, Comparison, Undecided, compare_runs
from evalkit.comparison.runs import Key, key_of
from evalkit.comparison.verdicts import Thresholds, number
from evalkit.pipeline.results import RunResult

Run = str | os.PathLike[str] | RunResult


def compare(
    base: Run,
    new: Run,
    *,
    max_drop: Mapping[str, float] | None = None,
    margin: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    allow: Collection[str] = (),
    speed: bool = False,
    output: str | os.PathLike[str] = "runs",
    seed: int = 0,
    resamples: int = RESAMPLES,
    undecided: Undecided | None = None,
) -> Comparison:
    """Compare two results on the samples that both have.

    Args:
        base, new: a run folder, a result of `evalkit.run`, a model's name (its latest complete run of each
            task) or a baseline's.
        max_drop: by metric: a significant drop larger than this fails.
        margin: by metric: fails unless a drop larger than this is excluded.
        alpha: level of the tests, Holm-corrected over the metrics judged.
        allow: signature fields that may differ.
        speed: also judge the model's time per sample.
        output: folder of run folders and baselines.
        undecided: whether `exit_code` of an undecided comparison is 0 (pass) or 1 (fail); None: 5.

    Returns:
        The comparison; `verdict` is `pass`, `regression` or `undecided`; `metrics` has a result for
        each metric.

    Raises:
        NotComparableError: they do not measure the same thing, or cannot be read.
        UsageError: unknown names, or a threshold that names no metric.
    """
    folder = Path(output)
    thresholds = Thresholds(_checked(max_drop, "max_drop"), _checked(margin, "margin"))
    return compare_runs(
        _runs(base, folder),
        _runs(new, folder),
        names=(_name(base), _name(new)),
        thresholds=thresholds,
        alpha=alpha,
        allow=allow,
        with_speed=speed,
        seed=seed,
        resamples=resamples,
        undecided=undecided,
    )


def _checked(values: Mapping[str, float] | None, name: str) -> dict[str, float]:
    return {metric: number(value, f"{name} {metric}") for metric, value in (values or {}).items()}


def _runs(run: Run, output: Path) -> dict[Key, Path]:
    if isinstance(run, RunResult):
        return {key_of(run.stored): run.path}
    return resolve(os.fspath(run), output)


def _name(run: Run) -> str:
    return str(run.path) if isinstance(run, RunResult) else os.fspath(run)
