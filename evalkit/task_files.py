"""Task files that are not installed: a file, a folder or a package, imported with what lies beside it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from evalkit.errors import UsageError
from evalkit.task import Task

_PREFIX = "evalkit_included_"

#: Modules that included files have imported from their folders; another folder may have the same names.
_helpers: set[str] = set()
#: Module name of an included file to the file.
_modules: dict[str, Path] = {}


def file_of(task: type[Task]) -> Path | None:
    """The included file that defines a task."""
    return _modules.get(task.__module__)


def load(path: Path) -> list[type[Task]]:
    """Import what `--include` names; returns the tasks it defines.

    Helpers beside a file are imported as `from helper import …` and as `from .helper import …`.

    Raises:
        UsageError: no such file, it fails to import, or it defines no task.
    """
    files = _files(path)
    for name in [*_helpers, *(name for name, file in _modules.items() if file in files)]:
        sys.modules.pop(name, None)  # a file may have changed since
    _helpers.clear()
    tasks = [task for file in files for task in _tasks(_import(file, path))]
    if not tasks:
        raise UsageError(f"--include {path}: defines no Task; see docs/adding-a-task.md")
    return tasks


def _files(path: Path) -> list[Path]:
    """The Python files to import: of a folder those in it, of a package (`__init__.py`) all below."""
    if path.is_file():
        return [path.resolve()]
    if not path.is_dir():
        raise UsageError(f"--include {path}: no such file or folder")
    package = (path / "__init__.py").is_file()
    found = sorted(path.rglob("*.py") if package else path.glob("*.py"))
    names = [file.resolve() for file in found if package or not file.name.startswith(("_", ".", "test_"))]
    if not names:
        raise UsageError(f"--include {path}: a folder without Python files")
    return names


def _import(file: Path, asked: Path) -> ModuleType:
    base = _base(file)
    names = [*file.parent.relative_to(base).parts, file.stem.replace(".", "_")]
    parent = _namespace(base)
    try:
        with _importable(base, file.parent):
            for name in names[:-1]:  # packages run their __init__.py
                parent = f"{parent}.{name}"
                importlib.import_module(parent)
            name = parent if file.name == "__init__.py" else f"{parent}.{names[-1]}"
            _modules[name] = file
            if name in sys.modules:  # a package, or a file before has imported it
                return sys.modules[name]
            return _execute(name, file, asked)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"--include {asked}: {type(error).__name__}: {error}") from error


def _execute(name: str, file: Path, asked: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"--include {asked}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _base(file: Path) -> Path:
    """The nearest folder above a file that is not a package."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def _namespace(base: Path) -> str:
    """A package that stands for a folder, so that relative imports find files beside; the same in workers."""
    name = _PREFIX + hashlib.sha256(str(base).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(base)]
        sys.modules[name] = package
    return name


@contextmanager
def _importable(*folders: Path) -> Iterator[None]:
    """The folders come first in the path while a file is imported, and last from then on."""
    names = [str(folder) for folder in dict.fromkeys(folders)]
    added = [name for name in names if name not in sys.path]
    before = set(sys.modules)
    sys.path[:0] = added
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for name in added:
            sys.path.remove(name)
            sys.path.append(name)
        for name in sys.modules.keys() - before:
            place = getattr(sys.modules[name], "__file__", None)
            if place and str(Path(place).parent) in names:
                _helpers.add(name)


def _tasks(module: ModuleType) -> list[type[Task]]:
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Task)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
