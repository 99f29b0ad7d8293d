"""CIDEr, as pycocoevalcap 1.2 computes it (the form its authors call CIDEr-D).

Vedantam et al., "CIDEr: consensus-based image description evaluation" (CVPR 2015): cosine of tf-idf
vectors of n-grams, n = 1 to 4, clipped, with a Gaussian penalty on the difference in length. As in that
program, tf is a raw count, a text's length is its number of bigrams, and document frequencies come from the
references of the corpus that is scored: a figure over one sample is 0, and figures over subsets are not
comparable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evalkit.metrics.ngrams import ORDERS, Corpus, Counts, IntArray, Matches, count, freeze

FloatArray = npt.NDArray[np.float64]

_SIGMA = 6.0


def cider_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """CIDEr of each sample, [n], at its usual scale where a perfect corpus has 10; the figure is their mean.

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
