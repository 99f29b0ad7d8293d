"""ROUGE-L, as pycocoevalcap 1.2 computes it: longest common subsequence, F with beta 1.2.

Lin, "ROUGE: a package for automatic evaluation of summaries" (ACL 2004 workshop), section 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evalkit.metrics.ngrams import freeze

FloatArray = npt.NDArray[np.float64]

_BETA = 1.2


def rouge_l_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """ROUGE-L of each sample, [n]; the corpus figure is their mean.

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
