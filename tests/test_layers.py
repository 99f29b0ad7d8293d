"""Which source root may import which (CONTRIBUTING.md), held by reading every import statement."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

ROOMS = {
    "evalkit": REPOSITORY / "evalkit",
    "evalkit_tasks": REPOSITORY / "tasks/evalkit_tasks",
    "mini_internvl": REPOSITORY / "models/mini_internvl",
    "evalkit_models": REPOSITORY / "models/evalkit_models",
    "mini_internvl_train": REPOSITORY / "train/mini_internvl_train",
    "tiny_model": REPOSITORY / "train/tiny_model",
    "evalkit_leaderboard": REPOSITORY / "leaderboard_app/evalkit_leaderboard",
}

#: What each room may import of the others.
ALLOWED: dict[str, set[str]] = {
    "evalkit": set(),
    "evalkit_tasks": {"evalkit"},
    "mini_internvl": set(),
    "evalkit_models": {"evalkit", "mini_internvl"},
    "mini_internvl_train": {"mini_internvl", "evalkit", "evalkit_tasks", "evalkit_models"},
    "tiny_model": {"mini_internvl_train", "mini_internvl", "evalkit_tasks"},
    "evalkit_leaderboard": {"evalkit"},
}


def imported_rooms(path: Path) -> Iterator[str]:
    """Names of our rooms that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        for name in names:
            room = name.split(".")[0]
            if room in ROOMS:
                yield room


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_what_it_may(room: str) -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {other}"
        for path in sorted(ROOMS[room].rglob("*.py"))
        for other in imported_rooms(path)
        if other != room and other not in ALLOWED[room]
    ]
    assert not wrong, wrong


def test_every_room_exists() -> None:
    for folder in ROOMS.values():
        assert (folder / "__init__.py").is_file()
