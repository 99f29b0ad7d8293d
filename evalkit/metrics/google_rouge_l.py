"""ROUGE-L as Google's rouge-score package computes it, to compare with figures published with that package.

It differs from pycocoevalcap's in the words (runs of ASCII letters and digits in lower case) and in the F
measure (beta 1); of several references the best counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from evalkit.metrics.ngrams import freeze

FloatArray = npt.NDArray[np.float64]

_WORD = re.compile("[a-z0-9]+")
#: The package stems only words longer than this.
_UNSTEMMED = 3


def google_rouge_l_scores(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, stem: bool = False
) -> FloatArray:
    """ROUGE-L F1 of each sample, [n]; the corpus figure is their mean.

    Args:
        hypotheses: [n] texts as written, not tokenised.
        references: one or more texts for each.
        stem: reduce words by nltk's Porter stemmer (the package's `use_stemmer`).

    Raises:
        ValueError: not one list of references a hypothesis, or a list without any.
    """
    words = _stemmed_words() if stem else _words
    frozen, texts = freeze(hypotheses, references)
    scores = [
        max(_f1(words(hypothesis), words(text)) for text in group)
        for hypothesis, group in zip(frozen, texts, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


def _f1(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    from rapidfuzz.distance import LCSseq

    numbers: dict[str, int] = {}
    first, second = (
        [numbers.setdefault(w, len(numbers)) for w in words] for words in (hypothesis, reference)
    )
    common = LCSseq.similarity(first, second)
    if not common:
        return 0.0
    precision, recall = common / len(first), common / len(second)
    return 2 * precision * recall / (precision + recall)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _stemmed_words() -> Callable[[str], list[str]]:
    from nltk.stem.porter import PorterStemmer

    stemmer = PorterStemmer()
    return lambda text: [stemmer.stem(w) if len(w) > _UNSTEMMED else w for w in _words(text)]
