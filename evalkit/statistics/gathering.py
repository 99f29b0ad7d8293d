"""Metrics summed by group while records pass by, so that a long run's records need not be kept.

For metrics whose rows depend on one record each: means, shares, roots of mean squares and what is made of
them. Others (CIDEr's document frequencies) need all records at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from evalkit.contracts import MetricValue, Record
from evalkit.metrics.base import Accuracy, Composite, FloatArray, Mean, Metric, RootMeanSquare
from evalkit.statistics.estimate import estimate_tally
from evalkit.statistics.resampling import IntArray, Resampler, Tally


def by_record(metric: Metric) -> bool:
    """Whether a metric's rows depend on one record each. Kinds that are not known here are taken not to."""
    if type(metric) is Composite:
        return all(by_record(part) for part in metric.parts)
    return type(metric) in (Mean, Accuracy, RootMeanSquare)


class Codes:
    """Numbers of names, in the order of their first appearance."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}

    def of(self, names: Iterable[Hashable]) -> IntArray:
        """A number for each name; -1 for None."""
        known = self._known
        numbers = [-1 if name is None else known.setdefault(name, len(known)) for name in names]
        return np.array(numbers, dtype=np.intp)

    def __len__(self) -> int:
        return len(self._known)

    def names(self) -> list[Hashable]:
        """By number."""
        return list(self._known)


class Sums:
    """A metric's rows summed by group.

    Args:
        metric: one of which `by_record` is true.

    Attributes:
        rows: sums, [groups, k]. sizes: selected records, [groups].
        right: records with outcome 1, [groups], of a binary metric.
        parts: of a composite.
        witness: the first selected record.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.rows: FloatArray = np.zeros((0, 0))
        self.sizes: IntArray = np.zeros(0, np.intp)
        self.right: IntArray = np.zeros(0, np.intp)
        self.parts = [Sums(part) for part in metric.parts] if isinstance(metric, Composite) else []
        self.witness: Record | None = None

    def add(self, records: Sequence[Record], codes: IntArray, groups: int) -> None:
        """Take in more records.

        Args:
            records: in order. codes: the group of each, -1 for none. groups: how many there are by now.
        """
        for part in self.parts:
            part.add(records, codes, groups)
        selected = self.metric.selected(records)
        if self.witness is None and selected.any():
            self.witness = records[int(selected.argmax())]
        used = selected & (codes >= 0)
        places, rows = codes[used], self.metric.statistics(records)[used]
        self.sizes = _grown(self.sizes, groups) + np.bincount(places, minlength=groups)
        self.rows = _grown(self.rows.reshape(len(self.rows), rows.shape[1]), groups)
        np.add.at(self.rows, places, rows)
        if self.metric.binary and (outcomes := self.metric.outcomes(records)) is not None:
            right = places[outcomes[used] == 1]
            self.right = _grown(self.right, groups) + np.bincount(right, minlength=groups)

    def reason(self, answered: Record | None) -> str | None:
        """Why the figure cannot be computed, as the metric says of all records.

        Args:
            answered: an answered record, one with a target if there is any; None without any.
        """
        known = [leaf.witness for leaf in self.leaves()]
        return self.metric.reason([record for record in (*known, answered) if record is not None])

    def leaves(self) -> list[Sums]:
        """Itself, or of a composite the leaves of its parts."""
        return [leaf for part in self.parts for leaf in part.leaves()] if self.parts else [self]

    def tally(self, order: IntArray) -> Tally:
        """The sums as intervals take them, groups in the order given, those without a selected record out."""
        kept = order[self.sizes[order] > 0]
        right = self.right[kept] if self.metric.binary else None
        parts = tuple(part.tally(order) for part in self.parts)
        return Tally(self.metric, self.rows[kept], self.sizes[kept], right, parts)


def _grown(rows: np.ndarray, groups: int) -> np.ndarray:
    """Zeros after the rows, up to so many groups."""
    more = np.zeros((groups - len(rows), *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, more]) if len(more) else rows


class Gathering:
    """The metrics of a report over records that pass by in parts.

    Args:
        metrics: all of which `by_record` is true.

    Attributes:
        answered: see `Sums.reason`.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._sums = [Sums(metric) for metric in metrics]
        self._clusters = Codes()
        self.answered: Record | None = None

    def add(self, records: Sequence[Record]) -> None:
        """Take in more records."""
        codes = self._clusters.of(record.cluster for record in records)
        for sums in self._sums:
            sums.add(records, codes, len(self._clusters))
        if self.answered is None or self.answered.target is None:
            answered = [record for record in records if not record.failed]
            labelled = next((record for record in answered if record.target is not None), None)
            self.answered = labelled or self.answered or next(iter(answered), None)

    def estimates(self, *, seed: int = 0, resamples: int = 2000) -> dict[str, MetricValue]:
        """As `estimate_all` over all the records."""
        resampler = Resampler(seed, resamples)
        names = self._clusters.names()
        order = np.array(sorted(range(len(names)), key=lambda code: str(names[code])), dtype=np.intp)
        found = {}
        for sums in self._sums:
            reason = sums.reason(self.answered)
            if reason is not None:
                n = int(sums.sizes.sum())
                found[sums.metric.name] = MetricValue(None, sums.metric.unit, n, reason=reason)
            else:
                found[sums.metric.name] = estimate_tally(sums.tally(order), resampler)
        return found
