"""N-gram counts of hypotheses and references as integer arrays, shared by BLEU and CIDEr.

Words become numbers, n-grams become numbers made of the (n-1)-gram's and the word's; counting and matching
are sorts. Entries stand in the order in which the reference scorers meet them (sentence, then first
occurrence), because CIDEr's sums in floating point depend on it.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

ORDERS = 4
Hypotheses = tuple[str, ...]
References = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Distinct n-grams of sentences: `sentence`, `gram` and how often, each [entries]."""

    sentence: IntArray
    gram: IntArray
    count: IntArray


@dataclass(frozen=True, slots=True)
class Matches:
    """N-grams of one order in hypotheses and references.

    Attributes:
        hypothesis, reference: counts; sentences are numbered from 0 on each side.
        in_hypothesis, in_reference: [matches], entries with the same n-gram in a hypothesis and one of its
            own references, by reference and then in the order of the hypothesis' entries.
        grams: number of distinct n-grams.
    """

    hypothesis: Counts
    reference: Counts
    in_hypothesis: IntArray
    in_reference: IntArray
    grams: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """Hypotheses and references of n samples, counted.

    Attributes:
        hypothesis_lengths: words of each hypothesis, [n].
        reference_lengths: words of each reference, all samples' references in one row.
        sample: which sample a reference belongs to.
        orders: matches for n = 1 to 4.
    """

    hypothesis_lengths: IntArray
    reference_lengths: IntArray
    sample: IntArray
    orders: tuple[Matches, ...]


def freeze(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Hypotheses, References]:
    """The corpus as tuples.

    Raises:
        ValueError: not one list of references a hypothesis, or a list without any.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses but references for {len(references)}")
    if not all(references):
        raise ValueError("each hypothesis needs at least one reference")
    return tuple(hypotheses), tuple(map(tuple, references))


@functools.lru_cache(maxsize=2)
def count(hypotheses: Hypotheses, references: References) -> Corpus:
    """Count and match; the last corpora are remembered, as BLEU and CIDEr want the same."""
    size = len(hypotheses)
    sentences = [text.split() for text in chain(hypotheses, chain.from_iterable(references))]
    lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
    sample = np.repeat(np.arange(size), np.fromiter(map(len, references), np.int64, size))
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    words = np.fromiter(map(numbers.__getitem__, chain.from_iterable(sentences)), np.int64, int(lengths.sum()))
    sentence = np.repeat(np.arange(len(sentences)), lengths)
    room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))
    grams, starts, orders = words, np.arange(len(words)), []
    for order in range(1, ORDERS + 1):
        if order > 1:
            keep = room[starts] >= order
            starts, grams = starts[keep], grams[keep]
            distinct, grams = np.unique(grams * len(numbers) + words[starts + order - 1], return_inverse=True)
            total = len(distinct)
        else:
            total = len(numbers)
        counts = _count(sentence[starts], grams, total)
        orders.append(_match(counts, size, sample, total))
    return Corpus(lengths[:size], lengths[size:], sample, tuple(orders))


def _count(sentence: IntArray, gram: IntArray, grams: int) -> Counts:
    order = np.argsort(sentence * grams + gram, kind="stable")
    ordered_sentence, ordered_gram = sentence[order], gram[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (np.diff(ordered_sentence) != 0) | (np.diff(ordered_gram) != 0)
    first = order[new]
    count = np.diff(np.append(np.flatnonzero(new), len(order)))
    by_occurrence = np.argsort(first)
    kept = first[by_occurrence]
    return Counts(sentence[kept], gram[kept], count[by_occurrence])


def _match(counts: Counts, hypotheses: int, sample: IntArray, grams: int) -> Matches:
    split = int(np.searchsorted(counts.sentence, hypotheses))
    hypothesis = Counts(counts.sentence[:split], counts.gram[:split], counts.count[:split])
    reference = Counts(counts.sentence[split:] - hypotheses, counts.gram[split:], counts.count[split:])
    key = hypothesis.sentence * grams + hypothesis.gram
    order = np.argsort(key)
    wanted = sample[reference.sentence] * grams + reference.gram
    place = np.searchsorted(key[order], wanted)
    place[place == split] = 0
    found = np.flatnonzero(key[order][place] == wanted) if split else np.zeros(0, dtype=np.int64)
    entry = order[place[found]]
    by_reference = np.lexsort((entry, reference.sentence[found]))
    return Matches(hypothesis, reference, entry[by_reference], found[by_reference], grams)
