"""Training logs: JSON Lines of numbers by step, and how far an unfinished run is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG = "log.jsonl"
_DEPTH = 3
#: Bytes read of a log; a longer one shows its end.
_MOST = 64 << 20
#: Points of a curve; longer ones are thinned to means of equal stretches.
POINTS = 500


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """Numbers by name over steps, and what could not be read."""

    path: Path
    steps: list[float]
    values: dict[str, list[float]]
    broken: int


def named(file: str, *roots: Path) -> dict[str, Path]:
    """Files of a name under folders, each once, by the folder that holds it as seen from its root."""
    found: dict[str, Path] = {}
    for root in roots:
        for path in find(file, root):
            if path not in found.values():
                name = str(path.parent.relative_to(root)) if path.parent != root else root.name
                if name in found:
                    name = f"{name} ({len(found) + 1})"
                found[name] = path
    return found


def find(file: str, *roots: Path) -> list[Path]:
    """Files of a name under folders, each once."""
    found: dict[Path, None] = {}
    for root in roots:
        base = str(root)
        for place, folders, files in os.walk(base):
            if file in files and (Path(place) / file).is_file():
                found[Path(place) / file] = None
            depth = place[len(base) :].count(os.sep)
            folders[:] = (
                [] if depth >= _DEPTH else sorted(name for name in folders if not name.startswith("."))
            )
    return list(found)


def read_log(path: Path) -> TrainingLog:
    """Read a log; a torn last line is left out, other broken lines are counted.

    Raises:
        OSError: it cannot be read.
    """
    steps: list[float] = []
    rows: list[dict[str, float]] = []
    broken = 0
    for line in _lines(path):
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            broken += 1
            continue
        numbers = _numbers(item)
        if numbers is None:
            broken += 1
        elif "step" in numbers:
            steps.append(numbers.pop("step"))
            rows.append(numbers)
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: [row.get(name, math.nan) for row in rows] for name in names[:200]}
    return TrainingLog(path, steps, values, broken)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MOST))
        if size > _MOST:
            file.readline()
        for line in file:
            if line.endswith(b"\n") and line.strip():
                yield line


def _numbers(item: Any) -> dict[str, float] | None:
    if not isinstance(item, dict):
        return None
    found: dict[str, float] = {}
    for name, value in item.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
            found[name] = float(value)
    return found


class Counter:
    """Counts the responses of unfinished runs, reading only what was added since the last time."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def responses(self, folder: Path) -> int:
        """Stored responses; a sample that was asked again counts again."""
        return sum(self._count(path) for path in folder.glob("responses-*.jsonl"))

    def _count(self, path: Path) -> int:
        offset, lines = self._seen.get(str(path), (0, 0))
        if not path.is_file():  # reading a pipe would wait for its writer
            return lines
        try:
            with path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < offset:
                    offset, lines = 0, 0
                file.seek(offset)
                while block := file.read(1 << 20):
                    lines += block.count(b"\n")
                    offset += len(block)
        except OSError:
            return lines
        self._seen[str(path)] = (offset, lines)
        return lines
