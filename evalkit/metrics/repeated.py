"""Metrics over samples that were asked several times: each sample enters with the mean of its repeats.

A row of statistics is the mean of the repeats' rows. So a sample counts once, whatever the number of its
repeats, and an interval takes repeats of one question for what they are: dependent (Miller 2024).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from evalkit.contracts import Record
from evalkit.metrics.base import BoolArray, Composite, FloatArray, Metric


def over_repeats(metrics: Sequence[Metric], *series: Sequence[Record]) -> list[Metric]:
    """The metrics as they must be computed for these records: unchanged where nothing is repeated.

    Args:
        series: all lists of records that the metrics will be computed of, so that two runs of which one has
            repeats are computed alike.
    """
    if not any(record.repeats for records in series for record in records):
        return list(metrics)
    return [_over_repeats(metric, series) for metric in metrics]


def rounds(records: Sequence[Record]) -> list[list[Record]]:
    """The first repeat of every record, the second, and so on; a record without repeats is in every round."""
    most = max((len(record.repeats) for record in records), default=0)
    return [
        [record.repeats[place] if place < len(record.repeats) else record for record in records]
        for place in range(max(1, most))
    ]


def _over_repeats(metric: Metric, series: Sequence[Sequence[Record]]) -> Metric:
    if not isinstance(metric, Composite):
        return Repeated(metric, series)
    whole = copy.copy(metric)
    whole.parts = tuple(_over_repeats(part, series) for part in metric.parts)
    return whole


class Repeated(Metric):
    """A metric whose statistics of a record are the mean of those of its repeats.

    Attributes:
        metric: that of a single answer.
    """

    def __init__(self, metric: Metric, series: Sequence[Sequence[Record]] = ()) -> None:
        super().__init__(metric.name, unit=metric.unit, higher_is_better=metric.higher_is_better)
        self.metric = metric
        self.variant = metric.variant
        self.rests_on = metric.rests_on
        self.binary = metric.binary and all(self._is_whole(records) for records in series)

    def _is_whole(self, records: Sequence[Record]) -> bool:
        """Whether all repeats of every sample have the same outcome."""
        outcomes = self.outcomes(records)
        return outcomes is not None and bool(np.isin(outcomes[~np.isnan(outcomes)], (0.0, 1.0)).all())

    @property
    def bounds(self) -> tuple[float, float]:
        """Those of the metric."""
        return self.metric.bounds

    @property
    def mean_range(self) -> tuple[float, float] | None:
        """That of the metric."""
        return self.metric.mean_range

    def selected(self, records: Sequence[Record]) -> BoolArray:
        """Records of which a repeat is selected."""
        chosen = [self.metric.selected(each) for each in rounds(records)]
        found: BoolArray = np.logical_or.reduce(chosen, dtype=np.bool_)
        return found

    def reason(self, records: Sequence[Record]) -> str | None:
        """The reason of the first repeats, unless others have a value."""
        reasons = [self.metric.reason(each) for each in rounds(records)]
        return None if None in reasons else reasons[0]

    def outcomes(self, records: Sequence[Record]) -> FloatArray | None:
        """The mean outcome of each record's selected repeats, NaN without any."""
        found = [self.metric.outcomes(each) for each in rounds(records)]
        known = np.array([each for each in found if each is not None])
        if len(known) < len(found):
            return None
        there = ~np.isnan(known)
        counts = there.sum(axis=0)
        sums: FloatArray = np.where(there, known, 0.0).sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def statistics(self, records: Sequence[Record]) -> FloatArray:
        """The mean of the selected repeats' statistics, [n, k]."""
        total, counts = None, np.zeros(len(records))
        for each in rounds(records):
            rows = self.metric.statistics(each)
            total = rows if total is None else total + rows
            counts += self.metric.selected(each)
        assert total is not None
        mean: FloatArray = total / np.maximum(counts, 1.0)[:, None]
        return mean

    def value(self, sums: FloatArray) -> FloatArray:
        """That of the metric."""
        return self.metric.value(sums)
