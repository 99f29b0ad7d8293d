"""Two runs, several with one base, or two recipes: `evalkit.compare`, for Python and for the command."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from evalkit.comparison.baselines import resolve
from evalkit.comparison.best_of import BestOfComparison, compare_best_of
from evalkit.comparison.compare import Comparison, TaskPart, compare_runs, settings
from evalkit.comparison.many import Comparisons
from evalkit.comparison.recipes import RecipeComparison, compare_recipes, expand, is_glob
from evalkit.comparison.runs import Key, key_of, load_for_comparison
from evalkit.comparison.shared import Shared
from evalkit.errors import UsageError
from evalkit.pipeline.comparison_options import ComparisonOptions
from evalkit.pipeline.keywords import called_with
from evalkit.pipeline.results import RunResult

Run = str | os.PathLike[str] | RunResult
Runs = Run | Sequence[Run]
Outcome = Comparison | Comparisons | BestOfComparison | RecipeComparison


@dataclass(frozen=True)
class CompareCall(ComparisonOptions):
    """The arguments of a comparison: its own, and every option."""

    base: Run | None = None
    new: Runs = ()
    best_of: bool = dataclasses.field(default=False, kw_only=True)
    metric: str | None = dataclasses.field(default=None, kw_only=True)
    base_runs: Runs = dataclasses.field(default=(), kw_only=True)
    new_runs: Runs = dataclasses.field(default=(), kw_only=True)
    output: str | os.PathLike[str] = dataclasses.field(default="runs", kw_only=True)


@called_with(CompareCall)
def _compare(call: CompareCall) -> Outcome:
    """Compare results on the samples that all of them have.

    `compare(base, new)` is a comparison of two. With several, `compare(base, new1, new2)` or
    `compare(base, [new1, new2])`, each is compared with the base; with `best_of=True` one is chosen.
    `compare(base_runs=[…], new_runs=[…])` compares two recipes by several runs of each.

    Args:
        base, new: a run folder, a result of `evalkit.run`, a model's name (its latest complete run of each
            task) or a baseline's; of several also a glob.
        best_of: choose the best of several, and say what it owes to luck.
        metric: what `best_of` chooses by; by default each task's headline.
        base_runs, new_runs: runs of one recipe (training seeds) in the place of `base`, of `new`.
        output: folder of run folders and baselines.
        The others are the options of `evalkit compare`, listed below; thresholds may be mappings.

    Returns:
        A `Comparison` of two: `verdict` is `pass`, `regression` or `undecided`; `metrics` has a result for
        each metric. Of several `Comparisons`, with `best_of` a `BestOfComparison`, of recipes a
        `RecipeComparison`; all have `verdict` and `exit_code`.

    Raises:
        NotComparableError: they do not measure the same thing, or cannot be read.
        UsageError: unknown names, or a threshold that names no metric.
    """
    return outcome(call)


@overload
def compare(base: Run, new: Run, /, *, output: Run = ..., **options: Any) -> Comparison: ...
@overload
def compare(
    base: Run, /, *new: Runs, best_of: Literal[True], metric: str | None = ..., **options: Any
) -> BestOfComparison: ...
@overload
def compare(base: Run, first: Run, second: Run, /, *new: Run, **options: Any) -> Comparisons: ...
@overload
def compare(*, base_runs: Runs, new_runs: Runs, **options: Any) -> RecipeComparison: ...
@overload
def compare(base: Run | None = None, /, *new: Runs, **options: Any) -> Outcome: ...
@functools.wraps(_compare)
def compare(base: Run | None = None, /, *new: Runs, **options: Any) -> Outcome:
    named: list[Any] = [] if base is None else [base]
    if new:
        named.append(new[0] if len(new) == 1 else [run for each in new for run in _listed(each)])
    return _compare(*named, **options)


def outcome(call: CompareCall) -> Outcome:
    """Compare what is named with what, as the command and Python do.

    Raises:
        NotComparableError, UsageError: see `compare`.
    """
    options, folder = settings(call), Path(call.output)
    speed = options.pop("with_speed")
    recipe = _recipe_sides(call)
    if call.metric is not None and not call.best_of:
        raise UsageError("--metric: says what --best-of chooses by; --max-drop and --margin name theirs")
    if speed and (recipe or call.best_of):
        raise UsageError("--speed: has no meaning with --best-of and recipes")
    if recipe and call.best_of:
        raise UsageError("--best-of: choose among single runs, or compare recipes")
    if recipe is not None:
        sides = (_by_name(side, folder, flag) for side, flag in zip(recipe, _SIDES, strict=True))
        return compare_recipes(*sides, **options)
    assert call.base is not None
    name, base, new = _name(call.base), _tasks(call.base, folder), _listed(call.new)
    if not call.best_of and len(new) == 1:
        runs = _tasks(new[0], folder)
        return compare_runs(base, runs, names=(name, _name(new[0])), with_speed=speed, **options)
    named = _by_name(new, folder, "NEW")
    if call.best_of:
        return compare_best_of(
            base, list(named.values()), names=(name, list(named)), metric=call.metric, **options
        )
    shared: Shared[TaskPart] = Shared(functools.cache(load_for_comparison))  # the base is read once
    return Comparisons(
        tuple(
            compare_runs(base, paths, names=(name, other), with_speed=speed, shared=shared, **options)
            for other, paths in named.items()
        )
    )


_SIDES = ("--base-runs", "--new-runs")


def _recipe_sides(call: CompareCall) -> tuple[Sequence[Run], Sequence[Run]] | None:
    """The runs of two recipes, named as such or by globs in place of BASE and NEW; None for single runs.

    Raises:
        UsageError: too few or too many runs are named.
    """
    base_runs, new_runs = _listed(call.base_runs), _listed(call.new_runs)
    plain = [*([call.base] if call.base is not None else []), *_listed(call.new)]
    if base_runs or new_runs:
        if (base_runs and new_runs and plain) or not (base_runs or len(plain) == 1 or not new_runs):
            raise UsageError(
                "--base-runs and --new-runs take the places of BASE and NEW: name each side once"
            )
        sides = base_runs or plain, new_runs or plain
        if not (sides[0] and sides[1]):
            raise UsageError("--base-runs, --new-runs: name the runs of both sides")
        return sides
    if len(plain) < 2:
        raise UsageError("write evalkit compare BASE NEW, or --base-runs and --new-runs")
    globs = [isinstance(run, str) and is_glob(run) for run in plain]
    recipe = len(plain) == 2 and (globs[0] or (globs[1] and not call.best_of))
    return ([plain[0]], plain[1:]) if recipe else None


def _listed(runs: Runs) -> Sequence[Run]:
    return [runs] if isinstance(runs, str | os.PathLike | RunResult) else runs


def _by_name(runs: Sequence[Run], output: Path, flag: str) -> dict[str, dict[Key, Path]]:
    """Run folders by task, by the runs' names; globs are expanded."""
    found: dict[str, dict[Key, Path]] = {}
    for run in runs:
        known = {_name(run): _tasks(run, output)} if isinstance(run, RunResult) else None
        for name, tasks in (known or expand([os.fspath(run)], output, flag)).items():  # type: ignore[arg-type]
            if name in found:
                raise UsageError(f"{flag} {name}: is given twice")
            found[name] = tasks
    return found


def _tasks(run: Run, output: Path) -> dict[Key, Path]:
    if isinstance(run, RunResult):
        return {key_of(run.stored): run.path}
    return resolve(os.fspath(run), output)


def _name(run: Run) -> str:
    return str(run.path) if isinstance(run, RunResult) else os.fspath(run)


compare.__signature__ = inspect.signature(_compare)  # type: ignore[attr-defined]
