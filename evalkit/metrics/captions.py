"""Caption metrics of records: BLEU-1 to BLEU-4, ROUGE-L and CIDEr with pycocoevalcap's digits.

The functions that compute them (caption_scores.py) take tokenised texts and know no records. Here they become
metrics of pairs of a hypothesis and its references, taken from records.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evalkit.contracts import Record
from evalkit.metrics.base import BoolArray, FloatArray, Metric, MetricOptions, Select, once, ratio
from evalkit.metrics.caption_scores import bleu_statistics, bleu_value, cider_scores, rouge_l_scores
from evalkit.metrics.ptb import tokenize

if TYPE_CHECKING:
    from typing import Unpack  # Python 3.11

__all__ = [
    "Bleu",
    "CaptionPair",
    "Cider",
    "RougeL",
    "bleu_statistics",
    "bleu_value",
    "cider_scores",
    "joined_pairs",
    "prediction_pairs",
    "rouge_l_scores",
    "tokenize",
]


class CaptionPair(NamedTuple):
    """A caption with its references.

    `row` is the place, among the records given, of the record in whose row its statistics go.
    """

    row: int
    hypothesis: str
    references: tuple[str, ...]


Pairs = Callable[[Sequence[Record]], list[CaptionPair]]


def prediction_pairs(records: Sequence[Record]) -> list[CaptionPair]:
    """Each answered record's prediction with its target, a text or a list of texts."""
    return [
        CaptionPair(row, record.prediction, _texts(record.target))
        for row, record in enumerate(records)
        if not record.failed
    ]


def joined_pairs(parts: Sequence[Select], key: Callable[[Record], str]) -> Pairs:
    """Pairs of several records each: their texts in the order of `parts`, joined by one space.

    BDD-X's "full" caption is description and justification of one clip. The statistics go to the first
    part's record; where a part of a key is missing or has no answer, the key has no pair.

    Args:
        parts: which records are the first part, the second ...; their targets are single texts.
        key: what the parts of one pair have in common.
    """

    def pairs(records: Sequence[Record]) -> list[CaptionPair]:
        found: list[dict[str, int]] = [{} for _ in parts]
        for row, record in enumerate(records):
            for rows, part in zip(found, parts, strict=True):
                if not record.failed and part(record):
                    rows[key(record)] = row
        joined = []
        for name, row in found[0].items():
            if all(name in rows for rows in found):
                whole = [records[rows[name]] for rows in found]
                hypothesis = " ".join(record.prediction for record in whole)
                joined.append(CaptionPair(row, hypothesis, (" ".join(record.target for record in whole),)))
        return joined

    return pairs


def _texts(target: object) -> tuple[str, ...]:
    if isinstance(target, str):
        return (target,)
    if isinstance(target, (list, tuple)):
        return tuple(target)
    raise TypeError(f"a caption's target is a text or a list of texts, not {type(target).__name__}")


@functools.lru_cache(maxsize=8)
def _tokenized(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Tokenise once for the half dozen metrics that ask for the same captions."""
    return tuple(tokenize(texts))


class CaptionOptions(MetricOptions, total=False):
    """Keyword arguments of a caption metric.

    `scale` is the value of a perfect corpus; `pairs` finds the captions of the records.
    """

    scale: float
    pairs: Pairs


class _CaptionMetric(Metric):
    """A metric of pairs; subclasses compute one row of statistics for each."""

    _width: int

    def __init__(
        self,
        name: str,
        *,
        scale: float = 100.0,
        pairs: Pairs = prediction_pairs,
        **options: Unpack[MetricOptions],
    ) -> None:
        super().__init__(name, **options)
        self.scale = scale
        self._pairs = pairs

    @property
    def bounds(self) -> tuple[float, float]:
        """From 0 to what a perfect corpus has."""
        return 0.0, self.scale

    def _chosen(self, records: Sequence[Record]) -> list[CaptionPair]:
        wanted = super().selected(records)
        return [pair for pair in self._pairs(records) if wanted[pair.row]]

    def selected(self, records: Sequence[Record]) -> BoolArray:
        """Records that have a pair and pass `select`."""
        if self._pairs is prediction_pairs:  # every answered record is its own pair
            return super().selected(records)
        chosen = np.zeros(len(records), dtype=np.bool_)
        chosen[[pair.row for pair in self._chosen(records)]] = True
        return chosen

    def statistics(self, records: Sequence[Record]) -> FloatArray:
        """The pair's statistics and, last, 1."""
        key = (type(self)._chosen, type(self)._texts, self._pairs, self._select)
        rows, hypotheses, references = once(records, key, lambda: self._prepared(records))
        statistics = np.zeros((len(records), self._width + 1))
        if rows:
            statistics[rows, :-1] = self._compute(hypotheses, references)
            statistics[rows, -1] = 1.0
        return statistics

    def _prepared(
        self, records: Sequence[Record]
    ) -> tuple[list[int], tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Rows of the pairs, and both sides' texts as `_compute` takes them."""
        pairs = self._chosen(records)
        hypotheses = self._texts(tuple([pair.hypothesis for pair in pairs]))
        tokens = iter(self._texts(tuple(chain.from_iterable([pair.references for pair in pairs]))))
        references = tuple([tuple(islice(tokens, len(pair.references))) for pair in pairs])
        return [pair.row for pair in pairs], hypotheses, references

    def _texts(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """The texts as `_compute` takes them: tokenised as pycocoevalcap does it."""
        return _tokenized(texts)

    @abstractmethod
    def _compute(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
        """Statistics [pairs, width] of the prepared texts."""


class Bleu(_CaptionMetric):
    """Corpus BLEU with n-grams up to `order` (1 to 4)."""

    _width = 10

    def __init__(self, name: str, order: int, **options: Unpack[CaptionOptions]) -> None:
        super().__init__(name, **options)
        if not 1 <= order <= 4:
            raise ValueError(f"BLEU goes from 1 to 4, not {order}")
        self.order = order

    def _compute(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
        return bleu_statistics(hypotheses, references)

    def value(self, sums: FloatArray) -> FloatArray:
        """scale * BLEU."""
        values = self.scale * bleu_value(sums[..., :-1])[..., self.order - 1]
        return np.where(sums[..., -1] > 0, values, np.nan)


class _MeanOfScores(_CaptionMetric):
    _width = 1

    def outcomes(self, records: Sequence[Record]) -> FloatArray | None:
        """The score of each selected record, unscaled."""
        statistics = self.statistics(records)
        return np.where(statistics[:, 1] > 0, statistics[:, 0], np.nan)

    def value(self, sums: FloatArray) -> FloatArray:
        """scale * mean score."""
        return self.scale * ratio(sums[..., 0], sums[..., 1])


class RougeL(_MeanOfScores):
    """Mean ROUGE-L."""

    def _compute(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
        return rouge_l_scores(hypotheses, references)[:, None]


class Cider(_MeanOfScores):
    """Mean CIDEr, with document frequencies from the references of all the records given.

    A perfect corpus has 10 times `scale`.
    """

    @property
    def bounds(self) -> tuple[float, float]:
        """0 to 10 times `scale`, whatever the unit."""
        return 0.0, 10.0 * self.scale

    def _compute(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
        return cider_scores(hypotheses, references)[:, None]
