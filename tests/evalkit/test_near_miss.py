"""Near misses: right but for the form, in every task; the official score stays as it is."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_answers import score_texts

from evalkit import registry
from evalkit.contracts import Record, Response, Sample
from evalkit.data.locate import miniature
from evalkit.metrics.base import Accuracy, Mean, Metric
from evalkit.near_miss import NEAR_MISS, corrected, is_wrong, kind, truths
from evalkit.pipeline.summary import counts, near_misses
from evalkit.reports.run import run_text
from evalkit.task import Task, record

#: What is put around a right answer, and what the difference is called.
FORMS = {
    "{}.": "final full stop",
    "**{}**": "markup",
    "`{}`": "markup",
    "\\boxed{{{}}}": "markup",
    '"{}"': "quotes",
    "“{}”": "quotes",
    "<think>Is it?\nLet me look.</think>\n\n{}": "think block",
    "Answer: {}": "lead-in",
    "The answer is {}": "lead-in",
    "{}!": "final punctuation",
    "\u200b{}\ufeff": "white space",
}
ONE_ANSWER = [
    ("ai2d", "paper"), ("chartqa", "paper"), ("drivelm", "paper"), ("gmai-mmbench", "paper"),
    ("infovqa", "paper"), ("mathvista", "paper"), ("mmbench", "paper"), ("mmmu", "paper"),
    ("mme-realworld-driving", "paper"), ("ocrbench", "paper"), ("rsvqa-hr", "paper"), ("rsvqa-lr", "paper"),
    ("textvqa", "paper"),
]  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("miniatures")

    @cache
    def samples(name: str) -> tuple[Sample, ...]:
        task = registry.task(name)
        folder = root / name
        folder.mkdir()
        assert task.data_source.draw is not None
        task.data_source.draw(folder)
        return tuple(task.samples("miniature", folder))

    return samples


@pytest.mark.parametrize(("name", "protocol"), ONE_ANSWER)
def test_a_right_answer_in_another_form_is_right_or_a_near_miss(name: str, protocol: str, drawn: Any) -> None:
    task = registry.task(name, protocol)
    samples = [sample for sample in drawn(name) if truths(sample)]
    plain = {sample.id: truths(sample)[0] for sample in samples}
    assert not _misses(score_texts(task, samples, plain))
    right = {
        r.id for r in score_texts(task, samples, plain) if is_wrong(r.scores, task.exact_scores) is False
    }
    assert right
    for form, named in FORMS.items():
        records = score_texts(task, samples, {name: form.format(text) for name, text in plain.items()})
        wrong = {r.id for r in records if is_wrong(r.scores, task.exact_scores)} & right
        misses = _misses(records)
        assert wrong <= set(misses), f"{form}: {sorted(wrong - set(misses))[:3]}"
        assert all(named in misses[name].data[NEAR_MISS] for name in wrong)


@pytest.mark.parametrize(("name", "protocol"), ONE_ANSWER)
def test_a_wrong_answer_is_none_whatever_its_form(name: str, protocol: str, drawn: Any) -> None:
    task = registry.task(name, protocol)
    for text in ("", ".", "a submarine.", "**none of this**", "<think>yes</think>\nperhaps not"):
        assert not _misses(score_texts(task, list(drawn(name)), text))


def test_scores_and_prediction_are_those_of_the_answer_as_it_stands(drawn: Any) -> None:
    task, samples = registry.task("rsvqa-lr"), list(drawn("rsvqa-lr"))
    records = score_texts(task, samples, {sample.id: f"{sample.target}." for sample in samples})
    alone = {s.id: task.score(s, Response(text=f"{s.target}.")) for s in samples}
    for found in records:
        assert found.scores == alone[found.id].scores and found.prediction == alone[found.id].prediction
        assert set(found.flags) - {NEAR_MISS} == set(alone[found.id].flags)
    assert counts(records, len(records))["near_miss"] == len(records)
    assert near_misses(records, task.exact_scores) == {
        "wrong": len(records),
        "kinds": {"final full stop": len(records)},
    }


@pytest.mark.parametrize("text", ["\u22123.25", "The angle is \u22123.25", "\uff0d3.25", "\u20133.25"])
def test_a_minus_sign_that_is_read_as_plus_is_said(text: str, drawn: Any) -> None:
    task = registry.task("bdd-x")
    sample = next(s for s in drawn("bdd-x") if s.tags["question"] == "angle")
    sample = dataclasses.replace(sample, target={"angle": -3.0})
    (found,) = score_texts(task, [sample], text)
    assert found.prediction == {"angle": 3.25} and "minus sign" in found.data[NEAR_MISS]
    (plain,) = score_texts(task, [sample], text.replace(text[-5], "-"))
    assert plain.prediction == {"angle": -3.25} and NEAR_MISS not in plain.flags


@pytest.mark.parametrize(
    ("text", "truth", "kinds"),
    [
        ("yes", "yes", ()),
        ("no", "yes", ()),
        ("Yes", "yes", ("case",)),
        (" yes\n", "yes", ("white space",)),
        ("yes.", "yes", ("final full stop",)),
        ("yes?!", "yes", ("final punctuation",)),
        ("YES.", "yes", ("case", "final full stop")),
        ("**Answer:** 'Yes.'", "yes", ("case", "final full stop", "quotes", "markup", "lead-in")),
        ("\uff34\uff57\uff4f", "Two", ("full-width characters",)),
        ("\u22125", "-5", ("minus sign",)),
        ("</think>5", "5", ("think block",)),
        ("<think>it is 5</think>", "5", ()),
        ("答案是5", "5", ("lead-in",)),
        ("$5$", "5", ("markup",)),
        ("```\n5\n```", "5", ("markup",)),
        ("", "", ()),
        ("...", ".", ()),
        ("answer", "Answer", ("case",)),
    ],
)
def test_kinds(text: str, truth: str, kinds: tuple[str, ...]) -> None:
    assert kind(text, truth) == kinds


class Graded(Task):
    """Half a point for a synonym; the scorer fails on a text that no model wrote."""

    name = "graded"
    fails = ""

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        yield from ()

    def score(self, sample: Sample, response: Response) -> Record:
        if self.fails and response.text == self.fails:
            raise ValueError("no")
        value = {"car": 1.0, "auto": 0.5, "Auto.": 0.2}.get(response.text, 0.0)
        return record(sample, response, prediction=response.text, scores={"points": value})

    def metrics(self) -> Sequence[Metric]:
        return [Mean("points"), Accuracy("other", "absent")]


WORDS = st.sampled_from(
    ["yes", "Yes", "13.5", "-5", "(a)", "a b", "the answer 5", "Option B", "YES.", "$x$", "a"]
)


@given(WORDS | st.text("aAbZ09 .,:'%-*$\"", max_size=6), st.lists(WORDS, min_size=1, max_size=2))
@settings(max_examples=100, deadline=None)
def test_plain_words_are_told_apart_as_all_others(text: str, truth: list[str]) -> None:
    sample = Sample("s", ("q",), (), truth, "c")
    found = corrected(text, sample)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evalkit.near_miss._PLAIN", re.compile("(?!)"))
        assert corrected(text, sample) == found


def test_graded_scores_of_a_task_of_ones_own() -> None:
    task = Graded()
    samples = [Sample(str(n), ("q",), (), ["car", "auto"], str(n)) for n in range(4)]
    records = score_texts(task, samples, {"0": "car", "1": "auto", "2": "Auto.", "3": "bus."})
    assert [record.data.get(NEAR_MISS) for record in records] == [None, None, "case + final full stop", None]
    task.fails = "auto"
    assert not _misses(score_texts(task, samples[2:3], "Auto."))


def test_a_wrong_answer_that_only_gains_a_little_is_none() -> None:
    task = registry.task("docvqa")
    sample = Sample("0", ("q",), (), ["paris, france"], "0")
    records = [
        score_texts(task, [sample], text)[0] for text in ("paris, frnce.", "paris, frnce", "paris, france.")
    ]
    assert records[0].scores["anls"] < records[1].scores["anls"] < 1
    assert [NEAR_MISS in record.flags for record in records] == [False, False, True]


def test_answers_without_public_targets_are_none() -> None:
    sample = Sample("0", ("q",), (), None, "0")
    assert not _misses(score_texts(Graded(), [sample], "car."))


def test_show_and_report(bench: Any) -> None:
    path = bench.output.parent / "p.jsonl"
    samples = list(registry.task("chartqa").samples("miniature", miniature(registry.task("chartqa"))))
    ends = [".", "", "<<"]
    rows = [{"id": s.id, "text": f"{s.target[0]}{ends[n % 3]}"} for n, s in enumerate(samples)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert (
        bench.cli("run", "-m", f"predictions:{path}", "-t", "chartqa", "--split", "miniature", "--json") == 0
    )
    summary = bench.result
    expected = summary["counts"]["near_miss"]
    assert 0 < expected == sum(summary["near_misses"]["kinds"].values()) < summary["near_misses"]["wrong"]
    assert f"{expected} of {summary['near_misses']['wrong']} wrong answers are near misses" in run_text(
        summary
    )
    assert bench.cli("show", summary["run"], "--near-miss", "--json") == 0
    listed = json.loads(bench.out)["samples"]
    assert len(listed) == expected and all(row["text"].endswith(".") for row in listed)
    assert bench.cli("show", summary["run"], "--wrong", "--json") == 0
    assert len(json.loads(bench.out)["samples"]) == summary["near_misses"]["wrong"]
    assert bench.cli("show", summary["run"], "--near-miss") == 0
    assert "final full stop" in bench.out


def _misses(records: Sequence[Record]) -> dict[str, Record]:
    return {record.id: record for record in records if NEAR_MISS in record.flags}
