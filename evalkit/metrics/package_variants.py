"""BLEU as nltk computes it and ROUGE-L as rouge-score computes it, from the packages' own functions.

Many papers print values made with these packages. They differ from pycocoevalcap's, which the paper's tables
use. The settings are the usual ones:

- nltk: `corpus_bleu` with equal weights and no smoothing, over lower-case words of
  `word_tokenize(text, preserve_line=True)`, which needs no downloaded data.
- rouge-score: the F-measure of `RougeScorer(["rougeL"])` without stemming, averaged over the samples. Of
  several references the best one counts.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from evalkit.metrics.base import FloatArray
from evalkit.metrics.captions import Bleu, RougeL
from evalkit.metrics.ngrams import ORDERS

#: Captions remembered: a run's metrics, its groups and a comparison ask for the same ones.
_REMEMBERED = 1 << 15


class NltkBleu(Bleu):
    """Corpus BLEU with n-grams up to `order`, by nltk."""

    variant = True

    def _texts(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return texts

    def _compute(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
        return nltk_bleu_statistics(hypotheses, references)

    def value(self, sums: FloatArray) -> FloatArray:
        """scale * BLEU."""
        bleu = self.scale * nltk_bleu_value(sums[..., :-1])[..., self.order - 1]
        return np.where(sums[..., -1] > 0, bleu, np.nan)


class RougeScoreL(RougeL):
    """Mean ROUGE-L F-measure, by rouge-score."""

    variant = True

    def _texts(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return texts

    def _compute(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
        pairs = zip(hypotheses, references, strict=True)
        return np.array([[_rouge_l(hypothesis, tuple(texts))] for hypothesis, texts in pairs])


def nltk_bleu_statistics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """Per-sample counts, [n, 10], whose sums are what nltk's `corpus_bleu` adds up.

    Args:
        hypotheses: [n] texts as written. references: one or more texts for each.

    Returns:
        For n = 1 to 4 the matching n-grams, for n = 1 to 4 the n-grams of the hypothesis (at least 1), the
        words of the hypothesis, the words of the reference closest in length.
    """
    pairs = zip(hypotheses, references, strict=True)
    return np.array([_bleu_counts(hypothesis, tuple(texts)) for hypothesis, texts in pairs], dtype=np.float64)


def nltk_bleu_value(sums: FloatArray) -> FloatArray:
    """`corpus_bleu` for n-grams up to 1, 2, 3 and 4, [..., 4], from sums [..., 10].

    A corpus without a matching word has 0. An order without a match counts as the smallest float.
    """
    matches, ngrams = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    words, reference_words = sums[..., 2 * ORDERS], sums[..., 2 * ORDERS + 1]
    precision = np.where(matches > 0, matches, 1.0) / np.maximum(ngrams, 1.0)
    precision = np.where(matches > 0, precision, sys.float_info.min)
    mean_log = np.cumsum(np.log(precision), axis=-1) / np.arange(1, ORDERS + 1)
    penalty = np.exp(np.minimum(0.0, 1.0 - reference_words / np.maximum(words, 1.0)))
    bleu: FloatArray = np.where(matches[..., :1] > 0, np.exp(mean_log) * penalty[..., None], 0.0)
    return bleu


@functools.lru_cache(_REMEMBERED)
def _bleu_counts(hypothesis: str, references: tuple[str, ...]) -> tuple[int, ...]:
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    words, wanted = nltk_words(hypothesis), [nltk_words(text) for text in references]
    precisions = [modified_precision(wanted, words, order) for order in range(1, ORDERS + 1)]
    matches, ngrams = [p.numerator for p in precisions], [p.denominator for p in precisions]
    return (*matches, *ngrams, len(words), closest_ref_length(wanted, len(words)))


def nltk_words(text: str) -> list[str]:
    """Lower-case words of a caption."""
    from nltk.tokenize import word_tokenize

    return list(word_tokenize(text.lower(), preserve_line=True))


@functools.lru_cache(_REMEMBERED)
def _rouge_l(hypothesis: str, references: tuple[str, ...]) -> float:
    return float(_scorer().score_multi(references, hypothesis)["rougeL"].fmeasure)


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])
