"""Runs that ask each question several times: seeds, resume, values, and all that reads such runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import FakeModel

import evalkit
from evalkit.contracts import Record, Request, Response
from evalkit.metrics.base import Accuracy, RootMeanSquare, macro_mean
from evalkit.metrics.repeated import Repeated, over_repeats
from evalkit.statistics.repeats import majority, pass_at, variances
from evalkit.store import load_run

DRAWN = ("--gen", "temperature=0.8")


class Drawing(FakeModel):
    """Answers by the request's seed; `stop_after` answers it is interrupted."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.seeds: dict[str, int] = {}
        self.stop_after = stop_after

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        for request in requests:
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(request.id)
            self.seeds[request.id] = request.generation.seed
            said = "Yes" if request.generation.seed % 3 else "No."
            yield request.id, Response(text=said, finish="stop", prompt_tokens=9, new_tokens=2)


@pytest.fixture
def drawing(bench: Any) -> Any:
    bench.family.model = Drawing()
    return bench


def test_each_question_is_asked_with_seeds_of_its_own(drawing: Any) -> None:
    assert drawing.run("--repeats", "3", *DRAWN, "--seed", "5") == 0
    assert len(drawing.model.asked) == 60
    assert {"0", "0#2", "0#3"} <= set(drawing.model.asked)
    assert len(set(drawing.model.seeds.values())) == 60  # independent between questions and repeats
    result = drawing.result
    assert result["repeats"]["seeds"] == [5, 6, 7]
    assert result["counts"]["expected"] == result["counts"]["answered"] == 20
    assert "|seed:5|repeats:3|" in result["signature"]
    assert result["metrics"]["accuracy"]["n"] == 20
    manifest = json.loads((Path(result["run"]) / "manifest.json").read_text())
    assert manifest["selection"]["seeds"] == [5, 6, 7] and manifest["selection"]["repeats"] == 3


def test_the_values_are_those_of_the_answers(drawing: Any) -> None:
    """Mean, values by seed, pass@k and majority vote, counted by hand from the stored answers."""
    drawing.run("--repeats", "3", *DRAWN)
    run = load_run(drawing.result["run"])
    right = {}
    for line in (drawing.folder / "test.jsonl").read_text().splitlines():
        item = json.loads(line)
        right[str(item["id"])] = item["answer"]
    said = {name: stored.response.text for name, stored in run.responses().items()}
    table = np.array(
        [
            [said[name if not r else f"{name}#{r + 1}"].lower().rstrip(".") == right[name] for name in right]
            for r in range(3)
        ]
    )
    found = drawing.result
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(100 * table.mean())
    repeats = found["repeats"]["metrics"]["accuracy"]
    assert repeats["by_seed"] == pytest.approx((100 * table.mean(axis=1)).tolist())
    count = table.sum(axis=0)
    assert repeats["pass@k"]["3"]["value"] == pytest.approx(100 * (count > 0).mean())
    assert repeats["pass@k"]["1"]["value"] == pytest.approx(100 * table.mean())
    assert repeats["majority"]["value"] == pytest.approx(100 * (count >= 2).mean())
    assert repeats["variance_within"] == pytest.approx(1e4 * table.var(axis=0, ddof=1).mean())
    low, high = found["metrics"]["accuracy"]["ci95"]
    assert low < found["metrics"]["accuracy"]["value"] < high


def test_a_run_that_was_killed_goes_on_to_the_same_end(drawing: Any) -> None:
    drawing.run("--repeats", "3", *DRAWN, "-o", drawing.output / "whole")
    whole = drawing.result
    drawing.family.model = Drawing(stop_after=25)
    assert drawing.run("--repeats", "3", *DRAWN) == 130
    folder = next((drawing.output / "fake").glob("*/2*"))
    responses = folder / "responses-0.jsonl"
    responses.write_bytes(responses.read_bytes()[:-20])  # torn by the kill
    drawing.family.model = Drawing()
    assert drawing.run("--repeats", "3", *DRAWN) == 0
    assert len(drawing.model.asked) == 36
    assert drawing.result["run"] == str(folder)
    assert drawing.result["metrics"] == whole["metrics"] and drawing.result["repeats"] == whole["repeats"]


def test_scoring_again_gives_the_same(drawing: Any) -> None:
    drawing.run("--repeats", "2", *DRAWN)
    before = drawing.result
    assert drawing.cli("score", "--include", drawing.task, before["run"], "--json") == 0
    after = drawing.result
    assert after["metrics"] == before["metrics"] and after["repeats"] == before["repeats"]
    assert after["signature"] == before["signature"]


def test_a_score_of_an_unfinished_run_leaves_out_half_asked_questions(drawing: Any) -> None:
    drawing.family.model = Drawing(stop_after=25)
    drawing.run("--repeats", "3", *DRAWN)
    folder = next((drawing.output / "fake").glob("*/2*"))
    assert drawing.cli("score", "--include", drawing.task, folder, "--json") == 0
    assert drawing.result["counts"]["answered"] == 8 and drawing.result["status"] == "partial"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "greedily (temperature 0)"),
        ((*DRAWN, "--gen", "num_beams=3"), "by beam search"),
        (("--gen", "temperature=0"), "greedily (temperature 0)"),
    ],
)
def test_equal_answers_are_refused(bench: Any, flags: tuple[str, ...], said: str) -> None:
    assert bench.run("--repeats", "3", *flags) == 2
    assert said in bench.err and "--gen temperature=0.7" in bench.err
    assert bench.run("--repeats", "0", *DRAWN) == 2


def test_stored_predictions_have_one_answer(bench: Any) -> None:
    file = bench.folder / "answers.jsonl"
    file.write_text("".join(json.dumps({"id": str(n), "text": "Yes"}) + "\n" for n in range(20)))
    assert bench.run("--repeats", "3", *DRAWN, model=f"predictions:{file}") == 2
    assert "one stored answer" in bench.err


def test_the_seed_no_longer_moves_the_subset(drawing: Any) -> None:
    def asked(*flags: str) -> set[str]:
        drawing.family.model = Drawing()
        drawing.run("--limit", "6", "--no-resume", *flags)
        return set(drawing.model.asked)

    assert asked() == asked("--seed", "4") == asked("--subset-seed", "0", *DRAWN)
    assert asked() != asked("--subset-seed", "4")


def test_the_seed_stands_in_the_signature_once(drawing: Any) -> None:
    lines = []
    for flags in (("--seed", "1"), ("--gen", "seed=1")):
        drawing.run(*DRAWN, *flags, "--no-resume")
        lines.append(drawing.result["signature"])
    assert lines[0] == lines[1] and lines[0].count("seed") == 1
    assert drawing.run(*DRAWN, "--seed", "2", "--gen", "seed=1") == 2
    drawing.run("--seed", "7")
    assert "seed" not in drawing.result["signature"]  # nothing is drawn


def test_an_older_run_keeps_its_subset(drawing: Any) -> None:
    """Before there were two seeds, the one moved the subset too."""
    drawing.run("--limit", "6", "--subset-seed", "4")
    folder = Path(drawing.result["run"])
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("subset_seed", "repeats", "seeds"):
        del manifest["selection"][name]
        manifest["settings"].pop(name, None)
    manifest["selection"]["seed"] = 4
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert drawing.cli("score", "--include", drawing.task, folder, "--json") == 0
    assert drawing.result["counts"]["answered"] == 6


def test_readers_show_the_question_and_its_repeats(drawing: Any) -> None:
    drawing.run("--repeats", "3", *DRAWN)
    run = evalkit.load_run(drawing.result["run"])
    frame = run.records()
    assert len(frame) == 20 and all(len(answers) == 3 for answers in frame["answers"])
    assert run.to_dataset().num_rows == 20
    drawing.cli("show", run.path, "--sample", "3", "--json")
    (row,) = drawing.document["samples"]
    assert [set(repeat) >= {"text", "scores"} for repeat in row["repeats"]] == [True] * 3
    drawing.cli("show", run.path, "--sample", "3")
    assert "repeat 3" in drawing.out
    drawing.cli("show", run.path)
    assert "each question asked 3 times" in drawing.out and "pass@3" in drawing.out


def test_repeats_are_compared_by_question(drawing: Any) -> None:
    drawing.run("--repeats", "3", *DRAWN)
    base = drawing.result["run"]
    drawing.run("--repeats", "3", *DRAWN, "--seed", "50")
    new = drawing.result["run"]
    drawing.cli("compare", "--include", drawing.task, base, new)
    assert "seed (0 | 50) differ" in drawing.err
    drawing.cli("compare", "--include", drawing.task, base, new, "--allow", "seed", "--json")
    (metric,) = [m for m in drawing.document["metrics"] if m["metric"] == "accuracy"]
    assert metric["n"] == 20 and metric["mcnemar"] is None
    drawing.run(*DRAWN)
    once = drawing.result["run"]
    drawing.cli("compare", "--include", drawing.task, base, once, "--allow", "repeats", "--json")
    (metric,) = [m for m in drawing.document["metrics"] if m["metric"] == "accuracy"]
    assert metric["n"] == 20 and metric["p"] is not None


def test_repeats_run_again_alike(drawing: Any) -> None:
    drawing.run("--repeats", "2", *DRAWN)
    again = ("reproduce", "--include", drawing.task, drawing.result["run"], "-o", drawing.output / "again")
    assert drawing.cli(*again, "--json") == 0
    assert drawing.document["compared"] == 40


# Metrics --------------------------------------------------------------------------------------------------


def asked(rng: np.random.Generator, share: float, repeats: int) -> Record:
    each = tuple(
        Record("q", "c", "", None, None, {"accuracy": float(right), "error": 2.0 - right})
        for right in rng.random(repeats) < share
    )
    means = {name: float(np.mean([r.scores[name] for r in each])) for name in each[0].scores}
    return Record("q", "c", "", None, None, means, repeats=each)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Accuracy("accuracy"),
        lambda: RootMeanSquare("rmse", "error", unit="m/s"),
        lambda: macro_mean("both", [Accuracy("accuracy"), Accuracy("other", "accuracy")]),
    ],
)
def test_a_metric_over_repeats_is_that_of_all_answers(make: Callable[[], Any]) -> None:
    rng = np.random.default_rng(0)
    records = [asked(rng, 0.6, 4) for _ in range(50)]
    flat = [repeat for record in records for repeat in record.repeats]
    (over,) = over_repeats([make()], records)
    plain = make()
    assert over.value(over.statistics(records).sum(axis=0)) == pytest.approx(
        float(plain.value(plain.statistics(flat).sum(axis=0)))
    )
    assert not over.binary


def test_metrics_of_single_answers_stay_as_they_are() -> None:
    metric = Accuracy("accuracy")
    assert over_repeats([metric], [Record("q", "c", "", None, None, {"accuracy": 1.0})]) == [metric]
    assert isinstance(over_repeats([metric], [asked(np.random.default_rng(0), 1.0, 2)])[0], Repeated)


def test_pass_at_k() -> None:
    """Chen et al. 2021: 1 - C(n - c, k) / C(n, k); of 5 answers 2 right: 1 - 3/10 for k = 2."""
    assert pass_at(2, np.array([2.0, 0.0, 5.0]), 5) == pytest.approx([0.7, 0.0, 1.0])
    assert pass_at(1, np.array([2.0]), 5) == pytest.approx([0.4])


def test_majority_of_equally_common_answers_is_their_mean() -> None:
    table = np.array([[100.0, 0.0], [0.0, 0.0], [100.0, 100.0], [0.0, 100.0]])
    assert majority(table, [["a", "b", "a", "b"], ["x", "x", "y", "z"]]) == pytest.approx([50.0, 0.0])
    assert majority(np.array([[100.0], [0.0]]), [["a", "a"]]) is None


def test_components_of_variance() -> None:
    """Invented answers of known components: 9 between questions, 4 within, 1 of the judge."""
    rng = np.random.default_rng(0)
    n, answers, judgements = 20_000, 3, 2
    question = rng.normal(0, 3, n)
    answer = question + rng.normal(0, 2, (answers, n))
    table = (answer[:, None] + rng.normal(0, 1, (answers, judgements, n))).reshape(-1, n)
    found = variances(table, judgements)
    assert found is not None
    assert (found.between, found.within, found.judge) == pytest.approx((9, 4, 1), rel=0.05)
    assert found.se_judge == pytest.approx(np.sqrt(1 / (n * answers * judgements)), rel=0.05)


def test_the_leaderboard_reads_a_run_with_repeats(drawing: Any) -> None:
    pytest.importorskip("duckdb")
    from evalkit_leaderboard.records import Filter, table

    drawing.run("--repeats", "3", *DRAWN)
    found = table(Path(drawing.result["run"]))
    rows = found.fitting(Filter(score="accuracy", outcome="between"))
    assert len(found.fitting(Filter())) == 20 and len(rows) > 0
    sample = found.sample(int(rows[0]))
    assert len(sample.record.repeats) == 3 and 0 < sample.record.scores["accuracy"] < 1


def test_a_submission_holds_the_commonest_answer(drawing: Any, tmp_path: Path) -> None:
    from evalkit.pipeline.repeats import commonest

    drawing.run("--repeats", "3", *DRAWN)
    for record in load_run(drawing.result["run"]).records():
        assert record.prediction == record.repeats[commonest(record.repeats)].prediction
        said = [repeat.prediction for repeat in record.repeats]
        assert said.count(record.prediction) == max(map(said.count, said))


def test_an_older_drawn_run_is_compared_by_its_seed(drawing: Any) -> None:
    """Its signature lacks the seed, or calls it non-standard."""
    paths = []
    for flags in ((), ("--no-resume",)):
        drawing.run(*DRAWN, *flags)
        paths.append(Path(drawing.result["run"]))
    summary = json.loads((paths[0] / "summary.json").read_text())
    summary["signature"] = summary["signature"].replace("|seed:0", "")
    (paths[0] / "summary.json").write_text(json.dumps(summary))
    assert drawing.cli("compare", "--include", drawing.task, *paths, "--json") == 0
