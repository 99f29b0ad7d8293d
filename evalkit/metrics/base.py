"""Metrics as functions of sums of per-sample statistics.

`statistics(records)` gives one row of numbers a record; `value(sums)` makes the value from column sums over
any set of records. So one vectorised path (evalkit.statistics) gives the value, the clustered interval, the
paired comparison and the power of every metric; a metric never resamples anything itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from evalkit.contracts import Record

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Select = Callable[[Record], bool]
T = TypeVar("T")


class Records(tuple[Record, ...]):
    """Records that do not change, with what was found of them: many metrics ask for the same."""

    kept: dict[Hashable, Any]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """The records; the same object where they are such already."""
        if isinstance(records, cls):
            return records
        found = cls(records)
        found.kept = {}
        return found


def chosen(records: Sequence[Record], key: Hashable, test: Select) -> BoolArray:
    """Which records pass a test, [n], read-only; of `Records` kept for the next metric that asks by `key`."""

    def mask() -> BoolArray:
        found = np.fromiter(map(test, records), dtype=np.bool_, count=len(records))
        found.setflags(write=False)
        return found

    return once(records, key, mask)


def once(records: Sequence[Record], key: Hashable, find: Callable[[], T]) -> T:
    """What `find` returns; of `Records` it is asked once for each key."""
    kept = records.kept if isinstance(records, Records) else {}
    if key not in kept:
        kept[key] = find()
    found: T = kept[key]
    return found


class MetricOptions(TypedDict, total=False):
    """Keyword arguments that every metric passes on to `Metric`."""

    unit: str
    higher_is_better: bool
    select: Select | None
    bounds: tuple[float, float] | None
    binary: bool


class Metric(ABC):
    """One value of a report.

    Attributes:
        name: as in reports and JSON.
        unit: `percent`, `fraction`, `score`, `m/s`, `degrees` ... of `value`.
        higher_is_better: direction of an improvement.
        binary: whether `outcomes` are 0/1, so that McNemar's test applies.
        variant: another metric computed as a certain package does it. It is shown, and a comparison judges it
            only where a threshold names it.
        rests_on: a score that all records of a sample's cluster have and of which its outcome is made (the
            rotations of a circular question), or empty.
    """

    variant: bool = False
    rests_on: str = ""

    def __init__(
        self,
        name: str,
        *,
        unit: str = "percent",
        higher_is_better: bool = True,
        select: Select | None = None,
        bounds: tuple[float, float] | None = None,
        binary: bool = False,
    ) -> None:
        self.name = name
        self.unit = unit
        self.higher_is_better = higher_is_better
        self.binary = binary
        self._select = select
        self._bounds = bounds

    @property
    def bounds(self) -> tuple[float, float]:
        """Range that the value cannot leave, at which intervals end.

        As given, else by unit: 0 to 100 for percent, 0 to 1 for a fraction, none for others. A metric that
        can leave it (CIDEr in percent) says so here.
        """
        if self._bounds is not None:
            return self._bounds
        return {"percent": (0.0, 100.0), "fraction": (0.0, 1.0)}.get(self.unit, (-math.inf, math.inf))

    @property
    def mean_range(self) -> tuple[float, float] | None:
        """Range of one sample's part where the value is a plain mean over samples, else None.

        Statistics are then [part, count], and exact methods for shares apply.
        """
        return None

    def selected(self, records: Sequence[Record]) -> BoolArray:
        """Which records the value rests on, [n]; errors never belong."""
        select = self._select
        return chosen(records, select, lambda r: not r.failed and (select is None or select(r)))

    def reason(self, records: Sequence[Record]) -> str | None:
        """Why the value cannot be computed from these records, or None where it can."""
        if self.selected(records).any():
            return None
        answered = [r for r in records if not r.failed]
        if answered and all(r.target is None for r in answered):
            return "the split's answers are not public; `evalkit export` writes the submission file"
        return "no answered sample of this kind"

    def outcomes(self, records: Sequence[Record]) -> FloatArray | None:
        """Per-sample values [n] (NaN where not selected) for flips and McNemar, or None."""
        return None

    @abstractmethod
    def statistics(self, records: Sequence[Record]) -> FloatArray:
        """Statistics [n, k], a row a record in order; zero rows for records that are not selected.

        Must not depend on which subset is resampled: corpus constants (CIDEr's document frequencies) are
        taken from all the records given.
        """

    @abstractmethod
    def value(self, sums: FloatArray) -> FloatArray:
        """The value [...] from column sums [..., k]; NaN where undefined (nothing selected)."""


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Elementwise division with NaN, not a warning, where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    out = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


class Mean(Metric):
    """Mean of the per-sample score `score`, times `scale`; statistics are [sum, count]."""

    def __init__(
        self,
        name: str,
        score: str | None = None,
        *,
        scale: float = 100.0,
        **options: Unpack[MetricOptions],
    ) -> None:
        super().__init__(name, **options)
        self.score = score or name
        self.scale = scale

    @property
    def mean_range(self) -> tuple[float, float] | None:
        """The bounds, where there are two."""
        return self.bounds if all(map(math.isfinite, self.bounds)) else None

    def selected(self, records: Sequence[Record]) -> BoolArray:
        """Records that carry the score and pass `select`."""
        has = chosen(records, ("score", self.score), lambda r: self.score in r.scores)
        return has & super().selected(records)

    def outcomes(self, records: Sequence[Record]) -> FloatArray | None:
        """The score of each selected record."""
        found = np.full(len(records), np.nan)
        for place in np.flatnonzero(self.selected(records)).tolist():
            found[place] = records[place].scores[self.score]
        return found

    def statistics(self, records: Sequence[Record]) -> FloatArray:
        """[score, 1] for selected records."""
        outcomes = self.outcomes(records)
        assert outcomes is not None
        known = ~np.isnan(outcomes)
        return np.stack([np.where(known, outcomes, 0.0), known.astype(np.float64)], axis=1)

    def value(self, sums: FloatArray) -> FloatArray:
        """scale * sum / count."""
        return self.scale * ratio(sums[..., 0], sums[..., 1])


class Accuracy(Mean):
    """Share of samples whose 0/1 score is 1."""

    def __init__(
        self,
        name: str,
        score: str | None = None,
        *,
        scale: float = 100.0,
        **options: Unpack[MetricOptions],
    ) -> None:
        options.setdefault("binary", True)
        super().__init__(name, score, scale=scale, **options)


class RootMeanSquare(Metric):
    """Root of the mean of the squared per-sample error `score`; smaller is better."""

    def __init__(self, name: str, score: str, *, unit: str, select: Select | None = None) -> None:
        super().__init__(name, unit=unit, higher_is_better=False, select=select, bounds=(0.0, math.inf))
        self._mean = Mean(name, score, scale=1.0, select=select)

    def selected(self, records: Sequence[Record]) -> BoolArray:
        """Records that carry the error."""
        return self._mean.selected(records)

    def outcomes(self, records: Sequence[Record]) -> FloatArray | None:
        """The error of each selected record."""
        return self._mean.outcomes(records)

    def statistics(self, records: Sequence[Record]) -> FloatArray:
        """[error squared, 1]."""
        sums = self._mean.statistics(records)
        sums[:, 0] **= 2
        return sums

    def value(self, sums: FloatArray) -> FloatArray:
        """sqrt(sum / count)."""
        return np.sqrt(ratio(sums[..., 0], sums[..., 1]))


class Composite(Metric):
    """A value made of other values: `combine` maps part values [..., parts] to [...]."""

    def __init__(
        self,
        name: str,
        parts: Sequence[Metric],
        combine: Callable[[FloatArray], FloatArray],
        **options: Unpack[MetricOptions],
    ) -> None:
        super().__init__(name, **options)
        self.parts = tuple(parts)
        self._combine = combine
        self._widths: tuple[int, ...] | None = None

    def selected(self, records: Sequence[Record]) -> BoolArray:
        """Records that any part rests on."""
        found = np.zeros(len(records), dtype=np.bool_)
        for part in self.parts:
            found |= part.selected(records)
        return found

    def reason(self, records: Sequence[Record]) -> str | None:
        """The first part's reason that cannot be computed, with its name."""
        for part in self.parts:
            if (why := part.reason(records)) is not None:
                return f"{part.name}: {why}"
        return None

    def statistics(self, records: Sequence[Record]) -> FloatArray:
        """The parts' statistics side by side."""
        blocks = [part.statistics(records) for part in self.parts]
        self._widths = tuple(block.shape[1] for block in blocks)
        return np.concatenate(blocks, axis=1)

    def blocks(self, sums: FloatArray) -> list[FloatArray]:
        """Each part's columns [..., k] of `sums`; `statistics` must have been called before."""
        assert self._widths is not None
        return np.split(sums, np.cumsum(self._widths)[:-1], axis=-1)

    def combine(self, values: FloatArray) -> FloatArray:
        """The value [...] from the parts' values [..., parts]."""
        return self._combine(values)

    def value(self, sums: FloatArray) -> FloatArray:
        """`combine` of the parts' values."""
        values = [part.value(block) for part, block in zip(self.parts, self.blocks(sums), strict=True)]
        return self.combine(np.stack(values, axis=-1))


def macro_mean(name: str, parts: Sequence[Metric], *, unit: str = "percent") -> Composite:
    """Unweighted mean of the parts' values."""
    return Composite(name, parts, lambda values: values.mean(axis=-1), unit=unit)
