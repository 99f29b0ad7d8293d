"""Runs of the toy benchmark in several processes, and what an undisturbed one stores."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.pipeline.options import RunOptions
from evalkit.pipeline.results import RunResult
from evalkit.store import load_run

SAMPLES = 120


@dataclass
class Ground:
    """A benchmark in a folder, and where runs go."""

    folder: Path
    task: Path

    def options(self, **changes: object) -> RunOptions:
        """Options of a run into this test's folder."""
        given = {"data_root": self.folder / "data", "output": self.folder / "runs", "quiet": True, **changes}
        return RunOptions("puppet", **given)  # type: ignore[arg-type]


def plain(path: Path | str) -> list[tuple[str, str, str]]:
    """Id, text and error of each record."""
    return [
        (record.id, record.text, record.error.kind if record.error else "")
        for record in load_run(path).records()
    ]


def expected(
    failed: set[int] | None = None, kind: str = "worker", samples: int = SAMPLES
) -> list[tuple[str, ...]]:
    """Records of an undisturbed run, but for the failed ones."""
    failed = failed or set()
    found: list[tuple[str, ...]] = []
    for number in range(samples):
        text = "No." if sum(map(ord, str(number))) % 5 == 0 else "Yes"
        found.append((str(number), "", kind) if number in failed else (str(number), text, ""))
    return found


def answered_once(result: RunResult | Path) -> None:
    """No stored answer is there twice."""
    folder = Path(result if isinstance(result, Path) else result.path)
    lines = [line for path in folder.glob("responses-*.jsonl") for line in path.read_bytes().splitlines()]
    twice = [name for name, count in Counter(json.loads(line)["id"] for line in lines).items() if count > 1]
    assert not twice, twice


def stored(folder: Path) -> int:
    """Answers stored in all runs under a folder."""
    return sum(path.read_bytes().count(b"\n") for path in response_files(folder))


def response_files(folder: Path, which: str = "*") -> list[Path]:
    """Of all runs under a folder, whose own folders may come and go meanwhile."""
    while True:
        with suppress(FileNotFoundError):
            return list(folder.rglob(f"responses-{which}.jsonl"))


def until(condition: Callable[[], Any], seconds: float = 240) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
