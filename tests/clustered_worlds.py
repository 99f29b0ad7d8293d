"""Invented benchmarks with dependent samples and known truth, one for each kind of figure.

A world is a large population of clusters whose records were scored once by the real metrics; an experiment
draws clusters from it, so that the population's figure is the truth its intervals must cover.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evalkit.answers import REPLY
from evalkit.contracts import Record
from evalkit.metrics.base import Accuracy, Composite, Metric, RootMeanSquare
from evalkit.metrics.boxes import CumulativeIoU
from evalkit.metrics.captions import Bleu, Cider
from evalkit.statistics import Clusters, ClusterSums
from evalkit.statistics.swaps import PairedSums
from evalkit_tasks.driving.drivelm_metrics import metrics as drivelm_metrics
from evalkit_tasks.driving.drivelm_scorer import ACCURACY, GPT, LANGUAGE, MATCH
from evalkit_tasks.general.ocrbench import OCRBench

#: Clusters of a population: as many as the published figures are of, and enough for the tests.
CLUSTERS, FEWER = 3000, 1000
_WORDS = ("car", "van", "truck", "sign", "light", "is", "are", "left", "right", "moving", "parked", "the")

Answer = Callable[[np.random.Generator, float, float], Record]


def _record(
    scores: dict[str, float], prediction: object = None, target: object = None, **data: object
) -> Record:
    return Record("", "", "", prediction, target, scores, data=data)


def _accuracy(rng: np.random.Generator, ability: float, _: float) -> Record:
    return _record({"accuracy": float(rng.random() < 1 / (1 + np.exp(-0.5 - ability)))})


def _right(rng: np.random.Generator, ability: float, _: float) -> Record:
    return _record({"right": float(rng.random() < 1 / (1 + np.exp(-0.5 - ability)))})


def _boxes(rng: np.random.Generator, ability: float, size: float) -> Record:
    union = size * rng.gamma(4.0, 0.25)
    share = rng.beta(3.0, 2.0) / (1 + np.exp(-1 - ability))
    return _record({"union": union, "intersection": share * union})


def _error(rng: np.random.Generator, ability: float, _: float) -> Record:
    return _record({"error": float(np.exp(-0.3 * ability) * rng.normal())})


def _caption(rng: np.random.Generator, ability: float, _: float) -> Record:
    target = rng.choice(_WORDS, size=8)
    kept = rng.random(8) < 1 / (1 + np.exp(-1 - 0.7 * ability))
    words = np.where(kept, target, rng.choice(_WORDS, size=8))
    return _record({}, " ".join(words), " ".join(target), tags=[LANGUAGE], **{REPLY: "60"})


def _question(rng: np.random.Generator, ability: float, _: float) -> Record:
    tag = int(rng.choice([ACCURACY, ACCURACY, GPT, GPT, LANGUAGE, MATCH]))
    if tag == LANGUAGE:
        return _caption(rng, ability, 0.0)
    rating = float(np.clip(60 + 15 * ability + 12 * rng.normal(), 0, 100))
    scores = {
        ACCURACY: {"accuracy": float(rng.random() < 1 / (1 + np.exp(-0.5 - ability)))},
        GPT: {"chatgpt": rating},
        MATCH: {"match_f1": float(rng.beta(2.0, 3.0)), "match_chatgpt": rating},
    }[tag]
    return _record(scores, "yes", "yes", tags=[tag], **{REPLY: "60"})


KINDS: dict[str, tuple[Callable[[], Metric], Answer, float]] = {
    "mean": (lambda: Accuracy("accuracy"), _accuracy, 8.0),
    "ratio": (lambda: CumulativeIoU("cumulative_iou"), _boxes, 6.0),
    "rmse": (lambda: RootMeanSquare("rmse", "error", unit="m/s"), _error, 8.0),
    "cider": (lambda: Cider("cider"), _caption, 3.0),
    "composite": (lambda: drivelm_metrics()[0], _question, 9.0),
}


#: Values that only the coverage of single values is measured for.
MORE_KINDS: dict[str, tuple[Callable[[], Metric], Answer, float]] = {
    "bleu": (lambda: Bleu("bleu_4", 4), _caption, 3.0),
    "language": (lambda: next(m for m in drivelm_metrics() if m.name == "language"), _caption, 3.0),
    "ocrbench": (lambda: OCRBench().metrics()[0], _right, 1.5),
}

#: Kinds, and clusters of an experiment, of which coverage is measured.
CLUSTERED = (
    ("bleu", 40),
    ("bleu", 150),
    ("cider", 40),
    ("cider", 150),
    ("ratio", 40),
    ("ratio", 150),
    ("ocrbench", 150),
    ("language", 66),
    ("composite", 66),
)


@dataclass(frozen=True)
class World:
    """A population of clusters.

    Attributes:
        base, new: sums by cluster of two runs that differ by chance alone, [clusters, k].
        rows: the base run's statistics by sample, [n, k]; members: their clusters.
        selected: samples of each metric by cluster, [clusters], of a composite also of its parts, by name.
    """

    metric: Metric
    base: np.ndarray
    new: np.ndarray
    sizes: np.ndarray
    rows: np.ndarray
    members: Clusters
    selected: dict[str, np.ndarray]

    @property
    def truth(self) -> float:
        """The base run's figure over the population."""
        return float(self.metric.value(self.base.sum(axis=0)))

    def draw(self, rng: np.random.Generator, clusters: int) -> ClusterSums:
        """An experiment of so many clusters."""
        chosen = rng.integers(0, len(self.base), clusters)
        return self._sums(self.metric, self.base[chosen], chosen)

    def _sums(self, metric: Metric, rows: np.ndarray, chosen: np.ndarray) -> ClusterSums:
        """As `ClusterSums.of` makes them: only clusters with a selected sample count."""
        sizes = self.selected[metric.name][chosen]
        parts: tuple[ClusterSums, ...] = ()
        if isinstance(metric, Composite):
            blocks = zip(metric.parts, metric.blocks(rows), strict=True)
            parts = tuple(self._sums(part, block, chosen) for part, block in blocks)
        return ClusterSums(metric, rows[sizes > 0], sizes[sizes > 0], parts)

    def draw_unclustered(self, rng: np.random.Generator, clusters: int) -> ClusterSums:
        """The same, with every sample taken for a cluster of its own."""
        chosen = rng.integers(0, len(self.base), clusters)
        rows = np.concatenate([self.rows[self.members.codes == cluster] for cluster in chosen])
        return ClusterSums(self.metric, rows, np.ones(len(rows), dtype=np.intp))

    def draw_pair(self, rng: np.random.Generator, clusters: int) -> PairedSums:
        """Two runs of the same clusters that do not differ: in each, a coin says which is which."""
        chosen = rng.integers(0, len(self.base), clusters)
        swap = rng.random(clusters) < 0.5
        base, new = self.base[chosen], self.new[chosen]
        return PairedSums(self.metric, np.where(swap[:, None], new, base), np.where(swap[:, None], base, new))


def _selected(metric: Metric, records: list[Record], members: Clusters) -> dict[str, np.ndarray]:
    own = np.bincount(members.codes, metric.selected(records), members.count).astype(np.intp)
    found = {metric.name: own}
    for part in metric.parts if isinstance(metric, Composite) else ():
        found |= _selected(part, records, members)
    return found


@functools.cache
def world(kind: str, count: int = CLUSTERS) -> World:
    """The world of a kind; its `count` clusters differ in size and ability."""
    make, answer, size = (KINDS | MORE_KINDS)[kind]
    rng = np.random.default_rng(7)
    sizes = 1 + rng.poisson(size * rng.gamma(4.0, 0.25, count))
    abilities, areas = rng.normal(size=count), rng.gamma(3.0, 1.0, count)
    owners = np.repeat(np.arange(count), sizes)
    metric = make()
    sides = []
    for _ in range(2):
        records = [answer(rng, abilities[cluster], areas[cluster]) for cluster in owners]
        sides.append((records, metric.statistics(records)))
    members = Clusters(owners, count)
    rows = sides[0][1]
    selected = _selected(metric, sides[0][0], members)
    new = members.sums(sides[1][1])
    return World(metric, members.sums(rows), new, members.sizes(), rows, members, selected)
