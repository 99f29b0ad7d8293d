"""Several worker processes: every request once, whatever dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_runs import response_files
from slow_worker import Load, Named, load_deadly

from evalkit.contracts import Message, ModelOptions, Request
from evalkit.engines.base import LoadModel
from evalkit.engines.processes import MOST_DEATHS, WorkerPool
from evalkit.engines.scheduler import Answer
from evalkit.errors import CheckpointError, EvalkitError, UsageError
from evalkit.pipeline import run as workflow
from evalkit.pipeline.options import RunOptions
from evalkit.pipeline.plan import make_plan

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def asked(count: int, each: int = 5) -> list[Request]:
    """Requests, `each` about one image."""
    return [
        Request(str(n), (Message("user", "?"),), (Named(f"p{n // each}"),))  # type: ignore[arg-type]
        for n in range(count)
    ]


def answers(pool: WorkerPool, requests: list[Request]) -> Iterator[Answer]:
    """What the pool answers to a plan of the requests."""
    return pool.answers(make_plan(requests).groups, requests.__getitem__)


@pytest.fixture
def pools() -> Iterator[list[WorkerPool]]:
    """Pools to close."""
    opened: list[WorkerPool] = []
    yield opened
    for pool in opened:
        pool.close()


def test_every_request_is_answered_once_by_some_worker(pools: list[WorkerPool]) -> None:
    pool = WorkerPool(Load(0.002), 2, 3)
    pools.append(pool)
    assert pool.info.name == "slow"
    for _ in range(2):
        found = list(answers(pool, asked(200)))
        assert Counter(answer.id for answer in found) == Counter(map(str, range(200)))
        assert {answer.response.text.split()[1] for answer in found} == {"3"}
        assert {answer.key for answer in found} == {request.key() for request in asked(200)}
    time.sleep(0.1)
    assert list(answers(pool, [])) == []


def test_a_killed_worker_costs_only_what_it_had_not_answered(
    pools: list[WorkerPool], caplog: pytest.LogCaptureFixture
) -> None:
    pool = WorkerPool(Load(0.01), 2, 1)
    pools.append(pool)
    found: list[Answer] = []
    for answer in answers(pool, asked(150)):
        found.append(answer)
        if len(found) == 30:
            os.kill(int(answer.response.text.split()[0]), signal.SIGKILL)
    assert sorted(int(answer.id) for answer in found) == list(range(150))
    assert all(answer.response.error is None for answer in found)
    assert "is replaced" in caplog.text


def test_a_request_that_kills_its_worker_is_an_error_of_its_own(pools: list[WorkerPool]) -> None:
    pool = WorkerPool(Load(killer="7"), 1, 1)
    pools.append(pool)
    found = {answer.id: answer.response for answer in answers(pool, asked(12))}
    assert len(found) == 12
    error = found.pop("7").error
    assert error is not None and error.kind == "worker"
    assert all(response.error is None for response in found.values())


def test_errors_of_workers_reach_the_user(pools: list[WorkerPool]) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        WorkerPool(Load(refuse=True), 2, 1)
    pool = WorkerPool(Load(), 1, 1)
    pools.append(pool)
    with pytest.raises(EvalkitError, match="ValueError: a bad day"):
        list(answers(pool, [Request("raise", (Message("user", "?"),), ())]))


def test_work_left_behind_does_not_come_later(pools: list[WorkerPool]) -> None:
    pool = WorkerPool(Load(0.01), 2, 1)
    pools.append(pool)
    started = answers(pool, asked(100))
    next(started)
    started.close()  # type: ignore[attr-defined]
    assert len(list(answers(pool, asked(3)))) == 3


def test_workers_are_not_replaced_for_ever(pools: list[WorkerPool], caplog: pytest.LogCaptureFixture) -> None:
    pool = WorkerPool(load_deadly, 1, 1)
    pools.append(pool)
    with pytest.raises(EvalkitError, match=r"worker 0 died \(exit status -9\), the 6th death without"):
        list(answers(pool, asked(64, each=1)))
    assert caplog.text.count("is replaced") == MOST_DEATHS


def test_flags_are_checked() -> None:
    with pytest.raises(UsageError, match="positive"):
        RunOptions("m", devices=0).check()
    with pytest.raises(UsageError, match="not both"):
        RunOptions("m", devices=2, device="cuda:1").check()
    RunOptions("m", devices=2, device="cpu").check()


def test_stored_predictions_need_no_workers(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": "1", "prediction": "yes"}\n')
    with pytest.raises(UsageError, match="leave it out"):
        WorkerPool(LoadModel(f"predictions:{path}", ModelOptions()), 1, 1)


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_run_with_a_killed_worker_ends_with_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeats: int
) -> None:
    from toy import make_benchmark

    from evalkit import registry

    monkeypatch.setattr(registry, "_included", {})
    samples = 120 // repeats
    task = make_benchmark(tmp_path / "data", samples=samples)
    registry.include(task)
    options = RunOptions(
        "slow", data_root=tmp_path / "data", output=tmp_path / "runs", devices=2, quiet=True,
        repeats=repeats, gen=("temperature=1",) if repeats > 1 else (),
    )  # fmt: skip
    pool = WorkerPool(Load(0.01), 2, 1, registry.included_files())

    while not all(worker.ready for worker in pool._workers):
        list(pool._events())

    def kill() -> None:
        while not response_files(tmp_path / "runs", "0"):
            time.sleep(0.01)
        victim = pool._workers[0].process.pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = workflow.run_task("yes-no", pool, options)
    finally:
        killer.join()
        pool.close()
    assert result.counts["answered"] == samples and result.counts["errors"] == 0
    files = sorted(path.name for path in Path(result.path).glob("responses-*.jsonl"))
    assert files == ["responses-0.jsonl", "responses-1.jsonl"]
    lines = [line for name in files for line in (Path(result.path) / name).read_text().splitlines()]
    assert len(lines) == 120
