"""Metrics gathered while records pass by, so that a long run's records need not be kept.

Rows of the metrics and names of the clusters lie in temporary files; sums by group are made of one metric at
a time, when all records have passed. For metrics whose rows depend on one record each: means, shares, roots
of mean squares and what is made of them. Others (CIDEr's document frequencies) need all records at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import MetricValue, Record
from evalkit.metrics.base import Accuracy, Composite, FloatArray, Mean, Metric, RootMeanSquare
from evalkit.scratch import ScratchFile
from evalkit.statistics.estimate import estimate_tally
from evalkit.statistics.numbering import Names
from evalkit.statistics.resampling import IntArray, Resampler, Tally


def by_record(metric: Metric) -> bool:
    """Whether a metric's rows depend on one record each. Kinds that are not known here are taken not to."""
    if type(metric) is Composite:
        return all(by_record(part) for part in metric.parts)
    return type(metric) in (Mean, Accuracy, RootMeanSquare)


@dataclass(frozen=True, slots=True)
class Totals:
    """Rows summed by group.

    Attributes:
        rows: sums, [groups, k]. sizes: selected records, [groups].
        right: records with outcome 1, [groups], of a binary metric.
    """

    rows: FloatArray
    sizes: IntArray
    right: IntArray


class Sums:
    """A metric's rows, to be summed by group.

    Args:
        metric: one of which `by_record` is true. file: takes the rows.

    Attributes:
        n: rows, which is selected records of some group.
        parts: of a composite.
        witness: the first selected record.
    """

    def __init__(self, metric: Metric, file: ScratchFile) -> None:
        self.metric = metric
        self.n = 0
        self.parts = [Sums(part, file) for part in metric.parts] if isinstance(metric, Composite) else []
        self.witness: Record | None = None
        self._file = file
        self._places, self._sizes = array("q"), array("i")
        self._kind = _row_kind(0)

    def add(self, records: Sequence[Record], codes: IntArray) -> None:
        """Take in more records.

        Args:
            records: in order. codes: the group of each, -1 for none.
        """
        for part in self.parts:
            part.add(records, codes)
        selected = self.metric.selected(records)
        if self.witness is None and selected.any():
            self.witness = records[int(selected.argmax())]
        used = selected & (codes >= 0)
        if not used.any():
            return
        statistics = self.metric.statistics(records)[used]
        self._kind = _row_kind(statistics.shape[1])
        rows = np.zeros(len(statistics), self._kind)
        rows["group"], rows["row"] = codes[used], statistics
        if self.metric.binary and (outcomes := self.metric.outcomes(records)) is not None:
            rows["right"] = outcomes[used] == 1
        self.n += len(rows)
        self._places.append(self._file.append(rows.tobytes()))
        self._sizes.append(rows.nbytes)

    def totals(self, groups: int, ranks: IntArray | None = None) -> Totals:
        """The sums.

        Args:
            groups: how many there are. ranks: of each group in the order wanted; None: by number.
        """
        found = Totals(
            np.zeros((groups, self._kind["row"].shape[0])),
            np.zeros(groups, np.intp),
            np.zeros(groups, np.intp),
        )
        for place, size in zip(self._places, self._sizes, strict=True):
            rows = np.frombuffer(self._file.read(place, size), self._kind)
            where = rows["group"] if ranks is None else ranks[rows["group"]]
            np.add.at(found.rows, where, rows["row"])
            np.add.at(found.sizes, where, 1)
            np.add.at(found.right, where[rows["right"]], 1)
        return found

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

    def tally(self, ranks: IntArray) -> Tally:
        """The sums as intervals take them, groups in the order given, those without a selected record out."""
        found = self.totals(len(ranks), ranks)
        if not (kept := found.sizes > 0).all():
            found = Totals(found.rows[kept], found.sizes[kept], found.right[kept])
        right = found.right if self.metric.binary else None
        parts = tuple(part.tally(ranks) for part in self.parts)
        return Tally(self.metric, found.rows, found.sizes, right, parts)


def _row_kind(columns: int) -> np.dtype[np.void]:
    return np.dtype([("group", np.int32), ("right", np.bool_), ("row", np.float64, (columns,))])


class Gathering:
    """The metrics of a report over records that pass by in parts.

    Args:
        metrics: all of which `by_record` is true.

    Attributes:
        answered: see `Sums.reason`.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        rows = ScratchFile()
        self._sums = [Sums(metric, rows) for metric in metrics]
        self._clusters = Names()
        self.answered: Record | None = None

    def add(self, records: Sequence[Record]) -> None:
        """Take in more records."""
        codes = self._clusters.of(record.cluster for record in records)
        for sums in self._sums:
            sums.add(records, codes)
        if self.answered is None or self.answered.target is None:
            answered = [record for record in records if not record.failed]
            labelled = next((record for record in answered if record.target is not None), None)
            self.answered = labelled or self.answered or next(iter(answered), None)

    def estimates(self, *, seed: int = 0, resamples: int = 2000) -> dict[str, MetricValue]:
        """As `estimate_all` over all the records."""
        resampler = Resampler(seed, resamples)
        ranks = self._clusters.ranks()
        found = {}
        for sums in self._sums:
            reason = sums.reason(self.answered)
            if reason is not None:
                found[sums.metric.name] = MetricValue(None, sums.metric.unit, sums.n, reason=reason)
            else:
                found[sums.metric.name] = estimate_tally(sums.tally(ranks), resampler)
        return found
