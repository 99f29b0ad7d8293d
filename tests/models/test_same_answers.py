"""The embedded model with prefix caching: broken off, limited and named runs answer as a whole run does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_runs import stored

from evalkit.cli.main import invoke
from evalkit.engines.base import Engine
from evalkit.pipeline import run as workflow
from evalkit.pipeline.options import RunOptions
from evalkit.pipeline.plan import make_plan
from evalkit.store import find_runs, load_run

TASK = "rsvqa-lr"
MODEL = "mini-internvl-tiny"


@pytest.fixture(scope="module")
def model() -> Iterator[Engine]:
    """Answers four at a time, so that there is something between the first answer and the last."""
    loaded = workflow.load_model(options(Path()))
    yield loaded
    loaded.close()


def options(output: Path, **changes: object) -> RunOptions:
    """Of a run on the miniature, a few tokens an answer."""
    settings: dict[str, object] = {"split": "miniature", "batch_size": 4, "gen": ("max_new_tokens=4",)}
    return RunOptions(MODEL, output=output, device="cpu", quiet=True, **{**settings, **changes})  # type: ignore[arg-type]


def answers(folder: Path) -> dict[str, str]:
    """Text of every stored sample."""
    return {name: stored.response.text for name, stored in load_run(folder).responses().items()}


@pytest.fixture(scope="module")
def whole(model: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Answers of an undisturbed run."""
    result = workflow.run_task(TASK, model, options(tmp_path_factory.mktemp("whole"), limit=60))
    found = answers(result.path)
    assert len(found) == 60 and len(set(found.values())) > 1
    return found


def test_a_smaller_limit_and_named_samples(whole: dict[str, str], model: Engine, tmp_path: Path) -> None:
    few = workflow.run_task(TASK, model, options(tmp_path / "few", limit=17))
    assert len(answers(few.path)) == 17 and answers(few.path).items() <= whole.items()
    names = tuple(list(whole)[::9])
    named = workflow.run_task(TASK, model, options(tmp_path / "named", sample_id=names))
    assert set(answers(named.path)) == set(names) and answers(named.path).items() <= whole.items()


def test_without_prefix_caching(whole: dict[str, str], model: Engine, tmp_path: Path) -> None:
    apart = options(tmp_path, limit=60, prefix_caching=False, batch_size=1)
    alone = workflow.load_model(apart)
    assert answers(workflow.run_task(TASK, alone, apart).path) == whole
    alone.close()


def test_broken_off_in_a_group(
    whole: dict[str, str], model: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a picture's questions are answered before, the other half after."""
    job = workflow.make_job(TASK, options(tmp_path, limit=60))
    plan = make_plan(job.request(position) for position in range(60))
    assert any(len(group) > 3 for group in plan.groups)
    result = workflow.run_task(TASK, model, options(tmp_path, limit=60))
    (log,) = result.path.glob("responses-*.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[::2]) + lines[1][:30])
    again = workflow.run_task(TASK, model, options(tmp_path, limit=60))
    assert again.path == result.path and answers(again.path) == whole


@pytest.mark.slow
def test_killed_in_the_middle(whole: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evalkit", "run", "-m", MODEL, "-t", TASK, "--split", "miniature"]
    command += ["--limit", "60", "--batch-size", "4", "--gen", "max_new_tokens=4", "--device", "cpu", "-q"]
    command += ["--output", str(tmp_path)]
    process = subprocess.Popen(command)
    while not stored(tmp_path):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (folder,) = find_runs(tmp_path)
    assert 0 < len(answers(folder)) < 60
    assert invoke(command[3:]) == 0
    assert answers(folder) == whole
