"""`evalkit check` and `evalkit baseline`: run, compare, gate, in one command."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from stored_runs import Answers, outcomes, write_run

from evalkit.cli.main import invoke
from evalkit.comparison import baselines
from evalkit.comparison.policy import find, load
from evalkit.errors import NotComparableError, UsageError

GOOD, WORSE = outcomes(0.9, 200), outcomes(0.6, 200)

POLICY = """
baseline = "release"
tasks = ["toy"]

[max-drop]
accuracy = 1.0

[run]
data-root = "data"
"""


def predictions(folder: Path, name: str, right: np.ndarray) -> str:
    """A model of stored answers."""
    records = Answers(right).records()
    lines = [json.dumps({"id": record.id, "text": record.text}) for record in records]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return f"predictions:{folder / name}.jsonl"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, policy and a baseline of good answers."""
    (tmp_path / "data").mkdir()
    records = Answers(GOOD).records()
    (tmp_path / "data" / "toy.txt").write_text("\n".join(f"{r.id} {r.cluster} {r.target}" for r in records))
    (tmp_path / "evalkit.toml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    model = predictions(tmp_path, "good", GOOD)
    assert invoke(["run", "-m", model, "-t", "toy", "--data-root", "data", "-q"]) == 0
    assert invoke(["baseline", "set", "release", model]) == 0
    return tmp_path


def test_pass_and_fail_in_one_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same, worse = predictions(project, "same", GOOD), predictions(project, "worse", WORSE)
    capsys.readouterr()
    assert invoke(["check", "-m", same, "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "pass"
    assert invoke(["check", "-m", worse, "--json", "-q"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["verdict"] == "regression" and content["base"] == "release" and content["new"] == worse
    assert content["metrics"][0]["max_drop"] == 1.0
    assert invoke(["check", "-m", worse, "--format", "junit", "-q"]) == 1
    suite = ElementTree.fromstring(capsys.readouterr().out).find("testsuite")
    assert suite is not None and suite.get("failures") == "1"


def test_pyproject_holds_a_policy_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "evalkit.toml").unlink()
    worse = predictions(project, "worse", WORSE)
    assert invoke(["check", "-m", worse]) == 2
    assert "no policy: neither evalkit.toml nor [tool.evalkit]" in capsys.readouterr().err
    (project / "pyproject.toml").write_text(
        '[tool.evalkit]\nbaseline = "release"\ntasks = ["toy"]\n'
        'margin = {accuracy = 2}\nrun = {data_root = "data"}\n'
    )
    capsys.readouterr()
    assert invoke(["check", "-m", worse, "--json", "-q"]) == 1
    shown = json.loads(capsys.readouterr().out)["metrics"][0]["failure"]
    assert shown == "a drop larger than 2 is shown"


def test_a_policy_elsewhere_means_paths_beside_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    same = predictions(project, "same", GOOD)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert invoke(["check", "-m", same, "--policy", str(project / "evalkit.toml"), "-q"]) == 0


def test_a_baseline_without_the_task_fails_before_anything_runs(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "evalkit.toml").write_text(POLICY.replace('["toy"]', '["toy", "toy-general"]'))
    same = predictions(project, "same", GOOD)
    capsys.readouterr()
    assert invoke(["check", "-m", same, "--json"]) == 2
    captured = capsys.readouterr()
    assert "baseline release: has no run of toy-general@test" in captured.err
    assert json.loads(captured.out)["verdict"] == "not_comparable"
    assert not list(project.glob("runs/predictions--same*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("baseline = 'release'", "`baseline` and `tasks` must be given"),
        ("baselin = 'release'", "unknown key 'baselin' (nearest: baseline)"),
        ("baseline = 3\ntasks = ['toy']", "baseline must be a text"),
        ("baseline = 'b'\ntasks = 'toy'", "tasks must be a list of texts"),
        ("baseline = 'b'\ntasks = ['toy']\nmargin = {a = -1}", "a number of 0 or more"),
        ("baseline = 'b'\ntasks = ['toy']\nundecided = 'no'", "--undecided no: there are pass, fail"),
        ("baseline = 'b'\ntasks = ['toy']\nspeed = 1", "speed = 1: must be of type bool"),
        ("baseline = 'b'\ntasks = ['toy']\nrun = {limt = 3}", "unknown key 'limt' (nearest: limit"),
        ("baseline = 'b'\ntasks = ['toy']\nrun = {limit = 'x'}", "[run] limit = 'x': must be of type int"),
        ("baseline = ", "not TOML"),
    ],
)
def test_a_broken_policy_is_told_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "evalkit.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        load(find(tmp_path))
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_every_key_of_a_policy(tmp_path: Path) -> None:
    (tmp_path / "evalkit.toml").write_text(
        """
baseline = "b"
tasks = ["toy@val", "general"]
output = "out"
alpha = 0.01
speed = true
undecided = "pass"
allow = ["evalkit"]
[max_drop]
"toy:accuracy" = 0.5
[margin]
"rmse" = 1
[run]
split = "val"
limit = 10
gen = {temperature = 0.5}
compile = true
"""
    )
    policy = load(find(tmp_path))
    assert policy.output == tmp_path / "out" and policy.options.alpha == 0.01 and policy.options.speed
    assert policy.options.undecided == "pass"
    assert policy.options.largest_drops == {"toy:accuracy": 0.5} and policy.options.margins == {"rmse": 1.0}
    assert policy.options.allowed == ("evalkit",)
    assert policy.run == {"split": "val", "limit": 10, "gen": {"temperature": 0.5}, "compile": True}


def test_baselines_are_set_listed_shown_and_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "runs"
    path = write_run(output, "model", Answers(GOOD))
    assert invoke(["baseline", "list", "-o", str(output)]) == 0
    assert "no baselines" in capsys.readouterr().out
    assert invoke(["baseline", "set", "v1", str(path), "-o", str(output), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["runs"][0]["task"] == "toy" and shown["runs"][0]["run"] == str(path)
    signature = json.loads((path / "summary.json").read_text())["signature"]
    assert signature and shown["runs"][0]["signature"] == signature
    assert invoke(["baseline", "list", "-o", str(output), "--json"]) == 0
    assert [b["name"] for b in json.loads(capsys.readouterr().out)["baselines"]] == ["v1"]
    output.rename(tmp_path / "moved")
    assert baselines.load(tmp_path / "moved", "v1").paths() != {}
    assert invoke(["compare", "v1", "model", "-o", str(tmp_path / "moved")]) == 0
    assert invoke(["baseline", "show", "v2", "-o", str(tmp_path / "moved")]) == 2
    assert "no baseline 'v2'" in capsys.readouterr().err


def test_a_baseline_knows_when_its_run_is_gone_or_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(tmp_path, "model", Answers(GOOD))
    baselines.save(tmp_path, "v1", [path])
    summary = (path / "summary.json").read_text()
    (path / "summary.json").write_text(summary.replace("complete", "partial"))
    with pytest.raises(NotComparableError, match="changed since the baseline was set"):
        baselines.load(tmp_path, "v1").paths()
    (path / "summary.json").unlink()
    assert invoke(["compare", "v1", "model", "-o", str(tmp_path)]) == 2
    assert f"baseline v1: its run {path} (toy@test) is gone" in capsys.readouterr().err
    (tmp_path / "baselines" / "v1.json").write_text("{")
    assert invoke(["baseline", "show", "v1", "-o", str(tmp_path)]) == 2
    assert "set the baseline again" in capsys.readouterr().err


def test_what_cannot_be_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(tmp_path, "model", Answers(GOOD))
    other = write_run(tmp_path, "other", Answers(GOOD))
    unfinished = write_run(tmp_path, "unfinished", Answers(GOOD), summary=False)
    for arguments, message in (
        (["../up", str(path)], "a name is letters"),
        (["two", str(path), str(other)], "are both runs of toy@test"),
        (["open", str(unfinished)], "was broken off"),
    ):
        assert invoke(["baseline", "set", *arguments, "-o", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
    assert baselines.names(tmp_path) == []
