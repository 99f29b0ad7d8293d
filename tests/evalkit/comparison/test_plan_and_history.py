"""`evalkit plan` and `evalkit history`."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stored_runs import Answers, outcomes, write_run

from evalkit.cli.main import invoke
from evalkit.comparison.history import usual_metric


def test_plan_from_two_runs_is_kept_by_a_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The change that a run of this size can show needs the clusters that it has."""
    one = write_run(tmp_path, "a", Answers(outcomes(0.8, 600, seed=1)))
    two = write_run(tmp_path, "b", Answers(outcomes(0.8, 600, seed=2)))
    arguments = ["plan", "-t", "toy", "--run", str(one), "--run", str(two), "--metric", "accuracy", "--json"]
    assert invoke([*arguments, "--detect", "1.0"]) == 0
    (metric,) = json.loads(capsys.readouterr().out)["metrics"]
    assert metric["clusters"] > 120 and metric["samples"] == 5 * metric["clusters"]
    now = metric["stored"]["detectable"]
    assert invoke([*arguments, "--detect", str(now)]) == 0
    (again,) = json.loads(capsys.readouterr().out)["metrics"]
    assert again["clusters"] == pytest.approx(120, abs=1) and again["detect"] == now
    # by hand: 120 clusters of 5, (t_0.975 + t_0.8) standard errors of the mean of their mean differences
    change = (outcomes(0.8, 600, seed=2) - outcomes(0.8, 600, seed=1)).reshape(120, 5).mean(axis=1)
    error = 100 * change.std(ddof=1) / math.sqrt(120)
    # the drop itself changes answers: now (100 - now) / n more variance, n counted as independent samples
    alone = 100 * (outcomes(0.8, 600, seed=2) - outcomes(0.8, 600, seed=1)).std() / math.sqrt(600)
    more = now * (100 - now) / 600 * max(1.0, (error / alone) ** 2)
    assert now == pytest.approx((1.9801 + 0.8448) * math.sqrt(error**2 + more), rel=0.01)


def test_plan_takes_the_latest_complete_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A later run of a part of the split says nothing of the whole one's variance."""
    write_run(tmp_path, "a", Answers(outcomes(0.8, 600, seed=1)))
    write_run(tmp_path, "z", Answers(outcomes(0.8, 40, seed=2)), limited=True)
    run = next(tmp_path.glob("z/toy@test/2*"))
    run.rename(run.with_name("29991231-235959-ffffff"))
    assert invoke(["plan", "-t", "toy", "-o", str(tmp_path), "--detect", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    stored = {m["metric"]: m["stored"] for m in document["metrics"]}
    assert (stored["accuracy"]["clusters"], stored["accuracy"]["samples"]) == (120, 600)


def test_plan_from_one_run_and_what_is_assumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "a", Answers(outcomes(0.8, 600, seed=1)))
    plans = []
    for correlation in ("0", "0.5"):
        arguments = ["plan", "--task", "toy", "--detect", "2", "-o", str(tmp_path), "--json"]
        arguments += ["--metric", "accuracy"]
        assert invoke([*arguments, "--correlation", correlation]) == 0
        plans.append({m["metric"]: m for m in json.loads(capsys.readouterr().out)["metrics"]})
    assert plans[0]["accuracy"]["clusters"] == pytest.approx(2 * plans[1]["accuracy"]["clusters"], rel=0.02)
    # 80% right in independent samples: n = 2 p (1 - p) (1.96 + 0.84)^2 / 0.02^2
    assert plans[0]["accuracy"]["samples"] == pytest.approx(2 * 0.16 * 2.8**2 / 0.02**2, rel=0.2)
    assert invoke(["plan", "-t", "toy", "--detect", "2", "-o", str(tmp_path)]) == 0
    assert "answers of two models assumed to correlate by 0" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--detect", "--margin"])
def test_plan_takes_a_metrics_own_unit_as_compare_does(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_run(tmp_path, "a", Answers(outcomes(0.8, 600, seed=1)))
    two = write_run(tmp_path, "b", Answers(outcomes(0.8, 600, seed=2)))
    given = ["plan", "-t", "toy", "--run", str(one), "--json"]
    found = []
    for arguments in ([flag, "accuracy=2"], [flag, "2", "--metric", "accuracy"]):
        assert invoke([*given, *arguments]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["metrics"] == found[1]["metrics"] and found[0][flag[2:]] == {"accuracy": 2}
    assert invoke([*given, flag, "accuracy=2,rmse=0.5"]) == 0
    changes = {m["metric"]: m["detect"] for m in json.loads(capsys.readouterr().out)["metrics"]}
    assert changes == {"accuracy": 2, "rmse": 0.5}
    assert invoke([*given[:-1], flag, "accuracy=2"]) == 0
    (heading,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("metric "))
    assert re.split(r"\s{2,}", heading)[1] == {"--detect": "to detect", "--margin": "margin"}[flag]
    for wrong, said in (
        ("acuracy=2", f"{flag} acuracy: no such metric (nearest: accuracy)"),
        ("accuracy=x", "write a number"),
        ("x", "write a number"),
    ):
        assert invoke([*given, flag, wrong]) == 2
        assert said in capsys.readouterr().err
    kept = ["compare", str(one), str(two), "--margin", "accuracy=2", "--json"]
    assert invoke(kept) in (0, 1, 5)  # the same words are a threshold of a comparison


def test_plan_says_what_it_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(tmp_path, "a", Answers(np.ones(50)))
    assert invoke(["plan", "-t", "toy", "--detect", "1", "--run", str(path), "--json"]) == 0
    metrics = {m["metric"]: m for m in json.loads(capsys.readouterr().out)["metrics"]}
    assert metrics["accuracy"]["clusters"] is None and "no variance" in metrics["accuracy"]["reason"]
    assert invoke(["plan", "-t", "toy", "--detect", "200", "--run", str(path), "--json"]) == 0
    metrics = {m["metric"]: m for m in json.loads(capsys.readouterr().out)["metrics"]}
    assert metrics["accuracy"]["samples"] is None
    for arguments, message in (
        (["--detect", "0"], "larger than 0"),
        (["--detect", "1", "--metric", "bleu"], "toy has accuracy, rmse"),
        (["--detect", "1", "--power", "1"], "between 0 and 1"),
        (["--detect", "1", "--correlation", "1"], "less than 1"),
    ):
        assert invoke(["plan", "-t", "toy", "--run", str(path), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert invoke(["plan", "-t", "toy", "--detect", "1", "-o", str(tmp_path / "none")]) == 2
    assert "no complete run of toy" in capsys.readouterr().err
    assert invoke(["plan", "-t", "toy-general", "--detect", "1", "--run", str(path)]) == 2
    assert "a run of toy@test, not of toy-general" in capsys.readouterr().err


def checkpoint(output: Path, step: int, share: float, **settings: object) -> Path:
    """A run of the weights after so many steps."""
    return write_run(
        output,
        "tuned",
        Answers(outcomes(share, 1000)),
        fingerprint=f"f{step}",
        checkpoint=f"work/step-{step}",
        created=f"2026-01-01T00:{step // 100:02d}:00+00:00",
        **settings,  # type: ignore[arg-type]
    )


def test_history_finds_the_trend_and_the_first_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step, share in ((100, 0.70), (200, 0.703), (300, 0.76), (400, 0.80)):
        checkpoint(tmp_path, step, share)
    checkpoint(tmp_path, 400, 0.80)
    assert invoke(["history", "--model", "tuned", "--task", "toy", "-o", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["checkpoint"] for point in found["points"]] == [f"step-{s}00" for s in (1, 2, 3, 4)]
    assert found["first_significant_change"] == "step-300"
    assert [point["significant"] for point in found["points"]] == [False, False, True, True]
    assert found["trend"]["per"] == "step"
    values = [point["value"] for point in found["points"]]
    assert found["trend"]["slope"] == pytest.approx(np.polyfit([100, 200, 300, 400], values, 1)[0])
    assert 0 < found["trend"]["ci95"][0] < found["trend"]["slope"] < found["trend"]["ci95"][1]
    assert invoke(["history", "-m", "tun*", "-t", "toy", "-o", str(tmp_path), "--metric", "rmse"]) == 0
    out = capsys.readouterr().out
    assert "first significant change: step-300" in out and "trend: -" in out and "a step" in out


def test_history_is_in_the_order_of_steps_however_runs_were_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (30, 10, 20):  # all made within the same minute
        checkpoint(tmp_path, step, 0.7)
    assert invoke(["history", "-m", "tuned", "-t", "toy", "-o", str(tmp_path), "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert [point["checkpoint"] for point in points] == ["step-10", "step-20", "step-30"]


def test_history_of_checkpoints_that_do_not_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (100, 200, 300):
        checkpoint(tmp_path, step, 0.7)
    assert invoke(["history", "-m", "tuned", "-t", "toy", "-o", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first_significant_change"] is None and found["trend"]["slope"] == 0.0


def test_history_follows_the_first_metric_that_all_runs_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step, share in ((100, 0.6), (200, 0.8)):
        records = Answers(outcomes(share, 1000)).records()
        if step == 200:  # the headline cannot be computed
            records = [replace(record, scores={"error": record.scores["error"]}) for record in records]
        checkpoint(tmp_path, step, share, records=records)
    series = ["history", "-m", "tuned", "-t", "toy", "-o", str(tmp_path)]
    assert invoke([*series, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metric"] == "rmse" and all(point["value"] is not None for point in found["points"])
    assert found["stands_in_for"]["metric"] == "accuracy"
    assert "no value in 1 of 2 runs" in found["stands_in_for"]["reason"]
    assert invoke(series) == 0
    assert "rmse replaces accuracy, the headline metric: no value in 1 of 2" in capsys.readouterr().out
    assert invoke([*series, "--metric", "accuracy", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metric"] == "accuracy" and found["stands_in_for"] is None
    assert found["points"][1]["value"] is None and found["points"][1]["reason"]


def test_usual_metric_where_no_metric_is_in_all_runs() -> None:
    assert usual_metric(["a", "b", "c"], "b", lambda name: name == "c") == "c"
    assert usual_metric(["a", "b", "c"], "b", lambda name: True) == "b"
    assert usual_metric(["a", "b", "c"], "b", lambda name: False) == "b"
    assert usual_metric(["a", "b"], "", lambda name: True) == "a"


def test_history_leaves_out_what_is_not_comparable_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path, 100, 0.7)
    checkpoint(tmp_path, 200, 0.7, fields={"tiles": "6"})
    assert invoke(["history", "-m", "tuned", "-t", "toy", "-o", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["points"]) == 1 and "tiles (12 | 6) differs" in found["left_out"][0]
    assert found["trend"] is None
    assert invoke(["history", "-m", "tuned", "-t", "toy", "-o", str(tmp_path), "--allow", "tiles"]) == 0
    assert "step-200" in capsys.readouterr().out


def test_history_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(tmp_path, 100, 0.7)
    checkpoint(tmp_path, 200, 0.7, split="val")
    for arguments, message in (
        (["-m", "tunned", "-t", "toy"], "(nearest: tuned)"),
        (["-m", "tuned", "-t", "toy-general"], "no complete run of toy-general"),
        (["-m", "tuned", "-t", "toy"], "choose one with --split (test, val)"),
        (["-m", "tuned", "-t", "toy@test", "--metric", "x"], "toy has accuracy, rmse"),
    ):
        assert invoke(["history", *arguments, "-o", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
