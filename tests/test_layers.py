"""Which source root may import which (CONTRIBUTING.md), held by reading every import statement."""

from __future__ import annotations

import ast
import graphlib
import importlib
from collections import defaultdict
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


def modules_imported(path: Path) -> Iterator[str]:
    """Modules of evalkit that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "evalkit":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("evalkit."):
            yield str(node.module).removeprefix("evalkit.")


def test_the_rooms_of_evalkit_import_in_one_direction() -> None:
    """A room is a folder or a file of evalkit/; no chain of imports leads back to where it began."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for path in sorted(ROOMS["evalkit"].rglob("*.py")):
        room = path.relative_to(ROOMS["evalkit"]).with_suffix("").parts[0]
        if room != "__init__":
            rooms[room] |= {name.split(".")[0] for name in modules_imported(path)} - {room}
    order = list(graphlib.TopologicalSorter(rooms).static_order())  # a circle raises CycleError
    assert order.index("metrics") < order.index("pipeline") < order.index("cli")


def test_both_ways_to_decode_an_image_refuse_the_same() -> None:
    names = {"FORMATS", "_TEXTS", "_MOST_OF_JPEG", "_LARGE", "_check_whole", "_without_text"}
    shared: list[dict[str, list[str]]] = []
    for file in (ROOMS["evalkit"] / "data/decoding.py", ROOMS["mini_internvl"] / "decoding.py"):
        found = {}
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = [ast.dump(part) for part in node.body]
            elif isinstance(node, ast.Assign):
                found[ast.unparse(node.targets[0])] = [ast.dump(node.value)]
        shared.append({name: found[name] for name in names})
    assert shared[0] == shared[1]


@pytest.mark.parametrize("room", ROOMS)
def test_no_class_name_stands_twice_in_a_package(room: str) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(ROOMS[room].rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path.name)
    assert not {name: files for name, files in places.items() if len(files) > 1}


@pytest.mark.parametrize("room", ROOMS)
def test_files_are_short(room: str) -> None:
    long = [
        path.name
        for path in ROOMS[room].rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
    ]
    assert not long


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "tiny_model"])
def test_names_that_a_package_exports_are_there(room: str) -> None:
    for path in sorted(ROOMS[room].rglob("__init__.py")):
        name = ".".join((room, *path.parent.relative_to(ROOMS[room]).parts))
        if "__all__" in path.read_text(encoding="utf-8"):
            package = importlib.import_module(name)
            assert len(set(package.__all__)) == len(package.__all__)
            assert not [each for each in package.__all__ if not hasattr(package, each)], name
