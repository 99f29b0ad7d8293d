"""The best of several runs, judged as such: simultaneous intervals, and what luck alone shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import Record
from evalkit.metrics.base import Metric
from evalkit.statistics.intervals import Interval, cut, join
from evalkit.statistics.max_t import MaxT, max_t
from evalkit.statistics.paired import Difference, difference
from evalkit.statistics.resampling import Clusters, Resampler
from evalkit.statistics.swaps import PairedSums


@dataclass(frozen=True, slots=True)
class Contender:
    """One of the runs among which the best is chosen.

    Attributes:
        difference: from the base; its own p value and intervals are of one look alone.
        ci95, interval: simultaneous over all runs, 95% and at the level asked for; None where there is none.
        p: over all runs, None where nothing can be tested.
    """

    difference: Difference
    ci95: Interval | None
    interval: Interval | None
    p: float | None

    @property
    def worst_gain(self) -> float | None:
        """The worst gain that the simultaneous interval does not exclude."""
        if self.interval is None:
            return None
        return self.interval[0] if self.difference.metric.higher_is_better else -self.interval[1]

    @property
    def best_gain(self) -> float | None:
        """The best gain that the simultaneous interval does not exclude."""
        if self.interval is None:
            return None
        return self.interval[1] if self.difference.metric.higher_is_better else -self.interval[0]


@dataclass(frozen=True, slots=True)
class BestOf:
    """Runs against one base, and the best of them.

    Attributes:
        best: place of the run with the largest gain; None where none has a value.
        luck: the mean gain that the best of as many runs shows where none differs from the base.
        shrinkage: by how much the best run's gain is expected to be too large; None as `luck`, where clusters
            are too few to say.
    """

    metric: Metric
    contenders: tuple[Contender, ...]
    best: int | None
    luck: float | None
    shrinkage: float | None

    @property
    def expected_gain(self) -> float | None:
        """The best run's gain, less what it owes to being chosen."""
        if self.best is None or self.shrinkage is None:
            return None
        gain = self.contenders[self.best].difference.gain
        return None if gain is None else gain - self.shrinkage


def best_of(
    metric: Metric,
    base: Sequence[Record],
    runs: Sequence[Sequence[Record]],
    resampler: Resampler,
    *,
    alpha: float = 0.05,
    families: int = 1,
) -> BestOf:
    """Compare runs with a base on the same samples, and judge them together.

    A p value is the larger of max-T's over all runs and the run's own. An interval is the larger of max-T's
    and the run's own at the level that max-T leaves to a single run, so that all that guards a single
    comparison (few changes, few clusters) guards these too.

    Args:
        base, runs: [n] records each, of the same samples in the same order.
        alpha: the chance that any run without a difference is called different.
        families: how often a best is chosen (one for each task); each has alpha over their number.
    """
    singles = [difference(metric, base, each, resampler, alpha=alpha) for each in runs]
    gains = [single.gain for single in singles]
    known = [place for place, gain in enumerate(gains) if gain is not None]
    best = max(known, key=lambda place: gains[place] or 0.0, default=None)
    tested = [place for place in known if singles[place].p is not None]
    if not tested:
        contenders = tuple(Contender(single, None, None, None) for single in singles)
        return BestOf(metric, contenders, best, None, None)
    together = max_t(_pairs(metric, base, [runs[place] for place in tested]), resampler)
    sign = 1.0 if metric.higher_is_better else -1.0
    each = [(runs[place], singles[place]) for place in tested]
    judged = _contenders(metric, base, each, together, resampler, alpha, families)
    found = dict(zip(tested, judged, strict=True))
    contenders = tuple(
        found.get(place, Contender(single, None, None, None)) for place, single in enumerate(singles)
    )
    return BestOf(metric, contenders, best, together.luck(sign), together.shrinkage(sign))


def _pairs(metric: Metric, base: Sequence[Record], runs: Sequence[Sequence[Record]]) -> list[PairedSums]:
    """Cluster sums of each run beside the base's, over the samples that any of them selects."""
    chosen = np.logical_or.reduce([metric.selected(each) for each in (base, *runs)], dtype=np.bool_)
    clusters = Clusters.of_chosen(base, chosen)
    before = clusters.sums(metric.statistics(base)[chosen])
    return [PairedSums(metric, before, clusters.sums(metric.statistics(each)[chosen])) for each in runs]


def _contenders(
    metric: Metric,
    base: Sequence[Record],
    runs: Sequence[tuple[Sequence[Record], Difference]],
    together: MaxT,
    resampler: Resampler,
    alpha: float,
    families: int,
) -> list[Contender]:
    low, high = metric.bounds
    p_values, reached = together.p(), together.reached()
    found = []
    for place, (records, single) in enumerate(runs):
        own = single.p if single.p is not None else 1.0
        p = float(p_values[place])
        if not reached[place]:  # beyond the swaps drawn: Bonferroni over the run's own tail
            p = min(p, len(runs) * own)
        p = min(1.0, families * max(p, own))
        ends: dict[float, Interval | None] = {}
        for level in dict.fromkeys((0.05, alpha)):
            one = together.level(level / families)
            wide = difference(metric, base, records, resampler, alpha=one).interval
            reach = together.quantile(level / families) * float(together.errors[place])
            value = single.difference or 0.0
            if wide is not None and np.isfinite(reach):
                wide = join(wide, (value - reach, value + reach))
            if wide is not None and p > level:
                wide = join(wide, (0.0, 0.0))
            ends[level] = wide and cut(wide, (low - high, high - low), value)
        found.append(Contender(single, ends[0.05], ends[alpha], p))
    return found
