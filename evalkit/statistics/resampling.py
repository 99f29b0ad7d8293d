"""Clustered resampling: multinomial cluster weights times per-cluster sums.

A bootstrap resample draws G clusters with replacement from G. Drawing is the same as weighting: how often
each cluster came up is one row of a multinomial weight matrix W [resamples, G], and the column sums of all
resamples are the one product W @ S, with S [G, k] the sums of a metric's statistics within each cluster.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.contracts import Record
from evalkit.metrics.base import BoolArray, Composite, FloatArray, Metric, once

IntArray = npt.NDArray[np.intp]
#: How often each cluster came up, mostly a byte.
Counts = npt.NDArray[np.unsignedinteger[Any]]

#: Weights drawn at a time (cells of W, 8 bytes each), which bounds memory whatever the run's size.
CHUNK_CELLS = 1 << 19
#: Weights drawn in one go, which takes 16 bytes a cell for the while.
_DRAWN_CELLS = 1 << 16
#: More clusters than this are resampled in so many random groups.
MOST_GROUPS = 2000
#: Weight matrices of up to this many cells in all are kept for the other metrics of a report.
CACHE_CELLS = 1 << 22
#: Numbers of what was found at resamples, kept for the next comparison of the same run.
_FOUND_CELLS = 1 << 23


def digest(numbers: FloatArray) -> bytes:
    """A hash of the numbers and their shape."""
    found = hashlib.blake2b(repr(numbers.shape).encode(), digest_size=16)
    found.update(np.ascontiguousarray(numbers).data)
    return found.digest()


def effective_clusters(sizes: IntArray) -> float:
    """How many equal clusters these are worth: (sum n)^2 / sum n^2 (Carter and others 2017)."""
    counts = sizes.astype(np.float64)
    return float(counts.sum()) ** 2 / float(counts @ counts)


def in_groups(cluster_sums: FloatArray, seed: int) -> FloatArray:
    """Cluster sums [clusters, k], of more than `MOST_GROUPS` clusters summed in so many random groups.

    Groups of independent clusters are independent too, and their total is the same: only the degrees of
    freedom of its error fall, to `MOST_GROUPS` less one.
    """
    count = len(cluster_sums)
    if count <= MOST_GROUPS:
        return cluster_sums
    codes = np.random.default_rng([seed, count, 2]).permutation(count) % MOST_GROUPS
    return Clusters(codes, MOST_GROUPS).sums(cluster_sums)


class Resampler:
    """Cluster weights of one report, drawn once and shared by all metrics of the same number of clusters.

    Weights depend on the seed and the number of clusters alone, so any two metrics (or the two sides of a
    comparison) with the same clusters see the same resamples.
    """

    def __init__(self, seed: int = 0, resamples: int = 2000) -> None:
        """Raises ValueError for fewer than 100 resamples, of which no interval can be made."""
        if resamples < 100:
            raise ValueError(f"resamples must be at least 100, not {resamples}")
        self.seed = seed
        self.resamples = resamples
        self._kept: OrderedDict[int, tuple[Counts, ...]] = OrderedDict()
        self._fewer: dict[int, Resampler] = {}
        self._found: OrderedDict[Hashable, FloatArray] = OrderedDict()
        self._found_cells = 0

    def at_most(self, resamples: int) -> Resampler:
        """The same with at most so many resamples; kept, so that metrics share its weights too."""
        if resamples >= self.resamples:
            return self
        return self._fewer.setdefault(resamples, Resampler(self.seed, resamples))

    def once(self, key: Hashable, find: Callable[[], FloatArray]) -> FloatArray:
        """What `find` returns; kept by its key until the newest take all the room."""
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        found = self._found[key] = find()
        self._found_cells += found.size
        while self._found_cells > _FOUND_CELLS:
            self._found_cells -= self._found.popitem(last=False)[1].size
        return found

    def _draw(self, clusters: int) -> Iterator[Counts]:
        rng = np.random.default_rng([self.seed, clusters])
        rows = max(1, min(self.resamples, CHUNK_CELLS // clusters))
        for start in range(0, self.resamples, rows):
            count = min(rows, self.resamples - start)
            few = max(1, _DRAWN_CELLS // clusters)
            drawn = [_drawn(rng, min(few, count - row), clusters) for row in range(0, count, few)]
            yield np.concatenate(drawn)

    def weights(self, clusters: int) -> Iterator[FloatArray]:
        """Multinomial weights in chunks [rows, clusters]; every row sums to `clusters`."""
        if clusters in self._kept:
            self._kept.move_to_end(clusters)
        elif clusters * self.resamples <= CACHE_CELLS:
            self._kept[clusters] = tuple(self._draw(clusters))
            while sum(self._kept) * self.resamples > CACHE_CELLS:
                self._kept.popitem(last=False)
        for chunk in self._kept.get(clusters) or self._draw(clusters):
            yield chunk.astype(np.float64)

    def swaps(self, clusters: int) -> Iterator[FloatArray]:
        """Random signs -1 and 1 in chunks [rows, clusters]: which clusters exchange the two runs."""
        rng = np.random.default_rng([self.seed, clusters, 1])
        rows = max(1, min(self.resamples, CHUNK_CELLS // clusters))
        for start in range(0, self.resamples, rows):
            count = min(rows, self.resamples - start)
            yield rng.integers(0, 2, size=(count, clusters), dtype=np.int8).astype(np.float64) * 2 - 1


def _drawn(rng: np.random.Generator, count: int, clusters: int) -> Counts:
    """Rows of weights, as they come whether drawn together or not."""
    drawn = rng.integers(0, clusters, size=(count, clusters), dtype=np.intp)
    drawn += np.arange(count)[:, None] * clusters
    flat = np.bincount(drawn.ravel(), minlength=count * clusters)
    return flat.astype(np.min_scalar_type(flat.max())).reshape(count, clusters)


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which cluster each of n samples belongs to.

    Attributes:
        codes: cluster number of each sample, [n].
        count: number of clusters.
    """

    codes: IntArray
    count: int

    @classmethod
    def of(cls, names: Sequence[str]) -> Clusters:
        """Number the clusters in the order of their names, so that the samples' order plays no part."""
        order = {name: code for code, name in enumerate(sorted(set(names)))}
        codes = np.fromiter((order[name] for name in names), dtype=np.intp, count=len(names))
        return cls(codes, len(order))

    @classmethod
    def of_chosen(cls, records: Sequence[Record], chosen: BoolArray) -> Clusters:
        """Those of the records that are chosen, [n]."""
        return cls.of([record.cluster for record, keep in zip(records, chosen, strict=True) if keep])

    def only(self, kept: BoolArray) -> Clusters:
        """The clusters of the samples kept, [n], numbered anew."""
        known, codes = np.unique(self.codes[kept], return_inverse=True)
        return Clusters(codes.astype(np.intp), len(known))

    def sizes(self) -> IntArray:
        """Samples in each cluster, [count]."""
        return np.bincount(self.codes, minlength=self.count)

    def sums(self, rows: FloatArray) -> FloatArray:
        """Sums of rows [n, k] within each cluster, [count, k]."""
        columns = [np.bincount(self.codes, weights=column, minlength=self.count) for column in rows.T]
        return np.stack(columns, axis=1) if columns else np.zeros((self.count, 0))


@dataclass(frozen=True, slots=True)
class ClusterSums:
    """A metric over one set of records, summed by cluster; only clusters with a selected sample count.

    Attributes:
        rows: statistics, [clusters, k]. sizes: selected samples, [clusters].
        parts: of a composite, each over its own clusters.
    """

    metric: Metric
    rows: FloatArray
    sizes: IntArray
    parts: tuple[ClusterSums, ...] = ()

    @classmethod
    def of(
        cls, metric: Metric, records: Sequence[Record], statistics: FloatArray | None = None
    ) -> ClusterSums:
        """Sums of `metric` over `records`, of which at least one must be selected.

        Args:
            statistics: the metric's over the records, [n, k], where they are at hand.
        """
        if statistics is None:
            statistics = metric.statistics(records)
        selected = metric.selected(records)
        clusters = once(
            records, (Clusters, selected.tobytes()), lambda: Clusters.of_chosen(records, selected)
        )
        parts: tuple[ClusterSums, ...] = ()
        if isinstance(metric, Composite):
            blocks = zip(metric.parts, metric.blocks(statistics), strict=True)
            parts = tuple(cls.of(part, records, block) for part, block in blocks)
        return cls(metric, clusters.sums(statistics[selected]), clusters.sizes(), parts)

    @property
    def thinnest(self) -> int:
        """Clusters under the value, for a composite those under its thinnest part."""
        return min((part.thinnest for part in self.parts), default=self.clusters)

    @property
    def n(self) -> int:
        """Samples that the value rests on."""
        return int(self.sizes.sum())

    @property
    def clusters(self) -> int:
        """Clusters that the value rests on."""
        return len(self.rows)

    def value(self) -> float:
        """The value; NaN where undefined."""
        return float(self.metric.value(self.rows.sum(axis=0)))

    @property
    def effective(self) -> float:
        """How many equal clusters these are worth."""
        return effective_clusters(self.sizes)

    def freedom(self) -> float:
        """Degrees of freedom of the value's error: effective clusters less one; of a composite, its parts'.

        Parts count by their share of the variance (Satterthwaite 1946), taken as independent.
        """
        if not self.parts:
            return max(1.0, self.effective - 1)
        from evalkit.statistics.functional import jackknife_error, part_slopes

        assert isinstance(self.metric, Composite)
        slopes = part_slopes(self.metric, np.array([part.value() for part in self.parts]))
        shares = [
            (slope * jackknife_error(part.metric.value, part.rows)) ** 2
            for part, slope in zip(self.parts, slopes, strict=True)
        ]
        known = [(share, part.freedom()) for share, part in zip(shares, self.parts, strict=True)]
        below = sum(share**2 / freedom for share, freedom in known)
        least = min(freedom for _, freedom in known)
        return max(least, sum(shares) ** 2 / below) if below > 0 else least

    def rarest(self) -> float | None:
        """How many equal clusters the rarer end of a bounded mean's range is worth, (sum x)^2 / sum x^2.

        Of a composite, of the part where they are fewest; None without any.
        """
        if self.parts:
            return min((count for part in self.parts if (count := part.rarest()) is not None), default=None)
        if self.metric.mean_range is None:
            return None
        low, high = self.metric.mean_range
        up = (self.metric.value(self.rows) - low) / (high - low) * self.sizes
        down = self.sizes - up
        x = up if up.sum() <= down.sum() else down
        return float(x.sum()) ** 2 / float(x @ x) if x.any() else 0.0
