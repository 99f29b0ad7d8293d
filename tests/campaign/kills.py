"""Kills of `run`, `score` and the judge at any moment, and what is stored afterwards."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import toy

from campaign.processes import (
    Child,
    command,
    copied,
    interrupt,
    scratch_files,
    state_of,
    warm_up,
)
from campaign.trial import Trial, Verdict
from evalkit.store import find_runs, load_run

SAMPLES = 80


class Killed(Trial):
    """A command that is killed some times and then goes on to the end, which must be an undisturbed one's.

    Attributes:
        seconds_undisturbed: what the command takes alone.
    """

    seconds = 150.0
    most_kills = 8

    def __init__(self, folder: Path) -> None:
        import time

        super().__init__(folder)
        self.prepare()
        self.begin()
        warm_up(self.work(), self.folder / "told.txt")
        self.begin()
        began = time.monotonic()
        done = self.start()
        if done.wait() != 0:
            raise AssertionError(done.text)
        self.seconds_undisturbed = time.monotonic() - began
        self.expected = self.result()

    def prepare(self) -> None:
        """The data and everything that tries have in common."""

    def begin(self) -> None:
        """What is there before the first command of a try."""
        raise NotImplementedError

    def arguments(self) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def result(self) -> Any:
        """What an undisturbed command leaves."""
        raise NotImplementedError

    def lost(self) -> str | None:
        """What should be there and is not, after a kill; None where nothing is missing."""
        return None

    def work(self) -> Callable[[], int]:
        """What the process does."""
        return command(self.arguments())

    def start(self) -> Child:
        """The command as a process."""
        return Child(self.work(), self.folder / "told.txt")

    def once(self, rng: random.Random) -> Verdict:
        """Some kills, then the end."""
        self.begin()
        kills = rng.randint(1, self.most_kills)
        for _ in range(kills):
            _, wrong = interrupt(self.start(), rng, self.seconds_undisturbed * 1.1)
            if wrong is not None:
                return Verdict("raw", wrong)
            if (missing := self.lost()) is not None:
                return Verdict("lost", missing)
        last = self.start()
        if (status := last.wait()) is None:
            last.end()
            return Verdict("hang", f"the last command does not end: {last.text[-300:]}")
        if status != 0:
            return Verdict("lost", f"the last command ends with {status}: {last.text[-400:]}")
        found = self.result()
        if found != self.expected:
            return Verdict(
                "lost", f"another result than undisturbed: {_first_difference(found, self.expected)}"
            )
        return Verdict(count=kills)


def _first_difference(one: Any, other: Any, place: str = "") -> str:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next(
            (_first_difference(one[k], other[k], f"{place}/{k}") for k in one if one[k] != other[k]), place
        )
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        pairs = ((n, a, b) for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        return next((_first_difference(a, b, f"{place}/{n}") for n, a, b in pairs), place)
    return f"{place}: {str(one)[:200]} instead of {str(other)[:200]}"


class RunKills(Killed):
    """The fake model on the toy benchmark."""

    name = "kills: run"
    share = 3.0
    model = "fake:0.002"

    def prepare(self) -> None:
        self.task = toy.make_benchmark(self.folder / "data", SAMPLES)
        self.runs = self.folder / "runs"
        self.seen: set[str] = set()

    def arguments(self) -> list[str]:
        fixed = ["run", "--include", str(self.task), "-m", self.model, "-t", "yes-no", "--json"]
        return [*fixed, "--data-root", str(self.task.parent), "-o", str(self.runs)]

    def begin(self) -> None:
        shutil.rmtree(self.runs, ignore_errors=True)
        self.seen = set()

    def _only_run(self) -> Path | None:
        found = list(find_runs(self.runs)) if self.runs.is_dir() else []
        if len(found) > 1:
            raise AssertionError(f"{len(found)} run folders of one command")
        return found[0] if found else None

    def lost(self) -> str | None:
        if (run := self._only_run()) is None:
            return None
        answered = set(load_run(run).responses())
        gone = self.seen - answered
        self.seen = answered
        load_run(run).summary  # noqa: B018  (a broken one raises)
        return f"{len(gone)} answers that were there before" if gone else None

    def result(self) -> Any:
        run = self._only_run()
        assert run is not None
        lines = [line for path in run.glob("responses-*") for line in path.read_bytes().splitlines()]
        ids = sorted(json.loads(line)["id"] for line in lines)
        return state_of(run), ids, scratch_files(self.runs)


class PredictionKills(RunKills):
    """Stored answers, one of them for no sample."""

    name = "kills: run of predictions"
    share = 1.0

    def prepare(self) -> None:
        super().prepare()
        path = self.folder / "answers.jsonl"
        rows = [{"id": number, "text": "Yes" if number % 3 else "no."} for number in range(SAMPLES)]
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "foreign", "text": "yes"}]))
        self.model = f"predictions:{path}"


class ScoreKills(PredictionKills):
    """`score` on a finished run, of which it may neither lose responses nor the count of foreign ids."""

    name = "kills: score"
    share = 2.0

    def prepare(self) -> None:
        super().prepare()
        made = Child(command(super().arguments()), self.folder / "told.txt")
        assert made.wait() == 0, made.text
        run = self._only_run()
        assert run is not None
        self.finished = self.folder / "finished"
        self.run = run
        self.data = self.task.parent
        copied(run, self.finished)
        self.responses = (run / "responses-0.jsonl").read_bytes()
        summary = load_run(run).summary
        assert summary is not None and summary["counts"]["unknown"] == 1

    def arguments(self) -> list[str]:
        from evalkit import registry

        registry.include(self.task)
        return ["score", str(self.run), "--json"]

    def begin(self) -> None:
        copied(self.finished, self.run)

    def lost(self) -> str | None:
        if (self.run / "responses-0.jsonl").read_bytes() != self.responses:
            return "responses changed"
        run = load_run(self.run)
        if run.summary is not None and run.summary["counts"].get("unknown") != 1:
            return "the count of foreign ids"
        run.records()
        return None


class JudgeKills(Killed):
    """A run whose answers a judge reads; a reply that was paid for is not asked for again."""

    name = "kills: judge"
    share = 2.0

    def prepare(self) -> None:
        from campaign.servers import JudgeProcess
        from evalkit import registry
        from evalkit.data.locate import miniature

        task = registry.task("mathvista", None)
        drawn = miniature(task)
        samples = list(task.samples("miniature", drawn))
        path = self.folder / "answers.jsonl"
        lines = [json.dumps({"id": s.id, "text": f"I believe that it is {s.target} or so"}) for s in samples]
        path.write_text("\n".join(lines) + "\n")
        self.model = f"predictions:{path}"
        self.runs = self.folder / "runs"
        self.server = JudgeProcess(self.folder / "asked.txt")
        self.replies = 0
        self.questions = 0

    def begin(self) -> None:
        shutil.rmtree(self.runs, ignore_errors=True)
        self.replies = 0
        self.server.reset()

    def arguments(self) -> list[str]:
        fixed = ["run", "-m", self.model, "-t", "mathvista", "--split", "miniature", "--json"]
        return [*fixed, "-o", str(self.runs), "--judge", self.server.url, "--judge-model", "j"]

    def _replies(self) -> int:
        files = list(self.runs.rglob("judge.jsonl")) if self.runs.is_dir() else []
        lines = [line for path in files for line in path.read_bytes().splitlines(keepends=True)]
        return sum(line.endswith(b"\n") and line.startswith(b"{") for line in lines)

    def lost(self) -> str | None:
        before, self.replies = self.replies, self._replies()
        if self.replies < before:
            return f"{before - self.replies} of the judge's replies"
        # what is under way when a command is killed may be asked again: eight at a time, twice at most
        if self.questions and self.server.asked() > self.questions + 16 * self.most_kills:
            return f"replies were paid for again: {self.server.asked()} requests"
        return None

    def result(self) -> Any:
        (run,) = find_runs(self.runs)
        self.questions = self.questions or self.server.asked()
        table, summary = state_of(run)
        for name in ("sent", "again"):  # what the last command alone has cost
            summary["judge"].pop(name, None)
        return table, summary, scratch_files(self.runs)

    def close(self) -> None:
        self.server.close()


TRIALS: tuple[Callable[[Path], Trial], ...] = (RunKills, PredictionKills, ScoreKills, JudgeKills)
