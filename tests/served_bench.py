"""The toy benchmark, asked of a served model by `evalkit run`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chat_server import Server, completion
from toy import make_benchmark

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit_models import sending
from evalkit_models.served import FAMILY


class Bench:
    """The toy benchmark, and `evalkit run` of a served model on it."""

    def __init__(self, folder: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
        self.task = make_benchmark(folder / "data")
        self.output = folder / "runs"
        self.server, self.capsys = server, capsys
        self.out = self.err = ""

    def run(self, *arguments: str, url: str = "") -> int:
        self.capsys.readouterr()
        fixed = ["--include", self.task, "-m", "openai:m", "-t", "yes-no", "--data-root", self.task.parent]
        fixed += ["-o", self.output, "--json", "--base-url", url or self.server.url]
        status = invoke(["run", *map(str, fixed), *arguments])
        self.out, self.err = self.capsys.readouterr()
        return status

    @property
    def result(self) -> dict[str, Any]:
        (run,) = json.loads(self.out)["runs"]
        assert isinstance(run, dict)
        return run

    def everything(self) -> str:
        """All that was written or said."""
        files = [path.read_bytes().decode("latin-1") for path in self.output.rglob("*") if path.is_file()]
        return "\n".join([self.out, self.err, *files])


@contextmanager
def open_bench(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    unset: Iterable[str],
) -> Iterator[Bench]:
    """A bench whose server answers Yes, without pauses between attempts and without these variables."""
    for name in unset:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sending, "BACKOFF", 0.001)
    monkeypatch.setattr(registry, "families", lambda: (FAMILY,))
    monkeypatch.setattr(registry, "_included", {})
    server = Server()
    server.behave = lambda body, attempt: completion("Yes")
    yield Bench(folder, server, capsys)
    server.close()
