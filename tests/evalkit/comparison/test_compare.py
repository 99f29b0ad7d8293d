"""`evalkit compare` from outside: verdicts, exit statuses, the JSON document, every format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_runs import Answers, General, Toy, junit_cases, outcomes, write_run

import evalkit
from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.comparison import Comparison
from evalkit.metrics.base import Accuracy, Metric

GOOD, WORSE = outcomes(0.9), outcomes(0.8)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Models good, same and worse."""
    write_run(tmp_path, "good", Answers(GOOD))
    write_run(tmp_path, "same", Answers(GOOD))
    write_run(tmp_path, "worse", Answers(WORSE))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    status = invoke([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    status, out, _ = call(capsys, "compare", *arguments, "--json")
    return status, json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def by_name(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["metric"]: entry for entry in content["metrics"]}


def test_identical_runs_give_no_difference_at_all(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, content = document(capsys, "good", "same", "-o", runs)
    assert status == 0 and content["verdict"] == "pass" and content["reasons"] == []
    for entry in content["metrics"]:
        assert entry["difference"] == 0.0 and entry["p"] == 1.0
        assert entry["verdict"] == "no_evidence" and entry["base"] == entry["new"]
    flips = content["flips"]["toy@test"]
    assert flips == {"right_to_wrong": [], "wrong_to_right": [], "by_tag": {}}
    assert by_name(content)["accuracy"]["detectable"] > 0


def test_the_document_has_the_promised_fields(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, content = document(capsys, "good", "worse", "-o", runs)
    assert status == 1
    assert {"verdict", "metrics", "flips", "reasons"} <= set(content)
    assert content["verdict"] == "regression"
    promised = {
        *("task", "metric", "base", "new", "difference", "ci95", "p"),
        *("p_adjusted", "verdict", "detectable", "n", "clusters"),
    }
    assert all(promised <= set(entry) for entry in content["metrics"])
    accuracy = by_name(content)["accuracy"]
    assert accuracy["task"] == "toy" and accuracy["n"] == 500 and accuracy["clusters"] == 100
    assert accuracy["verdict"] == "regressed" and accuracy["ci95"][1] < 0
    assert accuracy["difference"] == pytest.approx(100 * (WORSE.mean() - GOOD.mean()))
    assert accuracy["p"] <= accuracy["p_adjusted"] <= 0.05
    assert by_name(content)["rmse"]["verdict"] == "regressed", "an error that grows is a regression"
    assert "toy@test accuracy: significant drop" in content["reasons"]
    better = by_name(document(capsys, "worse", "good", "-o", runs)[1])
    assert better["accuracy"]["verdict"] == better["rmse"]["verdict"] == "improved"


def test_as_many_flips_are_shown_as_fit_and_the_rest_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in (5, 6):
        right = np.ones(60)
        write_run(tmp_path / str(count), "base", Answers(right.copy()))
        right[:count] = 0
        write_run(tmp_path / str(count), "new", Answers(right))
        _, text, _ = call(capsys, "compare", "base", "new", "-o", tmp_path / str(count))
        assert ("… and 1 more; --json has all" in text) == (count == 6)
        assert "\ns4 " in text and "\ns5 " not in text


def test_flips_have_ids_answers_and_targets(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, content = document(capsys, "good", "worse", "-o", runs)
    flips = content["flips"]["toy@test"]
    lost = np.flatnonzero((GOOD == 1) & (WORSE == 0))
    assert [flip["id"] for flip in flips["right_to_wrong"]] == [f"s{place}" for place in lost]
    first = flips["right_to_wrong"][0]
    assert first["base"] == first["target"] != first["new"] and first["metric"] == "accuracy"
    assert flips["wrong_to_right"] == []
    counted = flips["by_tag"]["kind"]
    assert counted["yes"]["right_to_wrong"] + counted["no"]["right_to_wrong"] == len(lost)
    rows = content["tasks"][0]["groups"]
    accuracy = [row for row in rows if row["metric"] == "accuracy"]
    assert {row["value"] for row in accuracy} == {"yes", "no"} and all(
        row["difference"] < 0 for row in accuracy
    )


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (["--max-drop", "accuracy=5"], 1),
        (["--max-drop", "accuracy=20"], 0),
        (["--max-drop", "toy:accuracy=5"], 1),
        (["--max-drop", "*=20"], 0),
        (["--margin", "accuracy=20"], 0),
        (["--margin", "accuracy=10.5"], 5),
        (["--margin", "accuracy=2"], 1),
        (["--margin", "accuracy=10.5", "--undecided", "pass"], 0),
        (["--margin", "accuracy=10.5", "--undecided", "fail"], 1),
        (["--margin", "accuracy=20", "--max-drop", "accuracy=5"], 1),
        (["--max-drop", "accuracy=20,rmse=0.0001"], 1),
        (["--alpha", "0.00001"], 1),
    ],
)
def test_thresholds(flags: list[str], status: int, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "compare", "good", "worse", "-o", runs, *flags)[0] == status


def test_a_margin_is_undecided_where_the_data_says_too_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "a", Answers(outcomes(0.8, 200, seed=1)))
    write_run(tmp_path, "b", Answers(outcomes(0.8, 200, seed=2)))
    status, content = document(capsys, "a", "b", "-o", tmp_path, "--margin", "accuracy=1.0")
    assert status == 5 and content["verdict"] == "undecided"
    assert by_name(content)["accuracy"]["verdict"] == "no_evidence"
    assert by_name(content)["accuracy"]["failure"] is None
    said = by_name(content)["accuracy"]["undecided"]
    assert said.startswith("not shown: a drop larger than 1 is not excluded; about ") and "clusters" in said
    assert not by_name(content)["rmse"]["judged"]
    assert document(capsys, "a", "b", "-o", tmp_path, "--margin", "accuracy=30")[0] == 0


def test_twenty_pairs_without_a_flip_show_no_margin_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("a", "b"):
        write_run(tmp_path, model, Answers(np.ones(20), per_cluster=1))
    status, content = document(capsys, "a", "b", "-o", tmp_path, "--margin", "accuracy=1")
    assert status == 5 and by_name(content)["accuracy"]["ci95"][0] < -10
    assert by_name(content)["accuracy"]["difference"] == 0.0
    assert document(capsys, "a", "b", "-o", tmp_path)[0] == 0


def test_one_cluster_is_undecided_and_says_what_would_decide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "a", Answers(np.ones(5)))
    write_run(tmp_path, "b", Answers(np.zeros(5)))
    for flags in ([], ["--max-drop", "accuracy=1"]):
        status, content = document(capsys, "a", "b", "-o", tmp_path, *flags)
        assert status == 5 and content["verdict"] == "undecided"
        assert any("one cluster" in reason for reason in content["reasons"])
    out = call(capsys, "compare", "a", "b", "-o", tmp_path)[1]
    assert out.rstrip().endswith("UNDECIDED: the data cannot tell")
    out = call(capsys, "compare", "a", "b", "-o", tmp_path, "--format", "markdown")[1]
    assert out.startswith("### ❔ evalkit: UNDECIDED")
    for stance, kind in (("fail", "error"), ("pass", "skipped")):
        flags = ["-o", tmp_path, "--format", "junit", "--undecided", stance]
        cases = junit_cases(call(capsys, "compare", "a", "b", *flags)[1])
        assert [mark.tag for mark in cases["decidable"]] == [kind]


def test_a_run_compared_with_itself_says_so(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, content = document(capsys, "good", "good", "-o", runs, "--margin", "accuracy=0.1")
    assert status == 0
    assert content["reasons"] == ["toy@test: the run is compared with itself: no difference is possible"]


def test_a_regression_shows_at_any_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1000 of 1000 right to 17 of 1000: resamples alone cannot go below their number."""
    left = np.zeros(1000)
    left[:17] = 1
    write_run(tmp_path, "perfect", Answers(np.ones(1000), per_cluster=1))
    write_run(tmp_path, "lost", Answers(left, per_cluster=1))
    status, content = document(capsys, "perfect", "lost", "-o", tmp_path, "--alpha", "1e-6")
    assert status == 1 and by_name(content)["accuracy"]["p"] < 1e-50


def test_thresholds_that_name_nothing_are_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flag, text in (
        (["--max-drop", "acuracy=1"], "--max-drop acuracy: no such metric here (nearest: accuracy"),
        (["--max-drop", "accuracy"], "write METRIC=NUMBER"),
        (["--margin", "accuracy=-1"], "a number of 0 or more"),
        (["--alpha", "2"], "between 0 and 1"),
    ):
        status, _, err = call(capsys, "compare", "good", "worse", "-o", runs, *flag)
        assert status == 2 and text in err and err.count("\n") <= 2


def test_errors_unparsed_and_truncated_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "whole", Answers(GOOD))
    gone = frozenset(f"s{place}" for place in range(0, 500, 10))
    write_run(tmp_path, "broken", Answers(GOOD, failed=gone))
    status, content = document(capsys, "whole", "broken", "-o", tmp_path)
    found = by_name(content)
    assert status == 1 and found["errors"]["verdict"] == "regressed" and found["errors"]["new"] == 10.0
    assert found["accuracy"]["verdict"] == "no_evidence" and found["accuracy"]["n"] == 450
    assert any("50 of 500 samples have no answer on one side" in reason for reason in content["reasons"])
    flags = {f"s{place}": ("truncated", "unparsed") for place in range(0, 500, 10)}
    write_run(tmp_path, "cut", Answers(GOOD, flagged=flags))
    found = by_name(document(capsys, "whole", "cut", "-o", tmp_path, "--max-drop", "accuracy=1")[1])
    assert found["truncated"]["verdict"] == found["unparsed"]["verdict"] == "regressed"
    assert found["truncated"]["failure"] == "significant drop" or found["truncated"]["failure"]


def test_speed_is_judged_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "fast", Answers(GOOD), seconds=1.0)
    write_run(tmp_path, "slow", Answers(GOOD), seconds=1.5)
    assert "seconds" not in by_name(document(capsys, "fast", "slow", "-o", tmp_path)[1])
    status, content = document(capsys, "fast", "slow", "-o", tmp_path, "--speed")
    assert status == 1 and by_name(content)["seconds"]["verdict"] == "regressed"
    assert by_name(content)["seconds"]["difference"] == pytest.approx(0.5)
    assert document(capsys, "fast", "slow", "-o", tmp_path, "--speed", "--max-drop", "seconds=1")[0] == 0
    assert document(capsys, "slow", "fast", "-o", tmp_path, "--speed")[0] == 0


def test_dependent_samples_are_told_where_mcnemar_disagrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two clusters of forty lost whole, one won: eighty flips, three pieces of evidence."""
    base, new = np.ones(4000), np.ones(4000)
    base[:40], new[40:120] = 0, 0
    write_run(tmp_path, "a", Answers(base, per_cluster=40))
    write_run(tmp_path, "b", Answers(new, per_cluster=40))
    status, content = document(capsys, "a", "b", "-o", tmp_path)
    entry = by_name(content)["accuracy"]
    assert status == 0 and entry["verdict"] == "no_evidence"
    assert entry["mcnemar"]["right_to_wrong"] == 80 and entry["mcnemar"]["p"] < 0.001
    assert "dependent within clusters" in entry["notes"][0]


def test_markdown_is_safe_and_folds(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "compare", "good", "worse", "-o", runs, "--format", "markdown")
    assert status == 1 and out.startswith("### ❌ evalkit: REGRESSION")
    assert "| accuracy (percent) |" in out and "<details><summary>" in out and "right to wrong" in out
    assert call(capsys, "compare", "good", "same", "-o", runs, "--format", "markdown")[1].startswith("### ✅")


def test_markdown_escapes_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = Answers(GOOD).records()
    bad = [
        evalkit.Record(
            r.id, r.cluster, "<script>| `x`\n# hi", "x", r.target, {"accuracy": 0.0, "error": 1.0}, r.tags
        )
        for r in base
    ]
    write_run(tmp_path, "a", Answers(GOOD))
    write_run(tmp_path, "b", Answers(GOOD), records=bad)
    out = call(capsys, "compare", "a", "b", "-o", tmp_path, "--format", "markdown")[1]
    assert "<script>" not in out and "&lt;script&gt;\\| \\`x\\`\\\\n\\# hi" in out


def test_junit_names_every_metric(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(
        capsys, "compare", "good", "worse", "-o", runs, "--format", "junit", "--max-drop", "accuracy=1"
    )
    cases = junit_cases(out)
    assert (
        status == 1
        and len(cases) == 5
        and sum(case.find("failure") is not None for case in cases.values()) == 1
    )
    assert cases["accuracy"].find("failure") is not None
    assert cases["rmse"].find("skipped") is not None and cases["errors"].find("failure") is None


def test_table_ends_with_the_verdict(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = call(capsys, "compare", "good", "worse", "-o", runs)[1]
    assert out.rstrip().splitlines()[-1] == "REGRESSION: 2 of the metrics judged fail"
    assert "500 pairs in 100 clusters" in out and "right to wrong" in out
    out = call(capsys, "compare", "good", "same", "-o", runs)[1]
    assert "no difference at all" in out and out.rstrip().endswith("PASS")


def test_forgetting_stands_beside_the_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, share, general in (("before", 0.6, 0.9), ("after", 0.8, 0.85)):
        write_run(tmp_path, model, Answers(outcomes(share)))
        write_run(tmp_path, model, Answers(outcomes(general, seed=1)), task=General())
    _, content = document(capsys, "before", "after", "-o", tmp_path)
    general, domain = content["forgetting"]
    assert (general["suite"], domain["suite"]) == ("general", "toys")
    assert general["change"] < 0 < domain["change"]
    assert general["ci95"][0] < general["change"] < general["ci95"][1]
    out = call(capsys, "compare", "before", "after", "-o", tmp_path)[1]
    assert "gained and forgotten" in out


def test_holm_counts_the_metrics_judged(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = by_name(document(capsys, "good", "worse", "-o", runs)[1])
    tested = [entry for entry in entries.values() if entry["p"] < 1]
    assert len(tested) == 2
    assert min(entry["p_adjusted"] for entry in tested) == pytest.approx(2 * min(e["p"] for e in tested))
    one = by_name(document(capsys, "good", "worse", "-o", runs, "--max-drop", "accuracy=1")[1])
    assert one["accuracy"]["p_adjusted"] == one["accuracy"]["p"]


def test_from_python(runs: Path) -> None:
    found = evalkit.compare("good", "worse", output=runs, max_drop={"accuracy": 50}, resamples=1000)
    assert isinstance(found, Comparison) and found.verdict == "pass" and found.exit_code == 0
    folders = sorted(runs.glob("*/*/*/manifest.json"))
    good, worse = folders[0].parent, folders[-1].parent
    assert evalkit.compare(evalkit.load_run(good), worse, resamples=1000).verdict == "regression"


def test_same_seed_same_document(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (document(capsys, "good", "worse", "-o", runs, "--seed", "5") for _ in range(2))
    assert first == second


def test_a_task_on_one_side_only_is_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(runs, "good", Answers(GOOD), task=General())
    status, content = document(capsys, "good", "same", "-o", runs)
    assert status == 0 and content["reasons"] == ["toy-general@test is only in good: not compared"]


def test_splits_of_a_task_are_kept_apart(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, answers in (("good", GOOD), ("worse", WORSE)):
        write_run(runs, model, Answers(answers), split="val")
    _, content = document(capsys, "good", "worse", "-o", runs, "--max-drop", "toy@val:accuracy=1")
    judged = [(entry["split"], entry["metric"]) for entry in content["metrics"] if entry["judged"]]
    assert ("val", "accuracy") in judged and ("test", "accuracy") not in judged


def test_what_cannot_be_computed_is_named_and_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = [
        evalkit.Record(r.id, r.cluster, r.text, r.prediction, r.target, {"accuracy": r.scores["accuracy"]})
        for r in Answers(GOOD).records()
    ]
    write_run(tmp_path, "a", Answers(GOOD))
    write_run(tmp_path, "b", Answers(GOOD), records=bare)
    status, content = document(capsys, "a", "b", "-o", tmp_path)
    entry = by_name(content)["rmse"]
    assert status == 0 and entry["new"] is None and entry["p"] is None and entry["ci95"] is None
    assert entry["notes"] == ["new: no answered sample of this kind"]
    status, content = document(capsys, "a", "b", "-o", tmp_path, "--margin", "rmse=1")
    assert status == 5 and by_name(content)["rmse"]["undecided"].startswith("cannot be judged")
    status, content = document(capsys, "a", "b", "-o", tmp_path, "--max-drop", "rmse=1")
    assert status == 5
    assert by_name(content)["rmse"]["undecided"] == "cannot be judged: new: no answered sample of this kind"


class Variant(Toy):
    """Accuracy with a variant that follows it."""

    def metrics(self) -> Sequence[Metric]:
        """Accuracy, and the same as a variant."""
        variant = Accuracy("accuracy.package", "accuracy")
        variant.variant = True
        return [*super().metrics(), variant]


def test_variants_are_shown_and_judged_only_by_name(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, plain = document(capsys, "good", "worse", "-o", runs)
    monkeypatch.setattr(registry, "_included", {"toy": Variant})
    same_status, content = document(capsys, "good", "worse", "-o", runs)
    assert same_status == status and content["reasons"] == plain["reasons"]
    found = by_name(content)
    variant = found.pop("accuracy.package")
    assert found == by_name(plain)  # Holm's family is the same
    assert not variant["judged"] and variant["failure"] is None and variant["verdict"] == "regressed"
    assert variant["difference"] == found["accuracy"]["difference"]
    ordered = sorted([variant["p"], found["accuracy"]["p"], found["rmse"]["p"]])
    assert variant["p_adjusted"] == pytest.approx(max(3 * ordered[0], 2 * ordered[1], ordered[2]))

    named = "accuracy.package=50"
    others = by_name(document(capsys, "good", "worse", "-o", runs, "--max-drop", "rmse=9")[1])
    assert not others["accuracy.package"]["judged"]
    found = by_name(document(capsys, "good", "worse", "-o", runs, "--max-drop", named)[1])
    assert found["accuracy.package"]["judged"] and not found["accuracy"]["judged"]
    pair = sorted([found["accuracy"]["p"], found["rmse"]["p"]])
    assert found["accuracy"]["p_adjusted"] == pytest.approx(max(2 * pair[0], pair[1]))
    status, _ = document(capsys, "good", "worse", "-o", runs, "--max-drop", "accuracy.package=1")
    assert status == 1
