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
_BITS = 63
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
    words = np.fromiter(
        map(numbers.__getitem__, chain.from_iterable(sentences)), np.int64, int(lengths.sum())
    )
    sentence = np.repeat(np.arange(len(sentences)), lengths)
    room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))
    starts, codes, bound, orders = np.arange(len(words)), words, len(numbers), []
    for order in range(1, ORDERS + 1):
        grams, total, counts = _count(sentence[starts], codes, bound)
        orders.append(_match(counts, size, sample, total))
        keep = room[starts] > order
        starts = starts[keep]
        codes, bound = grams[keep] * len(numbers) + words[starts + order], total * len(numbers)
    return Corpus(lengths[:size], lengths[size:], sample, tuple(orders))


def _count(sentence: IntArray, codes: IntArray, bound: int) -> tuple[IntArray, int, Counts]:
    """Number the n-grams written as `codes` (below `bound`) and count them by sentence.

    Returns:
        the number of each n-gram by position, how many different ones there are, the counts.
    """
    size = len(codes)
    order, ordered = _stable_sort(codes, bound)
    ordered_sentence = sentence[order]
    new_gram = np.ones(size, dtype=np.bool_)
    new_gram[1:] = ordered[1:] != ordered[:-1]
    new_entry = new_gram.copy()
    new_entry[1:] |= ordered_sentence[1:] != ordered_sentence[:-1]
    grams = np.empty(size, dtype=np.int64)
    grams[order] = np.cumsum(new_gram) - 1
    # The order is stable, so an entry's first position is its first occurrence in the sentence.
    entries = np.flatnonzero(new_entry)
    count = np.zeros(size, dtype=np.int64)
    count[order[entries]] = np.diff(np.append(entries, size))
    first = np.flatnonzero(count)
    return grams, int(new_gram.sum()), Counts(sentence[first], grams[first], count[first])


def _stable_sort(codes: IntArray, bound: int) -> tuple[IntArray, IntArray]:
    """Positions in ascending order of their codes (below `bound`), equal ones by position; codes in order."""
    bits = len(codes).bit_length()
    if bound.bit_length() + bits > _BITS:
        order = np.argsort(codes, kind="stable")
        return order, codes[order]
    # Sorting values that hold the position is several times faster than sorting positions by value.
    packed = np.sort((codes << bits) | np.arange(len(codes)))
    return packed & ((1 << bits) - 1), packed >> bits


def _match(counts: Counts, hypotheses: int, sample: IntArray, grams: int) -> Matches:
    split = int(np.searchsorted(counts.sentence, hypotheses))
    hypothesis = Counts(counts.sentence[:split], counts.gram[:split], counts.count[:split])
    reference = Counts(counts.sentence[split:] - hypotheses, counts.gram[split:], counts.count[split:])
    order, key = _stable_sort(hypothesis.sentence * grams + hypothesis.gram, hypotheses * grams)
    wanted = sample[reference.sentence] * grams + reference.gram
    place = np.searchsorted(key, wanted)
    place[place == split] = 0
    found = np.flatnonzero(key[place] == wanted) if split else np.zeros(0, dtype=np.int64)
    entry = order[place[found]]
    by_reference = np.lexsort((entry, reference.sentence[found]))
    return Matches(hypothesis, reference, entry[by_reference], found[by_reference], grams)
