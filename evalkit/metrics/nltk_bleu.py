"""BLEU as nltk's `corpus_bleu` computes it, to compare with figures published with that package.

It differs from pycocoevalcap's in the zeros: an order without any match counts as the smallest float instead
of a small share, a corpus without any matching word has 0, and a short sentence still has one n-gram guessed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evalkit.metrics.bleu import bleu_statistics
from evalkit.metrics.ngrams import ORDERS

FloatArray = npt.NDArray[np.float64]


def nltk_bleu_statistics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """Per-sample counts, [n, 10], as `bleu_statistics`, with at least one n-gram guessed in each sentence.

    Args:
        hypotheses: [n] texts, words separated by white space; nothing else is done to them.
        references: one or more texts for each.

    Raises:
        ValueError: not one list of references a hypothesis, or a list without any.
    """
    statistics = bleu_statistics(hypotheses, references)
    guesses = statistics[:, ORDERS : 2 * ORDERS]
    np.maximum(guesses, 1.0, out=guesses)
    return statistics


def nltk_bleu_value(sums: FloatArray) -> FloatArray:
    """BLEU-1 to BLEU-4, [..., 4], without smoothing and with equal weights, from sums [..., 10]."""
    correct, guesses = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    length, reference_length = sums[..., 2 * ORDERS], sums[..., 2 * ORDERS + 1]
    precision = np.maximum(correct, 0.0) / np.maximum(guesses, 1.0)
    precision = np.where(correct > 0, precision, sys.float_info.min)
    mean_log = np.cumsum(np.log(precision), axis=-1) / np.arange(1, ORDERS + 1)
    penalty = np.exp(np.minimum(0.0, 1.0 - reference_length / np.maximum(length, 1.0)))
    figures: FloatArray = np.where(correct[..., :1] > 0, np.exp(mean_log) * penalty[..., None], 0.0)
    return figures
