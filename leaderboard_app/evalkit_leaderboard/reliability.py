"""Whether a run's 95% intervals hold what they should, by worlds drawn from the run itself.

The run's clusters are taken as all there are, so that its value is the truth. Worlds of as many clusters are
drawn from them with replacement, the interval is made in each as in the run, and those that hold the truth
are counted: the coverage check of bootstrap calibration (Efron and Tibshirani 1993, chapter 18; Loh 1987).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from evalkit.comparison.runs import load_for_comparison
from evalkit.contracts import Record
from evalkit.metrics.base import Metric
from evalkit.statistics.estimate import interval
from evalkit.statistics.intervals import exact_share
from evalkit.statistics.resampling import ClusterSums, Resampler
from evalkit_leaderboard.runs import or_reason

WORLDS = 400
_RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the worlds' intervals hold the value, in percent, with the 95% interval of that share.

    Attributes:
        worlds: with an interval. clusters: of the run.
    """

    value: float
    low: float
    high: float
    worlds: int
    clusters: int


def coverage(
    metric: Metric, records: Sequence[Record], worlds: int = WORLDS, seed: int = 0
) -> Coverage | str:
    """The coverage, or why there is none."""
    if (reason := metric.reason(records)) is not None:
        return reason
    sums = ClusterSums.of(metric, records)
    if sums.parts:
        return f"{metric.name} is a mean of parts over clusters of their own; choose one of its parts"
    if sums.clusters < 2:
        return "one cluster: no interval"
    truth, rng, resampler = sums.value(), np.random.default_rng(seed), Resampler(seed, _RESAMPLES)
    held: list[bool] = []
    same = True
    for _ in range(worlds):
        drawn = rng.integers(sums.clusters, size=sums.clusters)
        world = replace(sums, rows=sums.rows[drawn], sizes=sums.sizes[drawn])
        same = same and abs(world.value() - truth) < 1e-9 * max(1.0, abs(truth))
        found, _ = interval(world, resampler)
        if found is not None:
            held.append(found[0] <= truth <= found[1])
    if same:
        return "all clusters are alike: no world differs, which tells nothing"
    if not held:
        return "no world has an interval"
    share = sum(held) / len(held)
    low, high = exact_share(share, len(held))
    return Coverage(100 * share, 100 * low, 100 * high, len(held), sums.clusters)


@lru_cache(maxsize=256)
def of_run(folder: Path, metric: str, _stamp: str) -> Coverage | str:
    """The coverage of a run's metric, or why there is none; `_stamp` changes with the run's content."""
    run = or_reason(lambda: load_for_comparison(folder))
    if isinstance(run, str):
        return run
    found = next((one for one in run.task.metrics() if one.name == metric), None)
    if found is None:
        return f"{metric} is no metric of {run.key.task} any more"
    return coverage(found, [record for record in run.records if not record.failed])
