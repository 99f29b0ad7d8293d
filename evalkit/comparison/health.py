"""Metrics of every task: what went wrong, and speed."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from evalkit.comparison.runs import SECONDS
from evalkit.contracts import Flag, Record
from evalkit.metrics.base import BoolArray, FloatArray, Mean, Metric, ratio


class FlagShare(Metric):
    """Percentage of samples with a flag: `error` of all samples, others of the answered ones."""

    def __init__(self, name: str, flag: Flag) -> None:
        super().__init__(name, higher_is_better=False, binary=True)
        self._flag = flag

    @property
    def mean_range(self) -> tuple[float, float]:
        """0 to 100."""
        return self.bounds

    def selected(self, records: Sequence[Record]) -> BoolArray:
        """Answered samples; for errors, all."""
        if self._flag == "error":
            return np.ones(len(records), dtype=np.bool_)
        return super().selected(records)

    def outcomes(self, records: Sequence[Record]) -> FloatArray:
        """1 where the flag is set."""
        flagged = np.array([float(self._flag in record.flags) for record in records], dtype=np.float64)
        return np.where(self.selected(records), flagged, np.nan)

    def statistics(self, records: Sequence[Record]) -> FloatArray:
        """[flagged, 1]."""
        chosen = self.selected(records)
        flagged = np.where(chosen, self.outcomes(records), 0.0)
        return np.stack([flagged, chosen.astype(np.float64)], axis=1)

    def value(self, sums: FloatArray) -> FloatArray:
        """100 * flagged / count."""
        return 100.0 * ratio(sums[..., 0], sums[..., 1])


@functools.cache
def errors() -> Metric:
    """Samples without an answer, percent of all."""
    return FlagShare("errors", "error")


@functools.cache
def answer_health() -> tuple[Metric, ...]:
    """Answers that could not be parsed or were cut, percent of the answered samples."""
    return FlagShare("unparsed", "unparsed"), FlagShare("truncated", "truncated")


def speed() -> Metric:
    """Mean model time a sample."""
    return Mean(SECONDS, SECONDS, unit="s", scale=1.0, higher_is_better=False)
