"""BLEU by nltk and ROUGE-L by rouge-score, against direct calls of those packages."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
from caption_texts import noisy_copy, prose_caption, wild_caption
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit import registry
from evalkit.contracts import Record
from evalkit.metrics.package_variants import NltkBleu, RougeScoreL, nltk_bleu_statistics, nltk_bleu_value
from evalkit.statistics import estimate_all

words = st.lists(st.sampled_from(["a", "b", "C", "d", "e.", "can't", "gg"]), max_size=9).map(" ".join)


@pytest.mark.parametrize("name", registry.tasks())
def test_variants_stand_after_a_tasks_own_columns_and_carry_their_package(name: str) -> None:
    for protocol in registry.task(name).protocols:
        metrics = registry.task(name, protocol).metrics()
        flags = [metric.variant for metric in metrics]
        assert flags == sorted(flags)
        assert flags == [metric.name.endswith((".nltk", ".rouge_score")) for metric in metrics]


samples = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=4)), min_size=1, max_size=12)


def nltk_bleu(hypotheses: list[str], references: list[list[str]]) -> list[float]:
    from nltk.tokenize import word_tokenize
    from nltk.translate.bleu_score import corpus_bleu

    def split(text: str) -> list[str]:
        return list(word_tokenize(text.lower(), preserve_line=True))

    wanted = [[split(text) for text in texts] for texts in references]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an order without a match
        weights = [tuple([1 / order] * order) for order in (1, 2, 3, 4)]
        return list(corpus_bleu(wanted, [split(text) for text in hypotheses], weights=weights))


def rouge_l(hypotheses: list[str], references: list[list[str]]) -> list[float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(hypotheses, references, strict=True)
    return [scorer.score_multi(texts, text)["rougeL"].fmeasure for text, texts in pairs]


def assert_equal_to_nltk(hypotheses: list[str], references: list[list[str]]) -> None:
    value = nltk_bleu_value(nltk_bleu_statistics(hypotheses, references).sum(axis=0))
    np.testing.assert_allclose(value, nltk_bleu(hypotheses, references), rtol=1e-9, atol=1e-300)


def captions(count: int, draw: object) -> tuple[list[str], list[list[str]]]:
    rng = random.Random(1)
    references = [[draw(rng) for _ in range(rng.randint(1, 3))] for _ in range(count)]  # type: ignore[operator]
    return [noisy_copy(rng, texts[0]) for texts in references], references


@settings(max_examples=60, deadline=None)
@given(samples)
def test_bleu_of_small_corpora(corpus: list[tuple[str, list[str]]]) -> None:
    assert_equal_to_nltk([text for text, _ in corpus], [texts for _, texts in corpus])


@pytest.mark.parametrize("draw", [prose_caption, wild_caption])
def test_bleu_of_captions(draw: object) -> None:
    hypotheses, references = captions(200, draw)
    assert_equal_to_nltk(hypotheses, references)
    assert min(nltk_bleu(hypotheses, references)) > 1e-3


@pytest.mark.parametrize(
    ("hypothesis", "reference"), [("", "a"), ("a", ""), ("", ""), ("a b", "c d"), ("a", "A"), ("a b.", "a b")]
)
def test_bleu_of_one_pair(hypothesis: str, reference: str) -> None:
    assert_equal_to_nltk([hypothesis], [[reference]])


@pytest.mark.parametrize("draw", [prose_caption, wild_caption])
def test_metrics_have_the_packages_values(draw: object) -> None:
    hypotheses, references = captions(120, draw)
    records = [
        Record(id=str(i), cluster=str(i // 2), text=text, prediction=text, target=texts)
        for i, (text, texts) in enumerate(zip(hypotheses, references, strict=True))
    ]
    metrics = [NltkBleu(f"bleu_{order}.nltk", order) for order in (1, 2, 3, 4)]
    found = estimate_all([*metrics, RougeScoreL("rouge_l.rouge_score")], records, resamples=200)
    values = [found[metric.name].value for metric in metrics]
    np.testing.assert_allclose(values, 100 * np.array(nltk_bleu(hypotheses, references)), rtol=1e-9)
    expected = 100 * np.mean(rouge_l(hypotheses, references))
    assert found["rouge_l.rouge_score"].value == pytest.approx(expected, rel=1e-12)
    assert 5 < expected < 95
    for value in found.values():
        assert value.ci95 is not None and value.ci95[0] < value.value < value.ci95[1]


def test_the_packages_are_imported_only_when_a_variant_is_computed() -> None:
    code = "import sys, evalkit_tasks.driving.bdd_x; sys.exit('nltk' in sys.modules or 'absl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
