"""Several runs a side: is a recipe better than another, or only the checkpoints that were compared?"""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evalkit.comparison.baselines import model_names, resolve
from evalkit.comparison.best_of import common_keys, common_records
from evalkit.comparison.runs import Key, load_for_comparison
from evalkit.comparison.verdicts import (
    GateVerdict,
    Thresholds,
    Verdict,
    exceeds,
    gate_status,
    gate_verdict,
    more_clusters,
)
from evalkit.contracts import Json
from evalkit.errors import NotComparableError, UsageError
from evalkit.metrics.repeated import over_repeats
from evalkit.pipeline.comparison_options import RESAMPLES, Undecided, as_level
from evalkit.registry import nearest
from evalkit.statistics import Resampler, holm
from evalkit.statistics.recipe import RecipeDifference, recipe_difference

#: Whether the recipe is better or worse, or these runs alone differ, or nothing is shown.
RecipeVerdict = Literal["better", "worse", "only_these_runs", "no_evidence"]


@dataclass(frozen=True, slots=True)
class RecipeResult:
    """One metric of one task.

    Attributes:
        p_adjusted, p_runs_adjusted: Holm's over the metrics judged, for the recipe and for these runs.
        failure: why it fails the gate, or None. undecided: why the data cannot tell, or None.
    """

    key: Key
    found: RecipeDifference
    judged: bool
    alpha: float
    max_drop: float | None = None
    margin: float | None = None
    p_adjusted: float | None = None
    p_runs_adjusted: float | None = None
    failure: str | None = None
    undecided: str | None = None

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.found.metric.name

    @property
    def verdict(self) -> Verdict:
        """Of the recipe."""
        p, gain = self.p_adjusted, self.found.gain
        if p is None or gain is None or p > self.alpha:
            return "no_evidence"
        return "improved" if gain > 0 else "regressed"

    @property
    def recipe(self) -> RecipeVerdict:
        """Of the recipe, told apart from these runs."""
        if self.verdict != "no_evidence":
            return "better" if self.verdict == "improved" else "worse"
        p = self.p_runs_adjusted
        return "only_these_runs" if p is not None and p <= self.alpha else "no_evidence"


@dataclass(frozen=True, slots=True)
class RecipeComparison:
    """Two recipes, metric by metric.

    Attributes:
        base, new: names of the runs. samples: that all runs answered, by task.
    """

    base: tuple[str, ...]
    new: tuple[str, ...]
    alpha: float
    samples: Mapping[Key, int]
    metrics: tuple[RecipeResult, ...]
    reasons: tuple[str, ...]
    undecided: Undecided | None = None

    @property
    def verdict(self) -> GateVerdict:
        """Of the gate."""
        return gate_verdict(self.metrics)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 regression, 5 undecided, or what `undecided` makes of it."""
        return gate_status(self.verdict, self.undecided)


def is_glob(name: str) -> bool:
    """Whether a name stands for several runs."""
    return any(mark in name for mark in "*?[") and not Path(name).exists()


def expand(names: Sequence[str], output: Path, flag: str) -> dict[str, dict[Key, Path]]:
    """The runs that names, globs of run folders and globs of models stand for.

    Raises:
        UsageError: nothing of that name, or a run that is named twice.
    """
    found: dict[str, dict[Key, Path]] = {}
    for name in (part.strip() for text in names for part in text.split(",") if part.strip()):
        if not is_glob(name):
            matches = [name]
        else:
            folders = [path for path in sorted(glob.glob(name)) if Path(path).is_dir()]  # noqa: PTH207 absolute too
            known = model_names(output)
            matches = folders or [model for model in known if fnmatch.fnmatchcase(model, name)]
            if not matches:
                raise UsageError(
                    f"{flag} {name}: no run folder and no model in {output}{nearest(name, known)}"
                )
        for match in matches:
            if match in found:
                raise UsageError(f"{flag} {match}: is given twice")
            found[match] = resolve(match, output)
    return found


def compare_recipes(
    base: Mapping[str, Mapping[Key, Path]],
    new: Mapping[str, Mapping[Key, Path]],
    *,
    thresholds: Thresholds | None = None,
    alpha: float = 0.05,
    allow: Collection[str] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
    undecided: Undecided | None = None,
) -> RecipeComparison:
    """Compare two recipes by several runs of each, by name.

    Raises:
        NotComparableError: the runs do not measure the same thing, or cannot be read.
        UsageError: one run of each, one run on both sides, or a threshold that names no metric.
    """
    as_level(alpha)
    if len(base) + len(new) < 3 or not (base and new):
        raise UsageError("--base-runs, --new-runs: give several runs on at least one side, one on the other")
    runs = [*base.values(), *new.values()]
    keys, left_out = common_keys(runs)
    if not keys:
        raise NotComparableError(f"no task in common: {', '.join((*base, *new))}")
    paths = [path.resolve() for each in runs for path in each.values()]
    if len(set(paths)) < len(paths):
        double = next(path for path in paths if paths.count(path) > 1)
        raise UsageError(f"--base-runs, --new-runs: {double} is given twice")
    resampler = Resampler(seed, resamples)
    limits = thresholds or Thresholds()
    samples: dict[Key, int] = {}
    results: list[RecipeResult] = []
    for key in keys:
        count, found = _differences(key, runs, len(base), allow, resampler, alpha)
        samples[key] = count
        for each in found:
            max_drop, margin = limits.of(key, each.metric.name)
            named = max_drop is not None or margin is not None
            judged = named or not (limits or each.metric.variant)
            results.append(RecipeResult(key, each, judged, alpha, max_drop, margin))
    limits.check((result.key, result.name) for result in results)
    judged_results = tuple(_gate(result) for result in _adjusted(results))
    reasons = [
        f"{r.key} {r.name}: {r.failure or r.undecided}" for r in judged_results if r.failure or r.undecided
    ]
    reasons += [
        f"{r.key} {r.name}: these runs differ, other training seeds may not: more runs of each recipe tell"
        for r in judged_results
        if r.judged and r.recipe == "only_these_runs"
    ]
    reasons += left_out
    return RecipeComparison(
        tuple(base), tuple(new), alpha, samples, judged_results, tuple(reasons), undecided
    )


def _differences(
    key: Key,
    runs: Sequence[Mapping[Key, Path]],
    split: int,
    allow: Collection[str],
    resampler: Resampler,
    alpha: float,
) -> tuple[int, list[RecipeDifference]]:
    """How many samples all runs answered, and every metric on them."""
    first, *others = [load_for_comparison(each[key]) for each in runs]
    series = common_records(first, others, allow)
    if not series[0]:
        raise NotComparableError(f"{key}: no sample was answered by all runs")
    metrics = over_repeats(first.task.metrics(), *series)
    found = [recipe_difference(m, series[:split], series[split:], resampler, alpha=alpha) for m in metrics]
    return len(series[0]), found


def _adjusted(results: Sequence[RecipeResult]) -> list[RecipeResult]:
    """With Holm's p values over the metrics judged; of another metric its own."""
    found = list(results)
    for name, own in (("p_adjusted", "p"), ("p_runs_adjusted", "p_runs")):
        tested = [place for place, r in enumerate(found) if r.judged and getattr(r.found, own) is not None]
        adjusted = dict(zip(tested, holm([getattr(found[p].found, own) for p in tested]), strict=True))
        found = [
            dataclasses.replace(r, **{name: adjusted.get(place, getattr(r.found, own))})
            for place, r in enumerate(found)
        ]
    return found


def _gate(result: RecipeResult) -> RecipeResult:
    if not result.judged:
        return result
    found, margin = result.found, result.margin
    sign = 1.0 if found.metric.higher_is_better else -1.0
    more = more_clusters(found.clusters)
    if margin is not None:
        if found.interval is None:
            return dataclasses.replace(
                result, undecided=f"cannot be judged: {found.reason or 'no interval'}{more}"
            )
        worst, best = sorted(sign * end for end in found.interval)
        if exceeds(-best, margin):
            return dataclasses.replace(result, failure=f"a drop larger than {margin:g} is shown")
        if exceeds(-worst, margin):
            said = f"not shown: a drop larger than {margin:g} is not excluded; more runs and samples show it"
            return dataclasses.replace(result, undecided=said)
        return result
    if result.max_drop is not None and found.p is None:
        return dataclasses.replace(result, undecided=f"cannot be judged: {found.reason or 'no test'}{more}")
    if result.verdict == "regressed" and exceeds(-(found.gain or 0.0), result.max_drop or 0.0):
        return dataclasses.replace(result, failure="significant drop of the recipe")
    return result


def recipes_json(comparison: RecipeComparison) -> dict[str, Json]:
    """Verdict, metrics with both variances, reasons; full precision."""
    return {
        "verdict": comparison.verdict,
        "base": list(comparison.base),
        "new": list(comparison.new),
        "alpha": comparison.alpha,
        "metrics": [_result_json(result) for result in comparison.metrics],
        "flips": {},
        "reasons": list(comparison.reasons),
    }


def _result_json(result: RecipeResult) -> dict[str, Json]:
    found = result.found
    sds = found.sd_seeds
    return {
        "task": result.key.task,
        "split": result.key.split,
        "metric": result.name,
        "unit": found.metric.unit,
        "higher_is_better": found.metric.higher_is_better,
        "base": sum(found.base) / len(found.base) if found.base else None,
        "new": sum(found.new) / len(found.new) if found.new else None,
        "base_runs": list(found.base),
        "new_runs": list(found.new),
        "difference": found.difference,
        "ci95": list(found.ci95) if found.ci95 else None,
        "p": found.p,
        "p_adjusted": result.p_adjusted,
        "p_runs": found.p_runs,
        "verdict": result.verdict,
        "recipe": result.recipe,
        "variance": None
        if sds is None or found.se_samples is None
        else {"seeds_base": sds[0] ** 2, "seeds_new": sds[1] ** 2, "samples": found.se_samples**2},
        "se": found.se,
        "detectable": None,
        "n": found.n,
        "clusters": found.clusters,
        "judged": result.judged,
        "max_drop": result.max_drop,
        "margin": result.margin,
        "failure": result.failure,
        "undecided": result.undecided,
        "notes": [found.reason] if found.reason else [],
    }
