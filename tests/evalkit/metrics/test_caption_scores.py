"""BLEU, ROUGE-L and CIDEr against pycocoevalcap itself, on tokenised texts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from caption_texts import noisy_copy, prose_caption
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics.caption_scores import bleu_statistics, bleu_value, cider_scores, rouge_l_scores
from evalkit.metrics.ngrams import count


class Reference(NamedTuple):
    """pycocoevalcap's figures."""

    bleu: list[float]
    rouge_l: float
    rouge_l_scores: np.ndarray
    cider: float
    cider_scores: np.ndarray


def reference(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Reference:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    res = {row: [text] for row, text in enumerate(hypotheses)}
    gts = {row: list(texts) for row, texts in enumerate(references)}
    bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
    return Reference(bleu, *Rouge().compute_score(gts, res), *Cider().compute_score(gts, res))


def assert_equal_to_reference(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    expected = reference(hypotheses, references)
    statistics = bleu_statistics(hypotheses, references)
    assert statistics.shape == (len(hypotheses), 10)
    np.testing.assert_allclose(bleu_value(statistics.sum(axis=0)), expected.bleu, rtol=1e-13, atol=0)
    # Bit for bit, sample for sample.
    assert rouge_l_scores(hypotheses, references).tolist() == expected.rouge_l_scores.tolist()
    assert cider_scores(hypotheses, references).tolist() == expected.cider_scores.tolist()
    assert cider_scores(hypotheses, references).mean() == expected.cider
    assert rouge_l_scores(hypotheses, references).mean() == expected.rouge_l


words = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "gg", "5\xa01/2"]), max_size=9).map(" ".join)
samples = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=4)), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(samples)
def test_small_corpora(corpus: list[tuple[str, list[str]]]) -> None:
    hypotheses, references = [text for text, _ in corpus], [texts for _, texts in corpus]
    if any("".join(texts) for texts in references):
        assert_equal_to_reference(hypotheses, references)


@pytest.mark.parametrize("most_references", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_prose(seed: int, most_references: int) -> None:
    rng = random.Random(seed)
    references = [[prose_caption(rng) for _ in range(rng.randint(1, most_references))] for _ in range(300)]
    hypotheses = [
        noisy_copy(rng, texts[0]) if rng.random() < 0.8 else prose_caption(rng) for texts in references
    ]
    assert_equal_to_reference(hypotheses, references)


@pytest.mark.parametrize(
    ("hypotheses", "references"),
    [
        (["a b c d e"], [["a b c d e"]]),
        (["a"], [["b"]]),
        (["a"], [["a", "a b"]]),
        (["", "a b", ""], [["a"], [""], [""]]),
        (["a b c", "d e f g"], [["a b c"], ["d e f g"]]),
        (["a a a a a a", "b"], [["a a", "a b a a"], ["b b b b"]]),
        (["x  y", " z"], [["x  y"], ["z "]]),
        (["one two three"], [["one two", "one two three four"]]),
        (["5\xa01/2 feet", "a"], [["5\xa01/2 feet"], ["5 1/2 feet"]]),
    ],
)
def test_hand_picked(hypotheses: list[str], references: list[list[str]]) -> None:
    assert_equal_to_reference(hypotheses, references)


def test_perfect_corpus() -> None:
    texts = ["the car stops at the light", "a truck turns left now", "nobody crosses the wide road"]
    references = [[text] for text in texts]
    assert bleu_value(bleu_statistics(texts, references).sum(axis=0)) == pytest.approx(1.0, abs=1e-8)
    assert (bleu_value(bleu_statistics(texts, references).sum(axis=0)) < 1).all()
    assert rouge_l_scores(texts, references).tolist() == [1, 1, 1]
    assert cider_scores(texts, references).mean() == pytest.approx(10)


def test_one_sample_has_no_cider() -> None:
    assert cider_scores(["a b c d"], [["a b c d"]]).tolist() == [0.0]


def test_empty_hypothesis() -> None:
    assert bleu_statistics([""], [["a b"]]).tolist() == [[0, 0, 0, 0, 0, 0, 0, 0, 0, 2]]
    assert rouge_l_scores([""], [["a b"]]).tolist() == [0.0]
    assert cider_scores(["", "c"], [["a b"], ["c"]])[0] == 0.0


def test_references_without_a_word() -> None:
    assert cider_scores(["a", ""], [[""], [""]]).tolist() == [0.0, 0.0]
    assert rouge_l_scores(["a", ""], [[""], [""]]).tolist() == [0.0, 1.0]
    assert bleu_value(bleu_statistics(["a", ""], [[""], [""]]).sum(axis=0)).max() < 1e-4


def test_closest_reference_length_prefers_the_shorter() -> None:
    assert bleu_statistics(["a b c"], [["a b c d", "a b"]])[0, 8:].tolist() == [3, 2]


def test_bleu_value_takes_any_leading_shape() -> None:
    rng = np.random.default_rng(0)
    sums = rng.integers(1, 50, (3, 5, 10)).astype(np.float64)
    values = bleu_value(sums)
    assert values.shape == (3, 5, 4)
    np.testing.assert_array_equal(values[2, 4], bleu_value(sums[2, 4]))


def test_no_samples() -> None:
    assert bleu_statistics([], []).shape == (0, 10)
    assert rouge_l_scores([], []).shape == (0,)
    assert cider_scores([], []).shape == (0,)


@pytest.mark.parametrize("function", [bleu_statistics, rouge_l_scores, cider_scores])
def test_unequal_sides_are_refused(function) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="2 hypotheses but references for 1"):
        function(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="at least one reference"):
        function(["a"], [[]])


def test_statistics_can_be_changed_without_harm() -> None:
    first = bleu_statistics(["a b"], [["a b"]])
    first[:] = 7
    assert bleu_statistics(["a b"], [["a b"]])[0, 0] == 2


def test_counting_does_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way for corpora too large for one sort key gives the same counts."""
    from evalkit.metrics import ngrams

    rng = random.Random(3)
    texts = tuple(prose_caption(rng) for _ in range(50))
    references = tuple((prose_caption(rng), text) for text in texts)
    count.cache_clear()
    expected = bleu_statistics(texts, references), cider_scores(texts, references)
    monkeypatch.setattr(ngrams, "_BITS", 0)
    count.cache_clear()
    assert cider_scores(texts, references).tolist() == expected[1].tolist()
    count.cache_clear()
