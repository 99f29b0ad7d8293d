"""Tasks, models and suites by name, found through entry points; unknown names are answered with the nearest.

Entry point groups: `evalkit.tasks` (a Task class, or a module-level sequence of Task classes),
`evalkit.models` (a ModelFamily object) and `evalkit.suites` (a mapping of suite name to task names).
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path

from evalkit.contracts import Model, ModelFamily, ModelOptions
from evalkit.errors import UsageError
from evalkit.task import Task

_included: dict[str, type[Task]] = {}


@lru_cache(maxsize=1)
def _installed_tasks() -> dict[str, type[Task]]:
    found: dict[str, type[Task]] = {}
    for point in entry_points(group="evalkit.tasks"):
        loaded = point.load()
        for task in loaded if isinstance(loaded, (list, tuple)) else (loaded,):
            found[task.name] = task
    return found


def tasks() -> Mapping[str, type[Task]]:
    """Every known task class by name; included files win over installed ones."""
    return {**_installed_tasks(), **_included}


@lru_cache(maxsize=1)
def suites() -> Mapping[str, tuple[str, ...]]:
    """Task names by suite name."""
    found: dict[str, tuple[str, ...]] = {}
    for point in entry_points(group="evalkit.suites"):
        found.update({name: tuple(members) for name, members in point.load().items()})
    return found


@lru_cache(maxsize=1)
def families() -> tuple[ModelFamily, ...]:
    """Every installed model family, in the order of their entry points' names."""
    points = sorted(entry_points(group="evalkit.models"), key=lambda point: point.name)
    return tuple(point.load() for point in points)


def nearest(name: str, known: Iterable[str]) -> str:
    """` (nearest: a, b)` for an error text, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" (nearest: {', '.join(close)})" if close else ""


def task(name: str, protocol: str | None = None) -> Task:
    """The task of that name under a protocol.

    Raises:
        UsageError: unknown name or protocol.
    """
    known = tasks()
    if name not in known:
        raise UsageError(f"unknown task {name!r}{nearest(name, known)}; `evalkit list tasks` shows all")
    return known[name](protocol)


def expand(names: Sequence[str]) -> list[str]:
    """Task names from names, comma lists, globs and suites, each once, in the order asked.

    Raises:
        UsageError: something that matches nothing.
    """
    known, groups = tasks(), suites()
    chosen: dict[str, None] = {}
    for name in (part.strip() for text in names for part in text.split(",") if part.strip()):
        if name in known:
            chosen[name] = None
        elif name in groups:
            chosen.update(dict.fromkeys(groups[name]))
        elif matches := fnmatch.filter(sorted(known), name):
            chosen.update(dict.fromkeys(matches))
        else:
            hint = nearest(name, [*known, *groups])
            raise UsageError(f"unknown task or suite {name!r}{hint}; `evalkit list tasks` shows all")
    return list(chosen)


def include(path: Path) -> list[str]:
    """Load a task file that is not installed; returns the names of the tasks it defines.

    Raises:
        UsageError: no such file, it fails to import, or it defines no task.
    """
    if not path.is_file():
        raise UsageError(f"--include {path}: no such file")
    module_name = f"evalkit_included_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--include {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"--include {path}: {type(error).__name__}: {error}") from error
    defined = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Task)
        and value.__module__ == module_name
        and not inspect.isabstract(value)
    ]
    if not defined:
        raise UsageError(f"--include {path}: defines no Task; see docs/adding-a-task.md")
    _included.update({value.name: value for value in defined})
    return [value.name for value in defined]


def model(spec: str, options: ModelOptions) -> Model:
    """Load the model that `spec` names.

    Raises:
        UsageError: no family knows it; CheckpointError: it cannot be loaded.
    """
    known = families()
    for family in known:
        if family.matches(spec):
            return family.load(spec, options)
    names = [name for family in known for name in family.names()]
    hint = nearest(spec, names)
    raise UsageError(f"unknown model {spec!r}{hint}; `evalkit list models` shows all, or give a folder")
