"""The workflows, the action and the gate of docs/gates.md, run as by a runner; lint checks their form."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOWS = [
    *sorted((REPOSITORY / ".github/workflows").glob("*.yml")),
    *sorted((REPOSITORY / "examples/gate").glob("*.yml")),
]
ACTION = REPOSITORY / "check/action.yml"


def test_no_script_holds_an_expression_that_a_stranger_can_write() -> None:
    """Titles, branch names and inputs reach a script by its environment, never by substitution."""
    wrong = []
    for path in (*WORKFLOWS, ACTION):
        for step in steps(yaml.safe_load(path.read_text(encoding="utf-8"))):
            wrong += [
                f"{path.name}: {found}"
                for found in re.findall(r"\$\{\{.*?\}\}", str(step.get("run", "")))
                if re.search(r"github\.(event|head_ref)|inputs\.", found)
            ]
    assert not wrong


def steps(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a workflow or a composite action."""
    parts = [content["runs"]] if "runs" in content else content["jobs"].values()
    return [step for part in parts for step in part.get("steps", ())]


def test_each_make_target_of_the_workflows_is_there() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for path in WORKFLOWS:
        for line in re.findall(r"\bmake ([a-z -]+)$", path.read_text(encoding="utf-8"), re.M):
            assert all(re.search(rf"^{name}:", makefile, re.M) for name in line.split()), line


class Runner:
    """Runs the scripts of a workflow in a user's repository, as GitHub's runner would."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        shims = folder / "bin"
        shims.mkdir()
        (shims / "evalkit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m evalkit "$@"\n')
        (shims / "pip").write_text("#!/bin/sh\nexit 0\n")
        (shims / "python").symlink_to(sys.executable)
        for name in ("evalkit", "pip"):
            (shims / name).chmod(0o755)
        self.variables = {
            **os.environ,
            "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "RUNNER_TEMP": str(self.temporary),
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        }

    def run(self, script: str, **variables: str) -> int:
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(command, cwd=self.work, env={**self.variables, **variables}).returncode

    def check(self, model: str) -> int:
        (step,) = (
            step
            for step in steps(yaml.safe_load(ACTION.read_text(encoding="utf-8")))
            if step.get("id") == "check"
        )
        inputs = {
            "MODEL": model,
            "CHECKPOINT": "",
            "POLICY": "evalkit.toml",
            "RUNS": "runs",
            "ARGUMENTS": "-q",
        }
        return self.run(step["run"], **inputs)

    def text(self, name: str) -> str:
        path = Path(self.variables[name])
        return path.read_text(encoding="utf-8") if path.exists() else ""


def answers(runner: Runner, name: str, right: bool) -> None:
    """Stored answers to ChartQA's miniature stand for a checkpoint."""
    lines = (runner.work / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    truths = json.loads((runner.work / "truths.json").read_text(encoding="utf-8"))
    found = [json.loads(line)["id"] for line in lines]
    made = [json.dumps({"id": name_, "text": truths[name_] if right else "no idea"}) for name_ in found]
    (runner.work / f"{name}.jsonl").write_text("\n".join(made), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the shims are shell scripts")
def test_the_gate_makes_a_baseline_and_stops_a_regression(tmp_path: Path) -> None:
    """Baseline, then the action on two candidates: one as good, one without a right answer."""
    from evalkit import registry
    from evalkit.data.locate import locate

    runner = Runner(tmp_path)
    assert runner.run("evalkit export questions chartqa --split miniature -o questions.jsonl") == 0
    task = registry.task("chartqa")
    root = locate(task, "miniature", None)
    truths = {
        s.id: s.target if isinstance(s.target, str) else str(s.target[0])
        for s in task.samples("miniature", root)
    }
    (runner.work / "truths.json").write_text(json.dumps(truths))
    for name, right in (("main", True), ("same", True), ("worse", False)):
        answers(runner, name, right)
    policy = (REPOSITORY / "examples/gate/evalkit.toml").read_text(encoding="utf-8")
    policy = policy.replace('"chartqa", "drivelm@sample"', '"chartqa@miniature"')
    policy = re.sub(
        r"\[margin\].*?\[run\]", '[max_drop]\n"chartqa:average" = 5.0\n\n[run]', policy, flags=re.S
    )
    (runner.work / "evalkit.toml").write_text(policy.replace('"/data"', f'"{tmp_path}"'))
    (runner.work / "model.txt").write_text("predictions:main.jsonl\n")
    workflow = yaml.safe_load((REPOSITORY / "examples/gate/baseline.yml").read_text(encoding="utf-8"))

    assert runner.check("predictions:same.jsonl") == 2  # no baseline yet
    assert "could not compare (status 2)" in runner.text("GITHUB_STEP_SUMMARY")
    for step in steps(workflow):
        if "run" in step:
            assert runner.run(step["run"]) == 0
    assert (runner.work / "runs/baselines/main.json").is_file()

    assert runner.check("predictions:same.jsonl") == 0
    assert runner.check("predictions:worse.jsonl") == 1
    assert runner.text("GITHUB_OUTPUT").splitlines()[-1] == "status=1"
    assert "chartqa" in runner.text("GITHUB_STEP_SUMMARY")
    assert "<testsuite" in (runner.temporary / "evalkit-check.xml").read_text(encoding="utf-8")
