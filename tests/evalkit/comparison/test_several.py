"""`evalkit compare` with several runs: the best of them, recipes, and each against the base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_runs import Answers, Toy, junit_cases, write_run

import evalkit
from evalkit.comparison import runs as reading
from evalkit.comparison.best_of import best_of_json, compare_best_of
from evalkit.comparison.history import find_series, history
from evalkit.comparison.recipes import compare_recipes, expand
from evalkit.errors import UsageError


def nearly(base: np.ndarray, rng: np.random.Generator, gain: float = 0.0, churn: float = 0.06) -> np.ndarray:
    """Outcomes of a run that flips a share of the base's answers each way, and wins `gain` more."""
    draws = rng.random(len(base))
    share = base.mean()
    return np.where(base == 1, draws >= churn / share, draws < (churn + gain) / (1 - share)).astype(float)


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run a command; returns its status and both streams."""
    from evalkit import registry
    from evalkit.cli.main import invoke

    monkeypatch.setattr(registry, "task", lambda name, protocol=None: Toy(protocol))

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = invoke([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def checkpoints(tmp_path: Path) -> Callable[..., tuple[Path, list[Path]]]:
    """A base and runs with these gains over it."""

    def make(*gains: float, n: int = 300, model: str = "step") -> tuple[Path, list[Path]]:
        rng = np.random.default_rng(1)
        base = (rng.random(n) < 0.7).astype(float)
        first = write_run(tmp_path, "base", Answers(base, per_cluster=1))
        runs = [
            write_run(tmp_path, f"{model}-{place}", Answers(nearly(base, rng, gain), per_cluster=1))
            for place, gain in enumerate(gains)
        ]
        return first, runs

    return make


def test_luck_alone_makes_no_best_checkpoint(cli: Any, checkpoints: Any) -> None:
    base, runs = checkpoints(*[0.0] * 10)
    status, out, _ = cli("compare", base, *runs, "--best-of", "--json")
    found = json.loads(out)
    assert status == 0 and found["verdict"] == "pass"
    (best,) = found["best_of"]
    assert best["verdict"] == "no_evidence" and best["runs"] == 10
    assert 1.0 < best["luck"] < 4.0 and best["gain"] > 0
    assert abs(best["expected_gain"]) < best["gain"]
    assert len(found["metrics"]) == 10 and sum(row["best"] for row in found["metrics"]) == 1
    for row in found["metrics"]:
        assert row["ci95"][0] <= 0 <= row["ci95"][1] and row["p_adjusted"] >= row["p"]
    _, text, _ = cli("compare", base, *runs, "--best-of")
    assert f"the best of 10 equal checkpoints shows +{best['luck']:.2f} by luck alone at this size" in text


def test_a_checkpoint_that_is_better_is_found(cli: Any, checkpoints: Any) -> None:
    base, runs = checkpoints(0.0, 0.13, 0.0, -0.02)
    status, out, _ = cli("compare", base, *runs, "--best-of", "--json")
    (best,) = json.loads(out)["best_of"]
    assert status == 0 and best["run"] == str(runs[1]) and best["verdict"] == "improved"
    assert 0 < best["expected_gain"] <= best["gain"] < best["expected_gain"] + 2


def test_the_best_of_worse_ones_is_a_regression(cli: Any, checkpoints: Any) -> None:
    base, runs = checkpoints(*[-0.05] * 3, n=1000)
    status, out, _ = cli("compare", base, *runs, "--best-of", "--json", "--max-drop", "accuracy=0.5")
    assert status == 1 and json.loads(out)["verdict"] == "regression"
    status, out, _ = cli("compare", base, *runs, "--best-of", "--margin", "accuracy=5")
    assert status == 5 and "not shown" in out
    status, *_ = cli("compare", base, *runs, "--best-of", "--margin", "accuracy=20")
    assert status == 0


def test_a_threshold_of_another_metric_is_refused(cli: Any, checkpoints: Any) -> None:
    base, runs = checkpoints(0.0, 0.0)
    status, _, err = cli("compare", base, *runs, "--best-of", "--max-drop", "rmse=1")
    assert status == 2 and "no such metric here" in err
    status, out, _ = cli("compare", base, *runs, "--best-of", "--metric", "rmse", "--json")
    assert status == 0 and {row["metric"] for row in json.loads(out)["metrics"]} == {"rmse"}
    assert cli("compare", base, *runs, "--best-of", "--metric", "nothing")[0] == 2
    assert cli("compare", base, runs[0], "--best-of")[0] == 2
    assert cli("compare", base, runs[0], runs[0], "--best-of")[0] == 2


def test_of_an_error_the_smallest_is_best(checkpoints: Any, cli: Any) -> None:
    base, runs = checkpoints(0.0, 0.1, 0.0)
    _, out, _ = cli("compare", base, *runs, "--best-of", "--metric", "rmse", "--json")
    (best,) = json.loads(out)["best_of"]
    assert best["run"] == str(runs[1]) and best["gain"] > 0 and best["luck"] > 0


def test_every_run_is_read_once(cli: Any, checkpoints: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base, runs = checkpoints(0.0, 0.0, 0.0)
    read: list[Path] = []
    load = reading.load_run
    monkeypatch.setattr(reading, "load_run", lambda path: (read.append(Path(path)), load(path))[1])
    cli("compare", base, *runs, "--best-of")
    assert sorted(read) == sorted([base, *runs])
    read.clear()
    assert cli("compare", base, *runs)[0] == 0
    assert sorted(read) == sorted([base, *runs])


def test_several_runs_are_each_compared_with_the_base(cli: Any, checkpoints: Any) -> None:
    base, runs = checkpoints(0.0, -0.12)
    status, out, _ = cli("compare", base, *runs, "--json")
    found = json.loads(out)
    assert status == 1 and found["verdict"] == "regression"
    assert found["verdicts"] == {str(runs[0]): "pass", str(runs[1]): "regression"}
    assert {row["name"] for row in found["metrics"]} == set(map(str, runs))
    assert "--best-of" in found["reasons"][-1]
    _, text, _ = cli("compare", base, *runs)
    assert "REGRESSION" in text and "PASS" in text


@pytest.mark.parametrize("style", ["markdown", "junit"])
def test_other_formats(cli: Any, checkpoints: Any, style: str) -> None:
    base, runs = checkpoints(0.0, -0.12)
    for more in ((*runs, "--best-of"), runs, ("--new-runs", ",".join(map(str, runs)))):
        _, out, _ = cli("compare", base, *more, "--format", style)
        if style == "junit":
            assert junit_cases(out)
        else:
            assert "accuracy" in out


@pytest.mark.parametrize(
    ("best_gain", "others", "verdict"),
    [(0.14, 0.0, "improved"), (0.04, 0.0, "no_evidence"), (-0.2, -0.4, "regressed")],
)
def test_history_marks_its_best_checkpoint(
    tmp_path: Path, cli: Any, best_gain: float, others: float, verdict: str
) -> None:
    rng = np.random.default_rng(1)
    base = (rng.random(300) < 0.7).astype(float)
    for place, gain in enumerate((0.0, others, best_gain, others)):
        outcomes = nearly(base, rng, gain) if gain >= 0 else np.where(rng.random(300) < -gain, 0.0, base)
        answers = Answers(outcomes if place else base, per_cluster=1)
        checkpoint = f"checkpoint-{place}"
        write_run(
            tmp_path, "tuned", answers, checkpoint=checkpoint, fingerprint=checkpoint,
            created=f"2026-01-0{place + 1}T00:00:00+00:00",
        )  # fmt: skip
    found = history(find_series(["tuned"], "toy", None, tmp_path))
    best = found.best_json()
    assert best is not None and best["checkpoint"] == "checkpoint-2" and best["verdict"] == verdict
    assert best["p_adjusted"] >= (found.points[2].change.p if found.points[2].change else 1)
    assert np.sign(best["gain"]) == np.sign(best_gain) and best["luck"] > 0
    _, text, _ = cli("history", "-m", "tuned", "-t", "toy", "-o", tmp_path)
    assert f"best checkpoint: checkpoint-2, {verdict.replace('_', ' ')}" in text and "by luck alone" in text


# Recipes --------------------------------------------------------------------------------------------------


@pytest.fixture
def seeds(tmp_path: Path) -> Callable[..., None]:
    """Runs `NAME-seed0` ... of a recipe whose runs have these gains over a common ground."""

    def make(name: str, gains: list[float], n: int = 800) -> None:
        base = (np.random.default_rng(0).random(n) < 0.7).astype(float)
        rng = np.random.default_rng([len(name), ord(name[0])])
        for place, gain in enumerate(gains):
            write_run(tmp_path, f"{name}-seed{place}", Answers(nearly(base, rng, gain), per_cluster=2))

    return make


@pytest.mark.parametrize(
    ("gains", "recipe"),
    [
        ([0.10, 0.11, 0.09, 0.10], "better"),
        ([0.16, 0.0, 0.17, 0.01], "only_these_runs"),
        ([0.0, 0.005, 0.0, -0.005], "no_evidence"),
        ([-0.09, -0.10, -0.11, -0.10], "worse"),
    ],
)
def test_a_recipe_is_told_from_its_checkpoints(
    cli: Any, seeds: Any, tmp_path: Path, gains: list[float], recipe: str
) -> None:
    seeds("old", [0.0, 0.005, -0.005, 0.0])
    seeds("new", gains)
    status, out, _ = cli("compare", "old-seed*", "new-seed*", "-o", tmp_path, "--json")
    found = json.loads(out)
    (row,) = [row for row in found["metrics"] if row["metric"] == "accuracy"]
    assert row["recipe"] == recipe
    assert len(row["base_runs"]) == len(row["new_runs"]) == 4
    assert row["variance"]["samples"] > 0
    assert status == (1 if recipe == "worse" else 0)
    if recipe == "only_these_runs":
        assert row["verdict"] == "no_evidence" and row["variance"]["seeds_new"] > row["variance"]["samples"]
        assert any("other training seeds may not" in reason for reason in found["reasons"])


def test_ways_to_name_the_runs_of_a_recipe(cli: Any, seeds: Any, tmp_path: Path) -> None:
    seeds("old", [0.0, 0.0])
    seeds("new", [0.0, 0.0])
    out = ("-o", tmp_path, "--json")
    flags = cli("compare", "--base-runs", "old-seed*", "--new-runs", "new-seed0,new-seed1", *out)
    repeated = cli(
        "compare", "--base-runs", "old-seed0", "--base-runs", "old-seed1", "--new-runs", "new-seed*", *out
    )
    paths = cli("compare", f"{tmp_path}/old-seed*", f"{tmp_path}/new-seed*", *out)
    assert flags[0] == repeated[0] == paths[0] == 0
    assert json.loads(flags[1])["metrics"] == json.loads(repeated[1])["metrics"]
    one = cli("compare", "old-seed0", "--new-runs", "new-seed*", *out)
    assert one[0] == 0 and len(json.loads(one[1])["metrics"][0]["base_runs"]) == 1
    _, text, _ = cli("compare", "old-seed*", "new-seed*", "-o", tmp_path)
    assert "sd of seeds" in text and "2 runs: old-seed0, old-seed1" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--base-runs", "old-seed*"), "both sides"),
        (("--base-runs", "old-seed0", "--new-runs", "new-seed0"), "several runs on at least one side"),
        (("--base-runs", "old-seed*", "--new-runs", "none*"), "no run folder and no model"),
        (("--base-runs", "old-seed*", "--new-runs", "old-seed0"), "is given twice"),
        (("--base-runs", "old-seed*", "--new-runs", "new-seed*", "old-seed0"), "name each side once"),
        (("old-seed*", "new-seed*", "--best-of"), "choose among single runs"),
        (("old-seed0",), "write evalkit compare BASE NEW"),
        (("old-seed0", "new-seed0", "--metric", "accuracy"), "--metric"),
    ],
)
def test_what_is_refused(cli: Any, seeds: Any, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    seeds("old", [0.0, 0.0])
    seeds("new", [0.0, 0.0])
    status, _, err = cli("compare", *arguments, "-o", tmp_path)
    assert status == 2 and said in err


def test_gates_of_a_recipe(seeds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any) -> None:
    seeds("old", [0.0, 0.0, 0.0])
    seeds("new", [-0.05, -0.04, -0.05])
    from evalkit.comparison.verdicts import Thresholds

    sides = expand(["old-seed*"], tmp_path, "--base-runs"), expand(["new-seed*"], tmp_path, "--new-runs")

    def verdict(**limits: dict[str, float]) -> str:
        return compare_recipes(*sides, thresholds=Thresholds(**limits), resamples=1000).verdict

    assert verdict(max_drop={"accuracy": 1.0}) == "regression"
    assert verdict(max_drop={"accuracy": 15.0}) == "pass"
    assert verdict(margin={"accuracy": 30.0}) == "pass"
    assert verdict(margin={"accuracy": 5.0}) == "undecided"
    assert verdict(margin={"accuracy": 0.5}) in ("regression", "undecided")
    with pytest.raises(UsageError, match="no such metric"):
        verdict(margin={"nothing": 1.0})


def test_one_cluster_cannot_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any) -> None:
    rng = np.random.default_rng(0)
    paths = [
        write_run(tmp_path, f"m{place}", Answers((rng.random(40) < 0.7).astype(float), per_cluster=40))
        for place in range(4)
    ]
    status, out, _ = cli("compare", *paths, "--best-of", "--json")
    assert status == 5 and json.loads(out)["best_of"][0]["luck"] is None
    status, out, _ = cli(
        "compare", paths[0], "--new-runs", f"{paths[1]},{paths[2]}", "--margin", "accuracy=5"
    )
    assert status == 5 and "cannot be judged" in out


def test_from_python(checkpoints: Any, cli: Any) -> None:
    base, runs = checkpoints(0.0, 0.0)
    from evalkit.comparison.runs import Key

    key = Key("toy", "test")
    found = compare_best_of(
        {key: base}, [{key: path} for path in runs], names=("b", ["x", "y"]), resamples=500
    )
    assert found.tasks[0].best in ("x", "y") and found.verdict == "pass"


def test_python_compares_several_runs(checkpoints: Any, tmp_path: Path) -> None:
    base, runs = checkpoints(0.0, 0.13, -0.3)
    settings = {"output": tmp_path, "resamples": 500}
    best = evalkit.compare(base, *runs, best_of=True, **settings)
    assert best.verdict == "pass" and best.tasks[0].best == str(runs[1])
    for listed in (
        evalkit.compare(base, runs, best_of=True, **settings),
        evalkit.compare(base, new=runs, best_of=True, **settings),
    ):
        assert best_of_json(listed) == best_of_json(best)
    assert evalkit.compare("base", "step-*", best_of=True, **settings).tasks[0].best == "step-1"
    loaded = [evalkit.load_run(run) for run in (base, *runs)]
    many = evalkit.compare(*loaded, **settings)
    assert [each.verdict for each in many.each] == ["pass", "pass", "regression"]
    recipes = evalkit.compare(base_runs=[base], new_runs=runs, **settings)
    assert recipes.new == tuple(map(str, runs))
    with pytest.raises(UsageError, match="--metric"):
        evalkit.compare(base, runs[0], metric="accuracy")
    with pytest.raises(UsageError, match="BASE NEW"):
        evalkit.compare(base)
    with pytest.raises(TypeError, match="best"):
        evalkit.compare(base, *runs, best=True)


def test_what_would_decide_between_several_is_said(cli: Any, checkpoints: Any, tmp_path: Path) -> None:
    base, runs = checkpoints(0.0, 0.0)
    status, out, _ = cli("compare", base, *runs, "--best-of", "--margin", "accuracy=0.5")
    assert status == 5 and "samples" in out.splitlines()[-2] and "show it where nothing is lost" in out
    status, _, err = cli("compare", base, base, *runs, "--best-of")
    assert status == 2 and "this is BASE itself: leave it out" in err
    one = [write_run(tmp_path, name, Answers(np.ones(20), per_cluster=20)) for name in ("x", "y", "z")]
    status, out, _ = cli("compare", *one, "--best-of")
    assert status == 5 and "in 1 cluster " in out and "better 30, decide it" in out
    status, out, _ = cli("compare", *one[:2])
    assert status == 5 and "better 30, decide it" in out
