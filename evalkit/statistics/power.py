"""What a comparison can see: the change that it detects, and the data that a change or a margin takes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from evalkit.statistics.swaps import MANY_MOVED

#: Beyond so many degrees of freedom Student's distribution is the normal one.
_MANY = 200
#: With more changed answers than this McNemar's test is the normal one.
MANY_CHANGES = 200
_ROUNDING = 1e-12
#: A normal quantile beyond which every chance is 0 or 1.
_FAR = 37.0
#: A drop is found to this share of itself.
_PRECISION = 1e-6
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

    def power(self, change: float, alpha: float = 0.05) -> float:
        """The chance that a two-sided test at `alpha` calls a true drop of `change`.

        That of Student's test, whose error grows with the drop. Where few answers change, moved by what
        McNemar's test, which counts them one by one, differs from Student's over single samples.
        """
        from scipy.special import ndtr, ndtri

        if not (self.added and math.isfinite(self.width)):
            return float(ndtr(_lead(change / self.se, alpha, self.freedom))) if self.se else float(change > 0)
        share = min(1.0, change / self.width)
        changed = min(1.0, self.se**2 / (self.added * self.width**2) + share)
        variance, scatter = self.added * (changed - share**2), _scatter(share, changed)
        ratio = share / math.sqrt(variance) if variance > 0 else math.inf
        lead = _lead(ratio, alpha, self.freedom, scatter)
        if 0 < changed < MANY_CHANGES * self.added:
            counted = discrete_power(1 / self.added, changed, share / changed, alpha, self._midp_from())
            alone = _lead(ratio, alpha, 1 / self.added - 1, scatter)
            lead += min(_FAR, max(-_FAR, float(ndtri(counted)))) - alone
        return float(ndtr(lead))

    def _midp_from(self) -> int:
        """With how many changed answers `MANY_MOVED` clusters change, as the swap test counts."""
        clusters = self.freedom + 1
        if clusters <= MANY_MOVED:
            return MANY_MOVED  # it then swaps single samples
        return math.ceil(math.log1p(-MANY_MOVED / clusters) / math.log1p(-1 / clusters))

    def detectable(self, alpha: float = 0.05, power: float = 0.8) -> float:
        """The true drop that a two-sided test at `alpha` calls with probability `power`.

        Infinite where even a drop of the whole range is called more seldom.
        """
        if not (self.added and math.isfinite(self.width)):
            return _needed_ratio(alpha, power, self.freedom) * self.se
        if self.power(self.width, alpha) < power:
            return math.inf
        low, high = 0.0, self.width
        while high - low > _PRECISION * high:
            middle = (low + high) / 2
            low, high = (low, middle) if self.power(middle, alpha) >= power else (middle, high)
        return high

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
        if margin:
            return larger.shown_margin(alpha, power) <= change
        return larger.power(change, alpha) >= power

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


def _scatter(share: float, changed: float) -> float:
    """Standard deviation of the studentised difference where the truth differs by `share` (delta method).

    It is below 1: where more answers are lost, both the difference and its error are larger. At sizes where a
    drop is most of what changes, power is 84 to 87% where a scatter of 1 promises 80% (Miettinen 1968).

    Args:
        changed: share of answers that change.
    """
    lost, won = (changed + share) / 2, (changed - share) / 2
    variance = changed - share**2
    if variance <= 0:
        return 1.0
    by_lost = 1 - share * (1 - 2 * share) / (2 * variance)
    by_won = -1 - share * (1 + 2 * share) / (2 * variance)
    found = lost * by_lost**2 + won * by_won**2 - (lost * by_lost + won * by_won) ** 2
    return math.sqrt(max(0.0, found) / variance)


def _lead(ratio: float, alpha: float, freedom: float, scatter: float = 1.0) -> float:
    """The normal quantile of the power of Student's two-sided test.

    Args:
        ratio: true change over standard error. scatter: of the statistic, in place of 1.
    """
    from scipy.special import nctdtr, ndtri, stdtrit

    if freedom > _MANY or math.isinf(ratio):
        middle = ratio - float(ndtri(1 - alpha / 2))
    else:
        missed = float(nctdtr(freedom, ratio, stdtrit(freedom, 1 - alpha / 2)))
        middle = -float(ndtri(missed)) if math.isfinite(missed) else math.inf  # NaN far in the tail
    return min(_FAR, max(-_FAR, middle / max(scatter, _ROUNDING)))


def discrete_power(n: float, changed: float, lean: float, alpha: float, midp_from: int) -> float:
    """Power of McNemar's test as the swap test makes it: exact with few changes, mid-p with many.

    The number of changed answers is binomial; of them a share (1 + lean) / 2 is lost.

    Args:
        n: independent samples, need not be whole. changed: share of answers that change.
        midp_from: with so many changed answers the test is a mid-p test, with fewer exact.
    """
    from scipy.special import bdtrc, gammaln

    least = _least_lost(alpha, min(midp_from, 2 * MANY_CHANGES))
    counts = np.arange(min(len(least), math.floor(n) + 1))
    logs = counts * math.log(changed) + (n - counts) * math.log1p(-min(changed, 1 - _ROUNDING))
    logs += gammaln(n + 1) - gammaln(counts + 1) - gammaln(n - counts + 1)
    weights = np.exp(logs - logs.max())
    needs = least[: len(counts)]
    lost = min(1.0, (1 + lean) / 2)
    called = np.where(needs > counts, 0.0, bdtrc(np.minimum(needs, counts) - 1.0, counts, lost))
    return min(1.0, float(weights @ called / weights.sum()))


@functools.lru_cache(maxsize=256)
def _least_lost(alpha: float, midp_from: int) -> npt.NDArray[np.intp]:
    """Of 0, 1, 2 … changed answers, how many lost ones McNemar's test calls a drop; more if none."""
    from scipy.special import bdtrc

    most = 2 * MANY_CHANGES
    counts, lost = np.arange(most)[:, None], np.arange(most + 1)[None, :]
    possible = (lost <= counts) & (2 * lost > counts)
    with np.errstate(invalid="ignore"):
        beyond = np.where(possible, bdtrc(lost - 1.0, counts, 0.5), 0.0)
    p = 2 * beyond
    p[midp_from:, :-1] -= (beyond[:, :-1] - beyond[:, 1:])[midp_from:]
    called = possible & (p <= alpha)
    return np.where(called.any(axis=1), called.argmax(axis=1), most + 1)


@functools.lru_cache(maxsize=4096)
def _needed_ratio(alpha: float, power: float, freedom: float) -> float:
    """True change over standard error at which Student's two-sided test has this power."""
    from scipy.special import nctdtrinc, ndtri, stdtrit

    if freedom > _MANY:
        return float(ndtri(1 - alpha / 2) + ndtri(power))
    return float(nctdtrinc(freedom, 1 - power, stdtrit(freedom, 1 - alpha / 2)))
