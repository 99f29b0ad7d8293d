"""BLEU-1 to BLEU-4 over a corpus, as pycocoevalcap 1.2 computes it.

Papineni et al., "BLEU: a method for automatic evaluation of machine translation" (ACL 2002), with the
reference length closest to the hypothesis' and pycocoevalcap's small numbers against division by zero, by
which a perfect corpus has .99999...
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evalkit.metrics.ngrams import ORDERS, Corpus, Hypotheses, References, count, freeze

FloatArray = npt.NDArray[np.float64]

_SMALL = 1e-9
_TINY = 1e-15


def bleu_statistics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """Per-sample counts whose sums give corpus BLEU.

    Args:
        hypotheses: [n] tokenised texts, words separated by white space.
        references: one or more tokenised texts for each.

    Returns:
        [n, 10]: matches clipped to the references for n = 1 to 4, n-grams of the hypothesis for n = 1 to 4,
        words of the hypothesis, words of the reference closest in length (the shorter of two as close).

    Raises:
        ValueError: not one list of references a hypothesis, or a list without any.
    """
    return _statistics(*freeze(hypotheses, references)).copy()


@functools.lru_cache(maxsize=2)
def _statistics(hypotheses: Hypotheses, references: References) -> FloatArray:
    corpus = count(hypotheses, references)
    length = corpus.hypothesis_lengths
    columns = [_clipped(corpus, order) for order in range(ORDERS)]
    columns += [np.maximum(0, length - order) for order in range(ORDERS)]
    columns += [length, _closest_lengths(corpus)]
    return np.stack(columns, axis=1).astype(np.float64)


def _clipped(corpus: Corpus, order: int) -> npt.NDArray[np.generic]:
    matches = corpus.orders[order]
    hypothesis, reference = matches.hypothesis, matches.reference
    best = np.zeros(len(hypothesis.count), dtype=np.int64)
    np.maximum.at(best, matches.in_hypothesis, reference.count[matches.in_reference])
    clipped = np.minimum(best, hypothesis.count)
    return np.bincount(hypothesis.sentence, clipped, minlength=len(corpus.hypothesis_lengths))


def _closest_lengths(corpus: Corpus) -> npt.NDArray[np.int64]:
    far = np.abs(corpus.reference_lengths - corpus.hypothesis_lengths[corpus.sample])
    best_first = np.lexsort((corpus.reference_lengths, far, corpus.sample))
    firsts = np.searchsorted(corpus.sample, np.arange(len(corpus.hypothesis_lengths)))
    return corpus.reference_lengths[best_first][firsts]


def bleu_value(sums: FloatArray) -> FloatArray:
    """BLEU-1 to BLEU-4, [..., 4], from sums [..., 10] of `bleu_statistics`.

    Sums of nothing give a value all but 0, as in pycocoevalcap.
    """
    correct, guesses = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    length, reference_length = sums[..., 2 * ORDERS], sums[..., 2 * ORDERS + 1]
    product = np.cumprod((correct + _TINY) / (guesses + _SMALL), axis=-1)
    bleu = product ** (1.0 / np.arange(1, ORDERS + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    penalty: FloatArray = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
    brief: FloatArray = bleu * penalty[..., None]
    return brief
