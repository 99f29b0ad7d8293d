"""Completion in shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from stored_runs import Answers, outcomes, write_run

from evalkit.cli.main import COMPLETION, invoke

SHELLS = ("bash", "zsh", "fish")


def offered(words: str, cwd: Path | None = None) -> list[str]:
    """What the command offers for the last word, as bash would ask it."""
    typed = words.split(" ")
    environment = {
        **os.environ,
        COMPLETION: "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(typed) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "evalkit"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_and_flags() -> None:
    assert offered("evalkit comp") == ["compare", "completion"]
    assert {"--judge", "--judge-model", "--judge-gen"} <= set(offered("evalkit run --jud"))


def test_tasks_suites_and_splits() -> None:
    assert offered("evalkit run -t dri") == ["drivelm", "driving"]
    assert offered("evalkit run -t chartqa,docv") == ["chartqa,docvqa"]
    assert "drivelm@miniature" in offered("evalkit run -t drivelm@")
    assert offered("evalkit data where mmb") == ["mmbench"]
    assert offered("evalkit plan -t mmb") == ["mmbench"]


def test_models() -> None:
    assert "mini-internvl-tiny" in offered("evalkit run -m mini-internvl-t")
    assert offered("evalkit run -m open") == ["openai:"]
    assert offered("evalkit check -m pred") == ["predictions:"]


def test_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "m", Answers(outcomes(0.5)))
    where = str(Path(run).relative_to(tmp_path))
    assert offered("evalkit show ru", tmp_path) == [where]
    assert where in offered("evalkit compare ", tmp_path)
    assert Path(run).parent.parent.name in offered("evalkit compare ", tmp_path)


def test_recipes() -> None:
    assert "drivelm-2b" in offered("evalkit train drivelm")


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_its_script(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert invoke(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"{COMPLETION}={shell}_complete" in script and "evalkit" in script
    if program := shutil.which(shell):
        path = tmp_path / "script"
        path.write_text(script)
        check = subprocess.run([program, "-n", str(path)], capture_output=True, text=True)
        assert check.returncode == 0, check.stderr


def test_a_real_bash_completes(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    command = tmp_path / "evalkit"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m evalkit "$@"\n')
    command.chmod(0o755)
    program = """
        eval "$(evalkit completion bash)"
        COMP_WORDS=(evalkit run -t chartq); COMP_CWORD=3
        _evalkit_completion evalkit chartq -t
        echo "${COMPREPLY[@]}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", textwrap.dedent(program)],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "chartqa", done.stderr
