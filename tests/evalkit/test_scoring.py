"""The scoring pipeline: parse, judge, score; and what identifies a run."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from evalkit.contracts import Failure, Record, Response, Sample
from evalkit.errors import TaskError
from evalkit.metrics.base import Accuracy, Composite, Mean, Metric, RootMeanSquare, macro_mean
from evalkit.pipeline.score import score
from evalkit.pipeline.summary import counts, groups, metric_values, status
from evalkit.store import StoredResponse
from evalkit.task import JudgeQuestion, ParsedAnswer, Task, record


class Judged(Task):
    """Asks a judge about every answer but `x`, and notes each step."""

    name = "judged"
    group_by = ("kind",)

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        yield from ()

    def parse(self, sample: Sample, response: Response) -> str:
        self.steps.append(f"parse {sample.id}")
        return response.text.upper()

    def judge_questions(self, answers: Sequence[ParsedAnswer]) -> dict[str, JudgeQuestion]:
        self.steps.append("judge_questions")
        return {a.sample.id: JudgeQuestion("", a.response.text) for a in answers if a.parsed != "X"}

    def score_all(self, answers: Sequence[ParsedAnswer]) -> list[Record]:
        self.steps.append("score_all")
        return [
            record(
                answer.sample,
                answer.response,
                prediction=answer.parsed,
                scores={"rating": float(answer.reply)} if isinstance(answer.reply, str) else {},
                data=answer.judge_data(),
            )
            for answer in answers
        ]

    def metrics(self):
        return [Mean("rating", scale=1.0), Accuracy("nothing")]


class Earlier(Task):
    """Written against the methods that `judge_questions` and `score_all` replace."""

    name = "earlier"

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        yield from ()

    def score(self, sample: Sample, response: Response) -> Record:
        return record(sample, response, prediction=response.text.upper())

    def relate(self, records: list[Record]) -> list[Record]:
        failed = float(sum(r.failed for r in records))
        return [
            dataclasses.replace(r, scores={"rating": float(r.data["judge"]), "failed": failed})
            if "judge" in r.data
            else r
            for r in records
        ]

    def judge_question(self, record: Record) -> JudgeQuestion | None:
        return None if record.text == "x" else JudgeQuestion("", record.text)

    def metrics(self):
        return [Mean("rating", scale=1.0)]


class FakeJudge:
    """Rates by length, and has no reply to `?`."""

    def __init__(self) -> None:
        self.asked: Mapping[str, JudgeQuestion] = {}

    def replies(self, questions: Mapping[str, JudgeQuestion]) -> Iterator[tuple[str, str | Failure]]:
        self.asked = questions
        for name, question in reversed(questions.items()):
            yield name, Failure("judge", "HTTP 500") if question.user == "?" else str(len(question.user))


def sample(name: str, kind: str = "k") -> Sample:
    return Sample(name, ("q",), (), "t", "c", {"kind": kind})


def answer(name: str, text: str | None) -> StoredResponse:
    response = Response(error=Failure("image", "gone")) if text is None else Response(text)
    return StoredResponse(name, "key", response)


ANSWERS = {"a": "four", "b": "x", "c": None, "d": "?", "e": "seven!!"}
SAMPLES = [sample(name) for name in ("e", "d", "c", "b", "a", "unanswered")]


def scored(judge: FakeJudge | None, task: Task) -> list[Record]:
    answers = {name: answer(name, text) for name, text in ANSWERS.items()}
    return [item.record for item in score(task, SAMPLES, answers, judge)]


def test_records_come_in_sample_order_errors_among_them() -> None:
    task = Judged()
    records = scored(None, task)
    assert [r.id for r in records] == ["e", "d", "c", "b", "a"]
    assert [r.failed for r in records] == [False, False, True, False, False]
    assert [r.prediction for r in records] == ["SEVEN!!", "?", None, "X", "FOUR"]
    assert task.steps == ["parse e", "parse d", "parse b", "parse a", "score_all"]


def test_every_step_is_called_once_and_the_judge_is_asked_before_the_score(
    caplog: pytest.LogCaptureFixture,
) -> None:
    judge, task = FakeJudge(), Judged()
    records = scored(judge, task)
    assert task.steps == ["parse e", "parse d", "parse b", "parse a", "judge_questions", "score_all"]
    assert list(judge.asked) == ["e", "d", "a"]
    by_id = {r.id: r for r in records}
    assert by_id["a"].data == {"judge": "4"} and by_id["e"].scores == {"rating": 7.0}
    assert by_id["d"].data == {"judge_failure": "HTTP 500"} and by_id["d"].scores == {}
    assert by_id["b"].data == {} and by_id["c"].data == {}
    assert "no reply to 1 of 3 questions (HTTP 500)" in caplog.text


def test_a_task_with_the_earlier_methods_is_scored_as_before() -> None:
    judge = FakeJudge()
    records = scored(judge, Earlier())
    assert list(judge.asked) == ["e", "d", "a"]
    assert [r.scores.get("rating") for r in records] == [7.0, None, None, None, 4.0]
    assert records[0].scores["failed"] == 1.0 and records[2].failed
    assert [r.data for r in records][1:3] == [{"judge_failure": "HTTP 500"}, {}]
    assert all(not r.scores for r in scored(None, Earlier()))


@pytest.mark.parametrize(
    ("step", "broken", "message"),
    [
        ("score_all", lambda self, answers: [], "one record for each answer, in order"),
        ("score_all", lambda self, answers: answers[0].nothing, r"score_all\(\) fails \(AttributeError"),
        ("parse", lambda self, sample, response: 1 / 0, r"parse\(\) fails on sample 'e' \(ZeroDivisionError"),
        ("judge_questions", lambda self, answers: 1 / 0, r"judge_questions\(\) fails \(ZeroDivisionError"),
    ],
)
def test_a_step_that_fails_is_named(
    step: str, broken: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judged, step, broken)
    with pytest.raises(TaskError, match=message):
        scored(FakeJudge(), Judged())


def test_a_score_that_fails_names_the_sample() -> None:
    class OneByOne(Judged):
        score_all = Task.score_all

        def score(self, sample: Sample, response: Response) -> Record:
            if sample.id == "b":
                raise ValueError("no letter")
            return record(sample, response)

    with pytest.raises(TaskError, match=r"score\(\) fails on sample 'b' \(ValueError: no letter\)"):
        scored(None, OneByOne())


def test_a_task_that_scores_nothing_is_refused() -> None:
    class Unfinished(Judged):
        score_all = Task.score_all

    with pytest.raises(TypeError, match=r"Unfinished must define score\(\) or score_all\(\)"):
        Unfinished()


def test_groups_leave_out_figures_without_samples() -> None:
    task = Judged()
    records = [
        Record(str(i), "c", "", None, None, {"rating": float(i)} if i < 4 else {}, {"kind": "ab"[i % 2]})
        for i in range(6)
    ]
    report = groups(task, records)
    assert report == {
        "kind": {"a": {"rating": {"value": 1.0, "n": 2}}, "b": {"rating": {"value": 2.0, "n": 2}}}
    }


class Grouped(Judged):
    """Reports means, roots of squares and what is made of them by kind."""

    def metrics(self) -> list[Metric]:
        parts = [
            Accuracy(kind, "right", select=lambda r, kind=kind: r.tags.get("kind") == kind) for kind in "ab"
        ]
        nested = Composite(
            "nested", [macro_mean("inner", parts[:1]), Mean("error")], lambda v: v.sum(axis=-1)
        )
        return [*parts, nested, Mean("error"), RootMeanSquare("rms", "error", unit="m/s")]


def test_a_group_has_the_values_of_its_own_records() -> None:
    drawn = random.Random(3)
    records = []
    for n in range(300):
        error = Failure("image", "gone") if drawn.random() < 0.1 else None
        scores = {} if error else {"right": float(drawn.random() < 0.4), "error": drawn.random()}
        tags = {"kind": drawn.choice("abc")} if drawn.random() < 0.9 else {}
        records.append(Record(str(n), f"c{n % 30}", "", None, "t", scores, tags, error=error))
    report = groups(Grouped(), records)["kind"]
    assert set(report) == {"a", "b", "c"}
    for kind, found in report.items():
        own = [record for record in records if record.tags.get("kind") == kind]
        expected = {name: value for name, value in metric_values(Grouped(), own).items() if value.n}
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if value.value is not None:  # a composite lacks a part in the other groups
                assert found[name] == {"value": pytest.approx(value.value), "n": value.n}
            else:
                assert found[name] == {"value": None, "n": value.n, "reason": "undefined for these answers"}


def test_counts_and_status() -> None:
    good = Record("a", "c", "", None, None, flags=("unparsed", "truncated"))
    bad = Record("b", "c", "", None, None, flags=("error",), error=Failure("image", "x"))
    found = counts([good, bad], 2)
    assert found == {"expected": 2, "answered": 1, "errors": 1, "unparsed": 1, "truncated": 1, "near_miss": 0}
    assert status(found, limited=False) == "complete" and status(found, limited=True) == "partial"
    assert status(counts([good], 2), limited=False) == "partial"
    assert status(found, limited=False, excerpt=True) == "excerpt"
    assert status(found, limited=True, excerpt=True) == "partial"
    assert status(counts([bad], 1), limited=False) == "failed"


def test_what_may_change_between_sessions_and_what_may_not(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from toy import FakeModel

    from evalkit.contracts import ModelInfo

    info = ModelInfo(name="fake", fingerprint="0", dtype="float32", device="cpu")

    def folder(*flags: str, **changes: object) -> str:
        monkeypatch.setattr(FakeModel, "info", dataclasses.replace(info, **changes))  # type: ignore[arg-type]
        assert bench.run(*flags) == 0
        return str(bench.result["run"])

    first = folder()
    assert folder(device="cuda:1", engine="ray") == first
    assert folder("--batch-size", "3", "--seed", "9", "--device", "cpu") == first
    others = [
        folder(fingerprint="1"),
        folder(dtype="bfloat16"),
        folder(revision="main"),
        folder(settings={"image_size": 224}),
        folder("--limit", "5"),
        folder("--gen", "max_new_tokens=3"),
        folder("--gen", "temperature=1"),
        folder("--gen", "temperature=1", "--seed", "9"),
    ]
    assert len({first, *others}) == 9


def test_a_judge_is_remembered_by_the_run(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from evalkit import judge

    calls: list[tuple[str, str]] = []

    class Remembered(FakeJudge):
        def __init__(self, url: str, model: str, cache: Path, *_: object, **__: object) -> None:
            super().__init__()
            self.sent = self.again = 0
            calls.append((url, model))
            cache.write_text("{}\n")

    monkeypatch.setattr(judge, "Judge", Remembered)
    flags = ["--judge", "http://user:secret@host/v1", "--judge-model", "j"]
    assert bench.run(*flags) == 0
    assert "judge:j" in bench.result["signature"]
    folder = bench.result["run"]
    assert "secret" not in (Path(folder) / "manifest.json").read_text()
    assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
    assert "judge:j" in bench.result["signature"]
    assert calls == [("http://user:secret@host/v1", "j")]  # its replies are used; nobody is asked again
