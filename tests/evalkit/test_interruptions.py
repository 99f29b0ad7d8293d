"""Kills at any moment, Ctrl-C, a second process, a full disk: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toy
from engine_runs import response_files

from evalkit.store import load_run
from evalkit.store.records import read_table


@pytest.fixture
def command(tmp_path: Path, plain_environment: None) -> Callable[..., list[str]]:
    """The command line of a run of the toy benchmark with the fake model, as a process of its own."""

    def build(model: str, *extra: str, samples: int = 40) -> list[str]:
        task = toy.make_benchmark(tmp_path / "data", samples)
        return toy.command(
            *("run", "--include", str(task), "-m", model, "-t", "yes-no"),
            *("--data-root", str(task.parent), "-o", str(tmp_path / "runs"), "--json", *extra),
        )

    return build


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that is gone when the test is."""
    processes: list[subprocess.Popen[str]] = []

    def launch(arguments: list[str], **settings: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(arguments, **{**pipes, **settings}))
        return processes[-1]

    yield launch
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_answers(folder: Path, least: int) -> Path:
    """Wait until a run under `folder` holds so many answers; returns its folder."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for path in response_files(folder, "0"):
            if path.read_bytes().count(b"\n") >= least:
                return path.parent
        time.sleep(0.02)
    raise AssertionError("the run did not begin")


def finish(arguments: list[str]) -> Any:
    """Run to the end; the one result."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    return run


def answered_once(folder: Path, samples: int) -> None:
    """Every sample has exactly one stored answer and one record."""
    lines = (folder / "responses-0.jsonl").read_bytes().splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert len(ids) == len(set(ids)) == samples
    assert [record.id for record in load_run(folder).records()] == [str(i) for i in range(samples)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on_and_does(command, start, tmp_path: Path, number: int) -> None:
    process = start(command("fake:0.05"))
    folder = wait_for_answers(tmp_path / "runs", 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in err
    assert "of 40 samples are stored" in err and "the same command goes on" in err
    (run,) = json.loads(out)["runs"]
    assert run["status"] == "partial" and 3 <= run["counts"]["answered"] < 40 and run["metrics"] == {}
    assert load_run(folder).status == "partial"
    assert load_run(folder).manifest["outcome"]["status"] == "interrupted"
    done = finish(command("fake:0"))
    assert done["run"] == str(folder) and done["counts"]["answered"] == 40 and done["status"] == "complete"
    answered_once(folder, 40)
    assert len(load_run(folder).manifest["sessions"]) == 2


def test_a_run_started_in_the_background_can_be_interrupted(command, start, tmp_path: Path) -> None:
    process = start(command("fake:0.05"), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_for_answers(tmp_path / "runs", 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_a_second_process_is_refused(command, start, tmp_path: Path) -> None:
    first = start(command("fake:0.05"))
    folder = wait_for_answers(tmp_path / "runs", 1)
    assert load_run(folder).status == "running"
    first.send_signal(signal.SIGSTOP)  # it is still at it, however long the second takes to start
    second = subprocess.run(command("fake:0.05"), capture_output=True, text=True, timeout=60)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 3 and second.stdout == ""
    assert "another process is writing this run" in second.stderr and len(second.stderr.splitlines()) == 1
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 0 and json.loads(out)["runs"][0]["status"] == "complete"
    answered_once(folder, 40)


def limit_file_size(size: int) -> Callable[[], None]:
    """A quota: no file may grow beyond `size` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_quota_stops_the_run_and_keeps_what_was_done(command, start, tmp_path: Path) -> None:
    arguments = command("fake", samples=100)
    process = start(arguments, preexec_fn=limit_file_size(8_000))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "disk is full" in err and "responses-0.jsonl" in err and "Traceback" not in err
    (run,) = json.loads(out)["runs"]
    kept = run["counts"]["answered"]
    assert run["status"] == "failed" and 10 < kept < 100
    assert (Path(run["run"]) / "responses-0.jsonl").read_bytes().endswith(b"\n")
    assert finish(arguments)["counts"]["answered"] == 100
    answered_once(Path(run["run"]), 100)


def test_a_full_file_system_stops_the_run_and_keeps_what_was_done(command, start, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(runs)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        process = start(command("fake", samples=400))
        out, err = process.communicate(timeout=60)
        assert process.returncode == 3 and "disk is full" in err and "Traceback" not in err
        (run,) = json.loads(out)["runs"]
        assert 0 < run["counts"]["answered"] < 400
        subprocess.run(["mount", "-o", "remount,size=8m", str(runs)], check=True)
        assert finish(command("fake", samples=400))["counts"]["answered"] == 400
        answered_once(Path(run["run"]), 400)
    finally:
        subprocess.run(["umount", str(runs)], check=True)


@pytest.mark.slow
def test_many_kills_leave_the_records_of_an_undisturbed_run(command, start, tmp_path: Path) -> None:
    samples, kills = 300, 8
    arguments = command("fake:0.001", samples=samples)
    kept = tmp_path / "runs" / "fake" / "yes-no@test"
    started = time.monotonic()
    finish(arguments)
    undisturbed = time.monotonic() - started
    rng, killed = random.Random(7), 0
    for _ in range(5 * kills):
        runs = sorted(kept.glob("2*"))
        if killed >= kills and len(runs) >= 3:
            break
        goes_on = any(not (run / "summary.json").exists() for run in runs)
        process = start([*arguments, *([] if goes_on else ["--no-resume"])])
        time.sleep(rng.uniform(0.4, 1.4) * undisturbed)  # the first 0.4 are imports
        process.kill()
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
        killed += process.returncode != 0
    assert killed >= kills and len(runs) >= 3
    reference = None
    for folder in reversed(runs):  # the same command goes on with the latest; the others by their own
        hidden = [other for other in runs if other > folder]
        for other in hidden:
            other.rename(tmp_path / other.name)
        finish(arguments)
        for other in hidden:
            (tmp_path / other.name).rename(other)
        answered_once(folder, samples)
        table = read_table(folder).drop_columns(["seconds"]).to_pylist()
        summary = {**(load_run(folder).summary or {}), "run": ""}
        reference = reference or (table, summary)
        assert (table, summary) == reference
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".r")]
