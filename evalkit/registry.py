"""Tasks, models and suites by name, found through entry points; for an unknown name the nearest is given.

Entry point groups: `evalkit.tasks` (a Task class, or a module-level sequence of Task classes),
`evalkit.models` (a ModelFamily object), `evalkit.suites` (a sequence of Suite) and `evalkit.published` (a
sequence of Table).
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from evalkit.contracts import Model, ModelFamily, ModelOptions
from evalkit.errors import CheckpointError, UsageError
from evalkit.near_names import nearest as nearest
from evalkit.suite import Suite, Table, Target
from evalkit.task import MINIATURE, Task

log = logging.getLogger(__name__)

_included: dict[str, type[Task]] = {}


def _plugins(group: str) -> Iterator[Any]:
    """Objects of an entry point group by name; one that fails to import is reported and left out."""
    points = sorted(entry_points(group=group), key=lambda point: point.name)
    yield from (loaded for point in points if (loaded := _load(group, point)) is not None)


def _load(group: str, point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        log.warning("%s %s (%s) cannot be loaded: %s", group, point.name, point.value, cause)
        return None


@lru_cache(maxsize=1)
def _installed_tasks() -> dict[str, type[Task]]:
    found: dict[str, type[Task]] = {}
    for loaded in _plugins("evalkit.tasks"):
        for task in loaded if isinstance(loaded, (list, tuple)) else (loaded,):
            found[task.name] = task
    return found


def tasks() -> Mapping[str, type[Task]]:
    """Every known task class by name; included files win over installed ones."""
    return {**_installed_tasks(), **_included}


@lru_cache(maxsize=1)
def suites() -> Mapping[str, Suite]:
    """Suites by name."""
    return {suite.name: suite for loaded in _plugins("evalkit.suites") for suite in loaded}


@lru_cache(maxsize=1)
def published_tables() -> tuple[Table, ...]:
    """Tables of publications, as printed."""
    return tuple(table for loaded in _plugins("evalkit.published") for table in loaded)


@lru_cache(maxsize=1)
def families() -> tuple[ModelFamily, ...]:
    """Every installed model family, in the order of their entry points' names."""
    return tuple(_plugins("evalkit.models"))


def task(name: str, protocol: str | None = None) -> Task:
    """The task of that name under a protocol.

    Raises:
        UsageError: unknown name or protocol.
    """
    known = tasks()
    if name not in known:
        raise UsageError(
            f"unknown task {name!r}{nearest(name, known)}; `evalkit list tasks` shows all, "
            "--include FILE loads one that is not installed"
        )
    return known[name](protocol)


def targets(names: Sequence[str], split: str | None = None) -> list[Target]:
    """What to run for names, `name@split`, comma lists, globs and suites, each once, in the order asked.

    Args:
        split: takes the place of every other split, a suite's own included.

    Raises:
        UsageError: something that matches nothing, or a split that a task does not have.
    """
    chosen: dict[Target, None] = {}
    for name in (part.strip() for text in names for part in text.split(",") if part.strip()):
        for target in _matching(name):
            chosen[target._replace(split=split) if split else target] = None
    for target in chosen:
        known = (*tasks()[target.task].splits, MINIATURE)
        if target.split is not None and target.split not in known:
            raise UsageError(f"{target.task}: no split {target.split!r}; it has {', '.join(known)}")
    return list(chosen)


def _matching(name: str) -> Sequence[Target]:
    known, groups = tasks(), suites()
    if name in groups:
        return groups[name].targets()
    wanted = Target.parse(name)
    if wanted.task in known:
        return [wanted]
    if matches := fnmatch.filter(sorted(known), wanted.task):
        return [wanted._replace(task=task) for task in matches]
    hint = nearest(name, [*known, *groups])
    raise UsageError(
        f"unknown task or suite {name!r}{hint}; `evalkit list tasks` shows all, "
        "--include FILE loads one that is not installed"
    )


def included_tasks() -> list[str]:
    """Names of the tasks that `include` has loaded."""
    return list(_included)


def included_files() -> list[Path]:
    """Task files that `include` has loaded."""
    from evalkit import task_files

    return sorted({file for kind in _included.values() if (file := task_files.file_of(kind))})


def include(path: Path) -> list[str]:
    """Load a task file, folder or package that is not installed; returns the names of the tasks it defines.

    Raises:
        UsageError: no such file, it fails to import, or it defines no task.
    """
    from evalkit import task_files

    defined = task_files.load(path)
    _included.update({value.name: value for value in defined})
    return [value.name for value in defined]


def model(spec: str, options: ModelOptions) -> Model:
    """Load the model that `spec` names.

    Raises:
        UsageError: no family knows it. CheckpointError: it is not there, or cannot be loaded.
    """
    return family(spec).load(spec, options)


def family(spec: str) -> ModelFamily:
    """The family that `spec` belongs to; loads nothing.

    Raises:
        UsageError: no family knows it. CheckpointError: it is written as a path, and there is no such folder.
    """
    known = families()
    for candidate in known:
        if candidate.matches(spec):
            return candidate
    if spec.startswith((".", "/", "~")) or spec.count("/") > 1 or "\\" in spec:
        found = "is a file, not a folder" if Path(spec).expanduser().is_file() else "no such folder"
        raise CheckpointError(f"--model {spec}: {found}; give a checkpoint's folder, a Hub id or a name")
    names = [name for candidate in known for name in candidate.names()]
    hint = nearest(spec, names)
    raise UsageError(f"unknown model {spec!r}{hint}; `evalkit list models` shows all, or give a folder")
