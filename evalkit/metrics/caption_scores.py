"""BLEU, ROUGE-L and CIDEr of tokenised texts, as pycocoevalcap 1.2 computes them.

BLEU-1 to BLEU-4: Papineni et al., "BLEU: a method for automatic evaluation of machine translation" (ACL
2002), with the reference length closest to the hypothesis'. pycocoevalcap adds small numbers against division
by zero, so a perfect corpus has .99999...

ROUGE-L: Lin, "ROUGE: a package for automatic evaluation of summaries" (ACL 2004 workshop), section 3. Longest
common subsequence, F with beta 1.2.

CIDEr: Vedantam et al., "CIDEr: consensus-based image description evaluation" (CVPR 2015), in the form that
its authors call CIDEr-D: cosine of tf-idf vectors of n-grams, n = 1 to 4, clipped, with a Gaussian penalty on
the difference in length. As in that program, tf is a raw count, a text's length is its number of bigrams, and
document frequencies come from the references of the corpus that is scored. So one sample alone has 0, and
values over subsets are not comparable.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evalkit.metrics.ngrams import (
    ORDERS,
    Corpus,
    Counts,
    Hypotheses,
    IntArray,
    Matches,
    References,
    count,
    freeze,
)

FloatArray = npt.NDArray[np.float64]

_SMALL = 1e-9
_TINY = 1e-15
_BETA = 1.2
_SIGMA = 6.0


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


def rouge_l_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """ROUGE-L of each sample, [n]; the corpus has their mean.

    With several references the best precision and the best recall count, each for itself. Texts are split at
    single spaces, so an empty text is one empty word: it matches another empty text.

    Args:
        hypotheses: [n] tokenised texts.
        references: one or more tokenised texts for each.

    Raises:
        ValueError: not one list of references a hypothesis, or a list without any.
    """
    from rapidfuzz.distance import LCSseq

    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    precision, recall = [], []
    for hypothesis, texts in zip(*freeze(hypotheses, references), strict=True):
        words = [numbers[word] for word in hypothesis.split(" ")]
        best_precision = best_recall = 0.0
        for text in texts:
            reference = [numbers[word] for word in text.split(" ")]
            common = LCSseq.similarity(words, reference)
            best_precision = max(best_precision, common / len(words))
            best_recall = max(best_recall, common / len(reference))
        precision.append(best_precision)
        recall.append(best_recall)
    p, r = np.array(precision, dtype=np.float64), np.array(recall, dtype=np.float64)
    scores = np.zeros(len(p))
    np.divide((1 + _BETA**2) * p * r, r + _BETA**2 * p, out=scores, where=(p != 0) & (r != 0))
    return scores


def cider_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """CIDEr of each sample, [n], at its usual scale where a perfect corpus has 10; the corpus has their mean.

    Where no reference holds any word, pycocoevalcap fails; here all scores are 0.

    Args:
        hypotheses: [n] tokenised texts, words separated by white space.
        references: one or more tokenised texts for each.

    Raises:
        ValueError: not one list of references a hypothesis, or a list without any.
    """
    corpus = count(*freeze(hypotheses, references))
    size = len(corpus.hypothesis_lengths)
    if not size:
        return np.zeros(0)
    bigrams = np.maximum(0, corpus.hypothesis_lengths - 1)[corpus.sample]
    penalty = _penalties(bigrams - np.maximum(0, corpus.reference_lengths - 1))
    scores = np.zeros((size, ORDERS))
    for order, matches in enumerate(corpus.orders):
        cosine = _cosines(matches, corpus, np.log(float(size)))
        scores[:, order] = np.bincount(corpus.sample, cosine * penalty, minlength=size)
    per_sample: FloatArray = scores.mean(axis=1) / np.bincount(corpus.sample, minlength=size) * 10.0
    return per_sample


def _penalties(difference: IntArray) -> FloatArray:
    distinct, place = np.unique(difference, return_inverse=True)
    # Python's power, not numpy's, whose last digit may differ.
    values = [float(np.e ** (-(float(delta) ** 2) / (2 * _SIGMA**2))) for delta in distinct]
    return np.array(values, dtype=np.float64)[place]


def _cosines(matches: Matches, corpus: Corpus, log_size: np.float64) -> FloatArray:
    """Similarity of each reference to its hypothesis, without the penalty, [references]."""
    hypothesis, reference = matches.hypothesis, matches.reference
    frequency = _document_frequency(reference, corpus.sample, matches.grams)
    weights, squares = _weights(hypothesis, frequency, log_size)
    reference_weights, reference_squares = _weights(reference, frequency, log_size)
    norm = np.sqrt(np.bincount(hypothesis.sentence, squares, minlength=len(corpus.hypothesis_lengths)))
    reference_norm = np.sqrt(
        np.bincount(reference.sentence, reference_squares, minlength=len(corpus.reference_lengths))
    )
    matched = reference_weights[matches.in_reference]
    products = np.minimum(weights[matches.in_hypothesis], matched) * matched
    sums = np.bincount(
        reference.sentence[matches.in_reference], products, minlength=len(corpus.reference_lengths)
    )
    norms = norm[corpus.sample] * reference_norm
    cosines: FloatArray = sums.astype(np.float64)
    np.divide(cosines, norms, out=cosines, where=(norm[corpus.sample] != 0) & (reference_norm != 0))
    return cosines


def _document_frequency(reference: Counts, sample: IntArray, grams: int) -> IntArray:
    """In how many samples' references each n-gram stands, [grams]."""
    documents = np.sort(sample[reference.sentence] * grams + reference.gram)
    distinct = documents[np.append(True, documents[1:] != documents[:-1])[: len(documents)]]
    return np.bincount(distinct % max(1, grams), minlength=grams)


def _weights(counts: Counts, frequency: IntArray, log_size: np.float64) -> tuple[FloatArray, FloatArray]:
    """tf-idf weight and its square for each entry.

    Computed once for each pair of count and frequency, by the scalar operations of the reference, whose last
    digits numpy's vector forms do not promise.
    """
    base = int(frequency.max(initial=0)) + 1
    distinct, place = np.unique(counts.count * base + frequency[counts.gram], return_inverse=True)
    weights = [
        float(pair // base) * (log_size - np.log(max(1.0, float(pair % base)))) for pair in distinct.tolist()
    ]
    squares = [pow(weight, 2) for weight in weights]
    return np.array(weights, dtype=np.float64)[place], np.array(squares, dtype=np.float64)[place]
