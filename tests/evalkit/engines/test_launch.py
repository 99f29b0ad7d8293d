"""Ranks that the environment promises and that are not there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_runs import SAMPLES, Ground, expected, plain, response_files
from rank_processes import Ranks

from evalkit.engines.heartbeat import STATUS_NAME, write_small
from evalkit.engines.launch import Launch, those_there
from evalkit.engines.rank import Rank, from_environment
from evalkit.errors import RunFolderError


@pytest.fixture
def processes(ground: Ground) -> Iterator[Ranks]:
    made = Ranks(ground)
    made.wish()
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(runs: Path, number: int, world: int = 4, asked: tuple[str, ...] = ("m", "t")) -> Launch:
    return Launch(runs, Rank(number, world), asked, {})


def test_ranks_see_each_other_and_who_is_missing(tmp_path: Path) -> None:
    with start(tmp_path, 0) as zero, start(tmp_path, 2) as two, start(tmp_path, 1, asked=("other",)):
        assert zero.missing(0.0) == two.missing(0.0) == {1, 3}
        assert not zero.gone(2) and not zero.gone(3)
        with start(tmp_path, 1), start(tmp_path, 3):
            began = time.monotonic()
            assert zero.missing(30.0) == set() and time.monotonic() - began < 5
        assert zero.gone(1) and zero.missing(0.0) == set()  # it was there
    assert list(tmp_path.iterdir()) == []


def test_a_sign_that_was_left_over_does_not_count(tmp_path: Path) -> None:
    with start(tmp_path, 0) as zero:
        (place,) = (tmp_path / ".start").iterdir()
        for number, host in ((1, "elsewhere"), (2, "elsewhere")):
            folder = place / f"{number}-0000"
            folder.mkdir()
            write_small(folder / STATUS_NAME, {"number": number, "host": host, "beat": 7})
        assert zero.missing(0.0) == {1, 2, 3}
        write_small(place / "2-0000" / STATUS_NAME, {"number": 2, "host": "elsewhere", "beat": 8})
        assert zero.missing(0.0) == {1, 3}  # only that one moves


def test_who_goes_on_with_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with start(tmp_path, 1) as one:
        assert those_there(one, Rank(1, 4), 0.0, "evalkit run -m x") is None
        assert "torchrun --nproc-per-node 4 -m evalkit run -m x" in caplog.text
        with start(tmp_path, 2), pytest.raises(RunFolderError, match="rank 0 gave no sign within 0 s"):
            those_there(one, Rank(1, 4), 0.0, "evalkit run")
        with start(tmp_path, 0) as zero:
            caplog.clear()
            rank = those_there(zero, Rank(0, 4, by_slurm=True), 0.0, "evalkit run")
            assert rank is not None and rank.without == {2, 3} and rank.others == [1]
            assert (
                "rank 2, 3 of 4 gave no sign" in caplog.text and "srun --ntasks 4 evalkit run" in caplog.text
            )
            shares = [rank.share(range(9)), Rank(1, 4).share(range(9))]
            assert sorted(group for share in shares for group in share) == list(range(9))


LEFTOVERS = {
    "a pod": {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "pod-0", "MASTER_PORT": "23456"},
    "a pod that is not the first": {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "0"},
    "sbatch without srun": {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
    "an interactive step": {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "0",
        "SLURM_STEP_NUM_TASKS": "4",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_alone_is_alone(leftover: str, ground: Ground, processes: Ranks) -> None:
    variables = LEFTOVERS[leftover]
    assert from_environment(variables) is not None
    process = processes.start(*processes.command, "--worker-timeout", "3", **variables)
    out, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    (run,) = json.loads(out)["runs"]
    assert run["status"] == "complete" and plain(run["run"]) == expected()
    assert "this process runs alone" in told and " evalkit run -m puppet:" in told
    assert ("srun --ntasks 4" if "SLURM_PROCID" in variables else "torchrun --nproc-per-node 4") in told
    assert not (ground.folder / "runs/.start").exists()


@pytest.mark.slow
def test_a_rank_that_never_came_costs_seconds_and_no_answers(ground: Ground, processes: Ranks) -> None:
    first, second = (
        processes.start(
            *processes.command, "--worker-timeout", "20", RANK=str(number), WORLD_SIZE="3", MASTER_PORT="1"
        )
        for number in (0, 1)
    )
    out, told = first.communicate(timeout=200)
    assert first.returncode == 0, told
    (run,) = json.loads(out)["runs"]
    assert run["status"] == "complete" and run["counts"]["answered"] == SAMPLES
    assert plain(run["run"]) == expected() and "rank 2 of 3 gave no sign" in told
    assert second.wait(60) == 0
    files = {path.name for path in Path(run["run"]).glob("responses-*")}
    assert files == {"responses-rank0of3-1.jsonl", "responses-rank1of3-1.jsonl"}


@pytest.mark.slow
def test_a_rank_that_comes_late_is_told_so(ground: Ground, processes: Ranks) -> None:
    processes.wish(delay="0.5")
    common = {"WORLD_SIZE": "3", "MASTER_PORT": "1"}
    command = [*processes.command, "--worker-timeout", "10"]
    first, second = (processes.start(*command, RANK=str(number), **common) for number in (0, 1))
    end = time.monotonic() + 120
    while not response_files(ground.folder, "rank0of3-1"):
        assert time.monotonic() < end
        time.sleep(0.05)
    late = processes.start(*command, RANK="2", **common)
    _, told = late.communicate(timeout=120)
    assert late.returncode == 3 and "rank 2 of 3 came late" in told and "--ranks" in told
    processes.wish()
    out, told = first.communicate(timeout=200)
    assert first.returncode == 0, told
    assert json.loads(out)["runs"][0]["counts"]["answered"] == SAMPLES and second.wait(60) == 0


@pytest.mark.slow
def test_a_rank_that_ends_while_it_loads_is_noticed(ground: Ground, processes: Ranks) -> None:
    first = processes.start(*processes.command, RANK="0", WORLD_SIZE="2")
    with Launch(
        ground.folder / "runs", Rank(1, 2), [f"puppet:{processes.wishes}", "yes-no"], {}
    ):  # it leaves a sign, and then ends
        end = time.monotonic() + 120
        while not response_files(ground.folder, "rank0of2-1"):
            assert time.monotonic() < end and first.poll() is None
            time.sleep(0.05)
    began = time.monotonic()
    _, told = first.communicate(timeout=60)
    assert first.returncode == 130 and "its process has ended before it took part" in told
    assert time.monotonic() - began < 30
