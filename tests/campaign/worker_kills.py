"""Kills of workers: processes of `--devices`, ranks, actors of Ray. Only what was under way is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import puppet
import toy

from campaign.kills import RunKills
from campaign.processes import Child, command
from campaign.trial import Trial, Verdict
from evalkit import registry
from evalkit.store import load_run

#: Seconds in which a command with all its workers ends on a busy machine.
LONGEST = 100.0


def answers(run: Path) -> Any:
    """Id, text and scores of each record, and the values: what does not depend on who answered."""
    stored = load_run(run)
    records = [(r.id, r.text, dict(r.scores), r.error and r.error.kind) for r in stored.records()]
    summary = stored.summary or {}
    return records, summary.get("metrics"), summary.get("counts")


def answered_twice(run: Path) -> list[str]:
    """Ids with more than one stored answer; failures, which are asked again, are none."""
    lines = [line for path in run.glob("responses-*.jsonl") for line in path.read_bytes().splitlines()]
    rows = [json.loads(line) for line in lines]
    return [
        name for name, count in Counter(row["id"] for row in rows if not row["error"]).items() if count > 1
    ]


class _Workers(RunKills):
    """A run by several processes, some of which are killed; the same command goes on where it stopped."""

    share = 2.0
    seconds = 400.0
    most_kills = 4
    model = "fake:0.004"

    def result(self) -> Any:
        run = self._only_run()
        assert run is not None
        return answers(run), answered_twice(run)

    def kill_some(self, rng: random.Random) -> tuple[int, Sequence[Child]]:
        """Start the command, kill workers; returns how many, and all processes; the first reports."""
        raise NotImplementedError

    def once(self, rng: random.Random) -> Verdict:
        """Some kills, then the command again until it has ended well."""
        self.begin()
        kills, started = 0, list[Child]()
        try:
            for attempt in range(8):
                done, processes = self.kill_some(rng) if attempt < 2 else (0, [self.start()])
                kills += done
                started += processes
                for process in processes:
                    if process.wait(LONGEST) is None:
                        return Verdict("hang", f"no end after {LONGEST:g} s: {process.text[-300:]}")
                if any("Traceback" in process.text for process in processes):
                    return Verdict("raw", next(p.text for p in processes if "Traceback" in p.text)[-500:])
                if (missing := self.lost()) is not None:
                    return Verdict("lost", missing)
                if processes[0].status == 0 and attempt:
                    break
            if (found := self.result()) != self.expected:
                return Verdict(
                    "lost", f"another result: {str(found)[:300]} instead of {str(self.expected)[:300]}"
                )
            return Verdict(count=max(kills, 1))
        finally:
            for process in started:
                process.end()


class DeviceKills(_Workers):
    """Two worker processes of `--devices 2`, forked here so that a new one costs nothing."""

    name = "kills: workers of --devices"

    def arguments(self) -> list[str]:
        return [*super().arguments(), "--devices", "2", "--device", "cpu"]

    def work(self) -> Callable[[], int]:
        run = command(self.arguments())

        def forking() -> int:
            import multiprocessing

            context = multiprocessing.get_context("fork")
            multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment]
            return run()

        return forking

    def kill_some(self, rng: random.Random) -> tuple[int, Sequence[Child]]:
        child, kills = self.start(), 0
        for _ in range(rng.randint(1, self.most_kills)):
            child.wait(rng.uniform(0, self.seconds_undisturbed / 2))
            if rng.random() < 0.2:
                child.send(signal.SIGKILL)  # the command itself: its workers must not outlive it
                kills += child.wait() == -signal.SIGKILL
                break
            if workers := children(child.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
                    kills += 1
        return kills, [child]


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    with contextlib.suppress(OSError):
        return [int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


class RankKills(_Workers):
    """Two or three equal processes on one run, as srun starts them."""

    name = "kills: ranks"

    def start(self) -> Child:
        return self._ranks(1)[0]

    def _ranks(self, world: int) -> list[Child]:
        def work() -> int:
            from evalkit.engines import launch, ranks

            ranks._LOOK = launch._LOOK = 0.02
            launch.NO_SIGN = 2.0
            return command(self.arguments())()

        named = [{"SLURM_PROCID": str(n), "SLURM_NTASKS": str(world)} for n in range(world)]
        return [
            Child(work, self.folder / f"told{number}.txt", each if world > 1 else {})
            for number, each in enumerate(named)
        ]

    def kill_some(self, rng: random.Random) -> tuple[int, Sequence[Child]]:
        ranks, kills = self._ranks(rng.choice((2, 2, 3))), 0
        for victim in rng.sample(ranks, rng.randint(1, len(ranks) - 1)):
            victim.wait(rng.uniform(0, self.seconds_undisturbed * 1.2))
            victim.send(signal.SIGKILL)
            kills += victim.wait() == -signal.SIGKILL
        return kills, ranks


class RayKills(Trial):
    """Actors of a Ray cluster on this machine; the run ends by itself, as an undisturbed one."""

    name = "kills: actors of Ray"
    share = 2.0
    seconds = 180.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from evalkit.contracts import ModelOptions
        from evalkit.engines.base import LoadModel
        from evalkit.engines.ray_engine import RayEngine, RayOptions

        self.task = toy.make_benchmark(folder / "data", 80)
        registry.include(self.task)
        os.environ["PYTHONPATH"] = puppet.install(folder / "plugin")
        wishes = folder / "wishes.json"
        puppet.write_wishes(wishes, delay="0.02")
        load = LoadModel(f"puppet:{wishes}", ModelOptions())
        self.pool: Any = RayEngine(load, RayOptions(cores=1))
        self.runs = 0
        self.expected = answers(self._run([]))

    def _run(self, kills: list[float]) -> Path:
        """A run that loses a random actor at each of these seconds."""
        import threading

        from evalkit.pipeline import run as workflow
        from evalkit.pipeline.options import RunOptions

        self.runs += 1
        output = self.folder / f"runs{self.runs}"
        options = RunOptions("puppet", data_root=self.task.parent, output=output, quiet=True)
        ended = threading.Event()

        def kill() -> None:
            began = time.monotonic()
            for place, moment in enumerate(kills):
                if ended.wait(max(0.0, began + moment - time.monotonic())):
                    break
                known = [worker.process for worker in [*self.pool._actors.workers.values()] if worker.process]
                with contextlib.suppress(ProcessLookupError):
                    if known:
                        os.kill(known[place % len(known)], signal.SIGKILL)
                        self.killed += 1

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            return Path(workflow.run_task("yes-no", self.pool, options).path)
        finally:
            ended.set()
            killer.join()

    def once(self, rng: random.Random) -> Verdict:
        """One run with some kills."""
        self.killed = 0
        run = self._run(sorted(rng.uniform(0, 1.5) for _ in range(rng.randint(1, 2))))
        if twice := answered_twice(run):
            return Verdict("lost", f"stored twice: {twice}")
        if (found := answers(run)) != self.expected:
            return Verdict("lost", f"another result: {str(found)[:300]}")
        return Verdict(count=max(self.killed, 1))

    def close(self) -> None:
        import ray

        self.pool.close()
        ray.shutdown()


TRIALS: tuple[Callable[[Path], Trial], ...] = (DeviceKills, RankKills, RayKills)
