"""Hostile run folders: any of a finished run's files, read by `show` and by `score`."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import toy

from campaign.mutations import Members, difference, mutate_bytes, mutate_json, parse, write
from campaign.processes import Child, command
from campaign.trial import Trial, Verdict, ask, judge, told
from evalkit import registry
from evalkit.pipeline.finish import score_run
from evalkit.pipeline.results import describe
from evalkit.store import find_runs, load_run

FILES = ("manifest.json", "summary.json", "responses-0.jsonl", "records.parquet")


class _RunFolders(Trial):
    share = 1.5

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        task = toy.make_benchmark(folder / "data", 12)
        arguments = ["run", "--include", str(task), "-m", "fake", "-t", "yes-no", "--json"]
        arguments += ["--data-root", str(task.parent), "-o", str(folder / "runs")]
        made = Child(command(arguments), folder / "told.txt")
        if made.wait() != 0:
            raise AssertionError(made.text)
        registry.include(task)
        (self.good,) = find_runs(folder / "runs")
        self.run = folder / "copy"
        shutil.copytree(self.good, self.run)
        self.base = self.read()

    def read(self) -> Any:
        """What a command says of the folder."""
        raise NotImplementedError

    def once(self, rng: random.Random) -> Verdict:
        """Read the folder with one file changed."""
        shutil.rmtree(self.run)
        shutil.copytree(self.good, self.run)
        name = rng.choice(FILES)
        good = (self.good / name).read_bytes()
        data = self._changed(name, good, rng)
        (self.run / name).write_bytes(data)
        verdict = judge(ask(self.read), self.base, touched=lambda: self.reads(name, good, data))
        return told(verdict, lambda: f"{name}: {difference(good, data)}")

    def _changed(self, name: str, good: bytes, rng: random.Random) -> bytes:
        if name.endswith(".parquet") or rng.random() < 0.3:
            return mutate_bytes(good, rng)
        if name.endswith(".jsonl"):
            lines = good.splitlines(keepends=True)
            number = rng.randrange(len(lines))
            text = write(mutate_json(parse(lines[number]), rng)[0])
            lines[number] = text.encode("utf-8", "surrogatepass") + b"\n"
            return b"".join(lines)
        return write(mutate_json(parse(good), rng)[0]).encode("utf-8", "surrogatepass")

    def reads(self, name: str, good: bytes, data: bytes) -> bool:
        """Whether the command must notice the change."""
        raise NotImplementedError


class Shown(_RunFolders):
    """`show` prints the summary; a torn or ambiguous one is refused."""

    name = "run folders: show"

    def read(self) -> Any:
        run = load_run(self.run)
        return json.dumps([describe(run), [str(record) for record in run.records()]], default=str)

    def reads(self, name: str, good: bytes, data: bytes) -> bool:
        if name != "summary.json":
            return False  # equal summary and records: what is printed is what was scored
        try:
            return bool(_plain(parse(good)) != _plain(parse(data)))
        except (ValueError, RecursionError):
            return True


def _plain(value: Any) -> Any:
    return {"run": None, **dict(value)} | {"run": None} if isinstance(value, Members) else value


class Scored(_RunFolders):
    """`score` makes everything again from the responses; equal responses give equal values."""

    name = "run folders: score"

    def read(self) -> Any:
        result = score_run(self.run)
        texts = [(r.id, r.text, dict(r.scores), r.error) for r in load_run(self.run).records()]
        return json.dumps([result.summary["metrics"], result.summary["counts"], texts], default=str)

    def reads(self, name: str, good: bytes, data: bytes) -> bool:
        if name != "responses-0.jsonl":
            return False  # equal records of the same responses
        return self._texts(good) != self._texts(data)

    def _texts(self, data: bytes) -> Any:
        try:
            lines = data.split(b"\n")
            rows = [dict(parse(line)) for line in lines[:-1]]  # what follows the last newline is a torn line
            return sorted(repr([row.get("id"), row.get("text")]) for row in rows)
        except Exception:
            return None


TRIALS: tuple[Callable[[Path], Trial], ...] = (Shown, Scored)
