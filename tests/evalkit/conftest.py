"""Fixtures of the harness' tests: the toy benchmark, the fake model, the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from toy import FakeFamily, FakeModel, make_benchmark

from evalkit import registry
from evalkit.cli.main import invoke


@dataclass
class Bench:
    """The toy benchmark in a folder of its own, and how to call the command line on it."""

    folder: Path
    task: Path
    output: Path
    family: FakeFamily
    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    @property
    def model(self) -> FakeModel:
        """The fake model that runs."""
        if self.family.model is None:
            self.family.model = FakeModel()
        return self.family.model

    def cli(self, *arguments: str | Path) -> int:
        """Run a command in this process; its streams are then in `out` and `err`."""
        self.capsys.readouterr()
        status = invoke([str(argument) for argument in arguments])
        self.out, self.err = self.capsys.readouterr()
        return status

    def run(self, *arguments: str | Path, model: str = "fake") -> int:
        """`evalkit run` of the toy task with `--json`."""
        fixed = ["-m", model, "-t", "yes-no", "--data-root", self.folder, "-o", self.output, "--json"]
        return self.cli("run", "--include", self.task, *fixed, *arguments)

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)

    @property
    def result(self) -> Any:
        """The one element of its `runs`."""
        (run,) = self.document["runs"]
        return run


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the user's, and a cache of the test's own."""
    import os

    for name in list(os.environ):
        if name.startswith("EVALKIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bench(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    plain_environment: None,
) -> Iterator[Bench]:
    """Twenty samples on five pictures, and a fake model beside stored predictions."""
    from evalkit_models.predictions import FAMILY

    family = FakeFamily()
    monkeypatch.setattr(registry, "families", lambda: (family, FAMILY))
    monkeypatch.setattr(registry, "_included", {})
    task = make_benchmark(tmp_path / "data")
    yield Bench(task.parent, task, tmp_path / "runs", family, capsys)


@pytest.fixture
def predictions(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a predictions file by name and text."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
