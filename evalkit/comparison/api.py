"""`evalkit.compare` for Python."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from evalkit.comparison.baselines import resolve
from evalkit.comparison.compare import Comparison, compare_runs, settings
from evalkit.comparison.runs import Key, key_of
from evalkit.pipeline.comparison_options import ComparisonOptions
from evalkit.pipeline.keywords import called_with
from evalkit.pipeline.results import RunResult

Run = str | os.PathLike[str] | RunResult


@dataclass(frozen=True)
class CompareCall(ComparisonOptions):
    """The arguments of `evalkit.compare`: its own, and every option of a comparison."""

    base: Run
    new: Run
    output: str | os.PathLike[str] = dataclasses.field(default="runs", kw_only=True)


@called_with(CompareCall)
def compare(call: CompareCall) -> Comparison:
    """Compare two results on the samples that both have.

    Args:
        base, new: a run folder, a result of `evalkit.run`, a model's name (its latest complete run of each
            task) or a baseline's.
        output: folder of run folders and baselines.
        The others are the options of `evalkit compare`, listed below; thresholds may be mappings.

    Returns:
        The comparison; `verdict` is `pass`, `regression` or `undecided`; `metrics` has a result for
        each metric.

    Raises:
        NotComparableError: they do not measure the same thing, or cannot be read.
        UsageError: unknown names, or a threshold that names no metric.
    """
    folder = Path(call.output)
    keywords = settings(call)
    return compare_runs(
        _runs(call.base, folder),
        _runs(call.new, folder),
        names=(_name(call.base), _name(call.new)),
        **keywords,
    )


def _runs(run: Run, output: Path) -> dict[Key, Path]:
    if isinstance(run, RunResult):
        return {key_of(run.stored): run.path}
    return resolve(os.fspath(run), output)


def _name(run: Run) -> str:
    return str(run.path) if isinstance(run, RunResult) else os.fspath(run)
