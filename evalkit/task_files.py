"""Task files that are not installed: a file, a folder or a package, imported with what lies beside it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from evalkit.errors import UsageError
from evalkit.macos import is_attribute
from evalkit.task import Task

_PREFIX = "evalkit_included_"

#: Modules that included files have imported from their folders; another folder may have the same names.
_helpers: set[str] = set()
#: Files of such modules, by the folder that `_base` gives.
_helper_files: dict[Path, set[Path]] = {}
#: Names of packages that stand for folders, where another process has given them.
_namespaces: dict[Path, str] = {}
#: Module name of an included file to the file.
_modules: dict[str, Path] = {}


def file_of(task: type[Task]) -> Path | None:
    """The included file that defines a task."""
    return _modules.get(task.__module__)


class TaskCode(NamedTuple):
    """Included files of one folder, with their helpers, as another machine gets them.

    Attributes:
        namespace: name of the package that stands for the folder, by which objects of its classes are known.
        files: contents by path from the folder. included: the task files among them.
    """

    namespace: str
    files: Mapping[str, bytes]
    included: Sequence[str]


def sources(file: Path) -> list[Path]:
    """An included file, then what it and its neighbours have imported from their folder."""
    return [file, *sorted(_helper_files.get(_base(file), set()) - {file})]


def code_of(files: Sequence[Path]) -> list[TaskCode]:
    """Included files as another machine gets them, with the Python files beside them and their helpers."""
    found: dict[Path, tuple[list[str], dict[str, bytes]]] = {}
    for file in files:
        base = _base(file)
        included, contents = found.setdefault(base, ([], {}))
        included.append(file.relative_to(base).as_posix())
        beside = (path for path in file.parent.glob("*.py") if not is_attribute(path))
        for path in {*sources(file), *beside}:
            contents[path.relative_to(base).as_posix()] = path.read_bytes()
    return [TaskCode(_namespace(base), contents, included) for base, (included, contents) in found.items()]


def unpack(code: TaskCode, folder: Path) -> list[Path]:
    """Write sent files into an empty folder, which must stay; returns the included ones, to be loaded."""
    folder = folder.resolve()
    for name, content in code.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    _namespaces[folder] = code.namespace
    for name in [*sys.modules]:
        if name.partition(".")[0] == code.namespace:
            del sys.modules[name]
    return [folder / name for name in code.included]


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
    found = [file for file in found if not is_attribute(file)]
    names = [file.resolve() for file in found if package or not file.name.startswith(("_", ".", "test_"))]
    if not names:
        raise UsageError(f"--include {path}: a folder without Python files")
    return names


def _import(file: Path, asked: Path) -> ModuleType:
    base = _base(file)
    names = [*file.parent.relative_to(base).parts, file.stem.replace(".", "_")]
    parent = _namespace(base)
    try:
        with _importable(base, file.parent):  # helpers may lie in either
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
    digest = hashlib.sha256(str(base).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    name = _namespaces.get(base, _PREFIX + digest)
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(base)]
        sys.modules[name] = package
    return name


@contextmanager
def _importable(base: Path, folder: Path) -> Iterator[None]:
    """The folders come first in the path while a file is imported, and last from then on."""
    names = [str(path) for path in dict.fromkeys((base, folder))]
    before = set(sys.modules)
    sys.path[:0] = names
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for name in names:
            sys.path.remove(name)
            sys.path.extend([] if name in sys.path else [name])
        known = {name.partition(".")[0] for name in before if not name.startswith(_PREFIX)}
        for name in sys.modules.keys() - before:
            place = getattr(sys.modules[name], "__file__", None)
            if place and name.partition(".")[0] not in known and _lies_in(Path(place), base):
                _helpers.add(name)
                _helper_files.setdefault(base, set()).add(Path(place))


def _lies_in(file: Path, base: Path) -> bool:
    """Whether a module is a helper below a folder, not a package installed there."""
    return file.is_relative_to(base) and not {"site-packages", "dist-packages"} & set(file.parts)


def _tasks(module: ModuleType) -> list[type[Task]]:
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Task)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
