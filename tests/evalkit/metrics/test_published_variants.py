"""BLEU of nltk and ROUGE-L of rouge-score against those packages."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
from caption_texts import PIECES, noisy_copy, prose_caption, wild_caption
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics.google_rouge_l import google_rouge_l_scores
from evalkit.metrics.nltk_bleu import nltk_bleu_statistics, nltk_bleu_value

words = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "gg"]), max_size=9).map(" ".join)
samples = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=4)), min_size=1, max_size=12)


def nltk_bleu(hypotheses: list[str], references: list[list[str]]) -> list[float]:
    from nltk.translate.bleu_score import corpus_bleu

    tokens = [[text.split() for text in texts] for texts in references]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = [[1 / order] * order for order in (1, 2, 3, 4)]
        return [corpus_bleu(tokens, [text.split() for text in hypotheses], weights=w) for w in weights]


def assert_equal_to_nltk(hypotheses: list[str], references: list[list[str]]) -> None:
    value = nltk_bleu_value(nltk_bleu_statistics(hypotheses, references).sum(axis=0))
    np.testing.assert_allclose(value, nltk_bleu(hypotheses, references), rtol=1e-9, atol=1e-300)


@settings(max_examples=60, deadline=None)
@given(samples)
def test_bleu_of_small_corpora(corpus: list[tuple[str, list[str]]]) -> None:
    assert_equal_to_nltk([text for text, _ in corpus], [texts for _, texts in corpus])


def test_bleu_of_prose() -> None:
    rng = random.Random(1)
    references = [[prose_caption(rng) for _ in range(rng.randint(1, 3))] for _ in range(200)]
    assert_equal_to_nltk([noisy_copy(rng, texts[0]) for texts in references], references)


@pytest.mark.parametrize(
    ("hypothesis", "reference"), [("", "a"), ("a", ""), ("", ""), ("a b", "c d"), ("a", "a")]
)
def test_bleu_of_one_pair(hypothesis: str, reference: str) -> None:
    assert_equal_to_nltk([hypothesis], [[reference]])


def google_rouge_l(hypotheses: list[str], references: list[list[str]], stem: bool) -> list[float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=stem)
    pairs = zip(hypotheses, references, strict=True)
    return [scorer.score_multi(texts, text)["rougeL"].fmeasure for text, texts in pairs]


@pytest.mark.parametrize("stem", [False, True])
def test_rouge_l_of_wild_captions(stem: bool) -> None:
    rng = random.Random(2)
    references = [[wild_caption(rng) for _ in range(rng.randint(1, 3))] for _ in range(300)]
    hypotheses = [noisy_copy(rng, texts[0]) for texts in references]
    expected = google_rouge_l(hypotheses, references, stem)
    np.testing.assert_allclose(google_rouge_l_scores(hypotheses, references, stem=stem), expected, rtol=1e-12)
    assert sum(score > 0 for score in expected) > 100


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*PIECES, "running", "runs", "flies"])).map(" ".join), st.booleans())
def test_rouge_l_of_any_pieces(text: str, stem: bool) -> None:
    reference = [text[::2], text[3:] + " Running cars"]
    expected = google_rouge_l([text], [reference], stem)
    np.testing.assert_allclose(google_rouge_l_scores([text], [reference], stem=stem), expected, rtol=1e-12)
