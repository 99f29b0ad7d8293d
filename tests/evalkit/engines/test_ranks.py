"""Several equal processes on one run: what the environment says, who joins, lost ranks, leftovers."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from engine_runs import SAMPLES, Ground, answered_once, expected, plain, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_processes import Ranks
from toy import FakeModel

from evalkit import registry
from evalkit.contracts import Message, ModelOptions, Request
from evalkit.engines import ranks
from evalkit.engines.base import Engine, InProcess
from evalkit.engines.heartbeat import PLACE, RankStatus, RankZeroBusy, SeenRank
from evalkit.engines.rank import Rank, from_environment
from evalkit.engines.ranks import OtherRank, RankZero, join
from evalkit.engines.scheduler import Groups
from evalkit.errors import RankLost, RunFolderError, UsageError
from evalkit.pipeline.options import RunOptions
from evalkit.pipeline.run import load_model
from evalkit.store import ResponseLogs, lock
from evalkit.store.responses import read_responses, reserve


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, None),
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Rank(1, 4, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}, Rank(5, 8, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "2"}, Rank(0, 2)),
        ({"SLURM_NTASKS": "8"}, None),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "7", "SLURM_NTASKS": "8"}, Rank(0, 2)),
    ],
)
def test_rank_from_the_environment(variables: dict[str, str], rank: Rank | None) -> None:
    assert from_environment(variables) == rank


@pytest.mark.parametrize("number", ["2", "-1", "one"])
def test_a_rank_that_cannot_be_is_refused(number: str) -> None:
    with pytest.raises(UsageError, match=f"RANK={number} WORLD_SIZE=2: no rank"):
        from_environment({"RANK": number, "WORLD_SIZE": "2"})


def test_a_rank_has_one_device() -> None:
    for flags in ({"engine": "ray"}, {"devices": 2}):
        with pytest.raises(UsageError, match="rank 1 of 2, as torchrun or srun says"):
            RunOptions("m", rank=Rank(1, 2), **flags).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "own", "loaded"),
    [
        ("auto", "cuda:3", "cuda:3"),
        ("cuda", "cuda:1", "cuda:1"),
        ("cpu", "cuda:3", "cpu"),
        ("auto", None, "auto"),
    ],
)
def test_a_rank_loads_on_its_own_device(
    monkeypatch: pytest.MonkeyPatch, asked: str, own: str | None, loaded: str
) -> None:
    seen: list[str | None] = []

    def model(name: str, options: ModelOptions) -> FakeModel:
        seen.append(options.device)
        return FakeModel()

    monkeypatch.setattr(Rank, "device", own)
    monkeypatch.setattr(registry, "family", lambda name: None)
    monkeypatch.setattr(registry, "model", model)
    load_model(RunOptions("m", rank=Rank(1, 2), device=asked))
    assert seen == [loaded]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=30), st.integers(1, 6))
def test_shares_are_whole_groups_and_all_of_them(sizes: list[int], world: int) -> None:
    ends = list(itertools.accumulate(sizes))
    groups = [tuple(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    shares = [list(Rank(number, world).share(groups)) for number in range(world)]
    assert sorted(group for share in shares for group in share) == sorted(groups)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two looks."""
    monkeypatch.setattr(ranks, "_LOOK", 0.01)
    monkeypatch.setattr(ranks, "interval", lambda world: 0.02)


@pytest.fixture
def folder(tmp_path: Path, quick: None) -> Iterator[Path]:
    """A run folder that this process holds."""
    path = tmp_path / "runs" / "run"
    path.mkdir(parents=True)
    with lock.held(path):
        yield path


def request(position: int) -> Request:
    """Of a sample without an image."""
    return Request(str(position), (Message("user", f"{position}?"),), ())


def groups(*positions: int) -> Groups:
    """A group for each position."""
    return [(position,) for position in positions]


def answer(engine: Engine, folder: Path, asked: Groups) -> list[str]:
    """Store what an engine answers; returns the ids."""
    found = []
    with closing(ResponseLogs(folder)) as log:
        for id_, key, response, worker in engine.answers(asked, request):
            log.append(worker, id_, key, response)
            found.append(id_)
    return found


def rank_one(
    folder: Path, found: list[Any], *, data: str = "d", identity: str = "i", timeout: float = 5
) -> None:
    """Rank 1 of 2, which answers its share of what is pending."""
    try:
        with join(
            InProcess(FakeModel()),
            Rank(1, 2),
            folder.parent,
            identity=identity,
            data=data,
            timeout=timeout,
            busy=RankZeroBusy(None),
        ) as engine:
            found.append(answer(engine, engine.folder, groups(*sorted(engine.pending()))))
    except RunFolderError as error:
        found.append(str(error))


def rank_zero(folder: Path, *, timeout: float = 5.0) -> RankZero:
    """Rank 0 of 2."""
    model = InProcess(FakeModel())
    return RankZero(model, Rank(0, 2), folder, identity="i", data="d", samples=10, timeout=timeout)


def in_thread(work: Callable[..., None], *arguments: Any, **named: Any) -> threading.Thread:
    """Another rank."""
    thread = threading.Thread(target=work, args=arguments, kwargs=named)
    thread.start()
    return thread


def test_rank_0_waits_for_the_others(folder: Path) -> None:
    found: list[Any] = []
    with rank_zero(folder) as zero:
        other = in_thread(rank_one, folder, found)
        assert answer(zero, folder, groups(3, 5, 7, 9)) == ["3", "7"]
        other.join()
        assert zero.line() == "rank 1 2/2"
        told = zero.report()["others"]["1"]
        assert told["state"] == "done" and told["file"] == "responses-rank1of2-1.jsonl"
    assert found == [["5", "9"]]
    assert not (folder / PLACE).exists()
    assert sorted(read_responses(folder)) == ["3", "5", "7", "9"]


def test_rank_0_may_fail_before_it_has_told_anybody_anything(folder: Path) -> None:
    with pytest.raises(UsageError, match="first"), rank_zero(folder):
        raise UsageError("first")


def test_a_rank_with_other_data_is_refused_by_name(folder: Path) -> None:
    found: list[Any] = []
    with pytest.raises(RankLost) as lost, rank_zero(folder) as zero:
        other = in_thread(rank_one, folder, found, data="other")
        try:
            answer(zero, folder, groups(1, 2, 3))
        finally:
            other.join()
    assert found == ["rank 1 of 2 is refused: data other there, d in rank 0; make them the same"]
    assert str(lost.value).startswith("rank 1 of 2 (") and f"was lost ({found[0]})" in str(lost.value)
    assert f": 1 of 10 samples are not answered in {folder}; the same command" in str(lost.value)


def test_a_rank_that_does_not_come_is_not_waited_for(folder: Path) -> None:
    with (
        pytest.raises(RankLost, match=r"^rank 1 of 2 was lost \(it did not come within 0.1 s"),
        rank_zero(folder, timeout=0.1) as zero,
    ):
        answer(zero, folder, groups(1, 2))


def test_a_lost_rank_with_nothing_left_to_answer_costs_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with rank_zero(folder, timeout=0.1) as zero:
        assert answer(zero, folder, groups(1)) == ["1"]
    assert "rank 1 of 2 is lost: it did not come" in caplog.text


def test_a_rank_that_gives_no_answer_is_not_waited_for(folder: Path) -> None:
    status = RankStatus(folder / PLACE, 1)
    status.state = "running"
    status.write()
    with pytest.raises(RunFolderError, match="rank 1 of an earlier start"):
        rank_zero(folder)
    status.state = "waiting"
    status.write()
    with (
        pytest.raises(RankLost, match=r"no answer from it for 0.2 s"),
        rank_zero(folder, timeout=0.2) as zero,
    ):
        answer(zero, folder, groups(1, 2))
    status.release()
    seen = SeenRank(folder / PLACE / f"1-{status.nonce}")
    assert seen.lost(0.2) == "its process has ended"


def test_without_rank_0_a_rank_says_so(folder: Path) -> None:
    found: list[Any] = []
    rank_one(folder, found, timeout=0.1)
    with suppress(RankLost), rank_zero(folder, timeout=0.3) as zero:
        other = in_thread(rank_one, folder, found, identity="other", timeout=0.2)
        answer(zero, folder, groups(1, 2))
        other.join()
    assert "rank 0 opened no run for it under" in found[0] and "another model" not in found[0]
    assert f"{folder} is of another model, task or setting" in found[1]


def test_a_rank_waits_while_rank_0_is_at_the_task_before_and_no_longer(folder: Path) -> None:
    busy = RankZeroBusy(folder)
    assert not RankZeroBusy(None)() and busy()  # its lock is held
    with suppress(KeyboardInterrupt), rank_zero(folder):
        raise KeyboardInterrupt
    with pytest.raises(RunFolderError, match="rank 0 was interrupted"):
        busy()


def test_a_responses_file_for_each_rank_and_attempt(tmp_path: Path) -> None:
    assert [reserve(tmp_path, "rank1of3") for _ in range(2)] == ["rank1of3-1", "rank1of3-2"]
    engine = InProcess(FakeModel())
    files = [
        {
            answer.worker
            for answer in OtherRank(engine, rank, tmp_path, status).answers(groups(1, 2, 3), request)
        }
        for rank, status in ((Rank(0, 1), RankStatus(tmp_path, 0)) for _ in range(2))
    ]
    assert files == [{"rank0of1-1"}, {"rank0of1-2"}]


@pytest.fixture
def processes(ground: Ground) -> Iterator[Ranks]:
    """Processes that are gone when the test is."""
    made = Ranks(ground)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(ground: Ground, out: str) -> None:
    """The run is as an undisturbed one."""
    (run,) = json.loads(out)["runs"]
    assert run["status"] == "complete" and run["counts"]["answered"] == SAMPLES
    assert plain(run["run"]) == expected()
    answered_once(Path(run["run"]))
    assert not (Path(run["run"]) / PLACE).exists()


@pytest.mark.slow
def test_a_killed_rank_costs_its_remainder_and_any_number_goes_on(ground: Ground, processes: Ranks) -> None:
    processes.wish(delay="0.05")
    first, second, third = processes.by_srun(3)
    os.kill(processes.victim(1), signal.SIGKILL)
    processes.wish()
    out, told = first.communicate(timeout=240)
    assert first.returncode == 130, told
    assert "rank 1 of 3 (" in told and "was lost (its process has ended)" in told
    assert "the same command, with any number of ranks, goes on" in told and "Traceback" not in told
    (run,) = json.loads(out)["runs"]
    assert run["status"] == "partial" and run["counts"]["answered"] == stored(ground.folder)
    assert second.wait(60) == -signal.SIGKILL
    out, _ = third.communicate(timeout=60)
    assert third.returncode == 0 and out == ""
    left = SAMPLES - stored(ground.folder)
    first, second = processes.by_srun(2)
    out, told = first.communicate(timeout=240)
    assert first.returncode == 0 and f"going on, {left} of {SAMPLES} samples left" in told
    ended(ground, out)
    assert second.wait(60) == 0


@pytest.mark.slow
def test_ranks_share_the_repeats_of_a_question(ground: Ground, processes: Ranks) -> None:
    processes.wish()
    processes.command += ["--repeats", "3", "--gen", "temperature=1"]
    first, second = processes.by_srun(2)
    out, told = first.communicate(timeout=240)
    assert first.returncode == 0 and second.wait(60) == 0, told
    (run,) = json.loads(out)["runs"]
    assert run["counts"]["answered"] == SAMPLES and run["repeats"]["n"] == 3
    assert stored(ground.folder) == 3 * SAMPLES
    answered_once(Path(run["run"]))


@pytest.mark.slow
@pytest.mark.parametrize("world", [3])
def test_torchrun_starts_again_what_a_killed_rank_left(ground: Ground, processes: Ranks, world: int) -> None:
    processes.wish(delay="0.1")
    launcher = processes.by_torchrun(world, restarts=2)
    os.kill(processes.victim(1), signal.SIGKILL)
    time.sleep(0.5)
    processes.wish()
    out, told = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, told
    ended(ground, _last(out))
    files = sorted(path.name for path in ground.folder.rglob("responses-*.jsonl"))
    assert {f"responses-rank1of{world}-{attempt}.jsonl" for attempt in (1, 2)} <= set(files)


def _last(out: str) -> str:
    """The last document; a rank 0 that was ended by torchrun has printed one too."""
    return out[out.rindex('{\n "runs"') :]
