"""What a comparison can see: the change that it detects, and the data that a change or a margin takes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

#: Beyond so many degrees of freedom Student's distribution is the normal one.
_MANY = 200
#: No plan asks for more clusters than this.
_MOST = 1 << 40


@dataclass(frozen=True, slots=True)
class Spread:
    """The error of a difference, and how it grows with a drop.

    A drop changes answers itself: one of x adds `added` x (width - x) to the variance, as right answers
    become wrong ones (the discordance in McNemar's power, Fleiss, Levin and Paik 2003).

    Attributes:
        se: clustered standard error of the difference as measured.
        freedom: degrees of freedom; clusters, samples: of the measurement.
        added: one over the number of independent samples that the metric rests on; 0 where unknown.
        width: the metric's range; infinite without bounds.
        unseen: variance of the changes that may be there unseen, which falls with the square of the data.
    """

    se: float
    freedom: float
    clusters: int
    samples: int
    added: float = 0.0
    width: float = math.inf
    unseen: float = 0.0

    def times(self, factor: float) -> Spread:
        """The same with `factor` times the data."""
        return replace(
            self,
            se=self.se / math.sqrt(factor),
            freedom=max(1.0, factor * (self.freedom + 1) - 1),
            added=self.added / factor,
            unseen=self.unseen / factor**2,
        )

    def detectable(self, alpha: float = 0.05, power: float = 0.8) -> float:
        """The true drop that a two-sided test at `alpha` calls with probability `power`.

        The x with x^2 = k^2 (se^2 + added x (width - x)), k from the noncentral t distribution.
        """
        square = _needed_ratio(alpha, power, self.freedom) ** 2
        if not (self.added and math.isfinite(self.width)):
            return math.sqrt(square) * self.se
        slope = square * self.added
        return (
            slope * self.width + math.sqrt((slope * self.width) ** 2 + 4 * (1 + slope) * square * self.se**2)
        ) / (2 * (1 + slope))

    def shown_margin(self, alpha: float = 0.05, power: float = 0.8) -> float:
        """The margin that the interval's end stays within with probability `power` where nothing is lost."""
        return _needed_ratio(alpha, power, self.freedom) * math.sqrt(self.se**2 + self.unseen)


@dataclass(frozen=True, slots=True)
class SampleSize:
    """Data needed: clusters, and samples at the stored run's samples per cluster."""

    clusters: int
    samples: int


def needed(
    change: float, spread: Spread, alpha: float = 0.05, power: float = 0.8, *, margin: bool = False
) -> SampleSize | None:
    """The least data with which a drop of `change` is detected, or with `margin`, that margin shown.

    Found by bisection over the number of clusters. None where no number would do.

    Raises:
        ValueError: a change to detect that is not positive.
    """
    if change <= 0:
        if margin:
            return None
        raise ValueError("the change to detect must be positive")

    def enough(count: int) -> bool:
        larger = spread.times(count / spread.clusters)
        return (larger.shown_margin if margin else larger.detectable)(alpha, power) <= change

    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST:
            return None
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return SampleSize(low, math.ceil(low * spread.samples / spread.clusters))


@functools.lru_cache(maxsize=4096)
def _needed_ratio(alpha: float, power: float, freedom: float) -> float:
    """True change over standard error at which Student's two-sided test has this power."""
    from scipy.special import nctdtrinc, ndtri, stdtrit

    if freedom > _MANY:
        return float(ndtri(1 - alpha / 2) + ndtri(power))
    return float(nctdtrinc(freedom, 1 - power, stdtrit(freedom, 1 - alpha / 2)))
