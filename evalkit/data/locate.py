"""Where a benchmark's files are: a local folder, the Hub's copy in the cache, or the drawn miniature.

`locate` is what a run calls. The cache is `EVALKIT_CACHE`, or `~/.cache/evalkit`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from evalkit import macos
from evalkit.errors import DataError, UsageError
from evalkit.task import MINIATURE, DataFile, HubSource, Task

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Folder of drawn miniatures and of the Hub's data sets: `EVALKIT_CACHE`, or `~/.cache/evalkit`."""
    return Path(os.environ.get("EVALKIT_CACHE") or Path.home() / ".cache" / "evalkit")


def locate(task: Task, split: str, data_root: Path | None = None, offline: bool = False) -> Path:
    """The folder from which `task.samples(split, folder)` reads.

    The miniature is drawn into the cache once. Otherwise the data root (`data_root`, or `EVALKIT_DATA`) is
    taken as `ROOT/<task>` where that exists, else `ROOT` itself. Without a data root, the Hub's copy is
    used: from the cache if it is there, else downloaded unless `offline` forbids it.

    Raises:
        DataError: nothing holds the split; names the files, their sources and where to put them.
    """
    if split == MINIATURE:
        return miniature(task)
    if (root := given_root(data_root)) is not None:
        return _local(task, split, root)
    source = task.data_source.hub_of(split)
    if source is None:
        raise DataError(f"{_request(task, split)} and give --data-root DIR")
    folder = _hub_folder(source)
    if _complete(folder):
        return folder
    if offline:
        raise DataError(
            f"{_request(task, split)}, or run once without --offline to download {source.repository}"
        )
    try:
        return download(source)
    except DataError as error:
        raise DataError(f"{_request(task, split)} and give --data-root DIR; {error}") from None


def given_root(data_root: Path | None) -> Path | None:
    """The data root given, else `EVALKIT_DATA`, else None."""
    variable = os.environ.get("EVALKIT_DATA")
    return data_root or (Path(variable) if variable else None)


def task_folder(task: Task, data_root: Path) -> Path:
    """`data_root/<task>` where that exists, otherwise `data_root` itself."""
    own = data_root / task.name
    return own if own.is_dir() else data_root


def missing_files(task: Task, split: str, folder: Path) -> list[DataFile]:
    """Official files of the split that `folder` lacks; image folders (paths with a final `/`) included."""
    return [file for file in task.data_source.files_of(split) if file.find(folder) is None]


def _local(task: Task, split: str, data_root: Path) -> Path:
    if not data_root.is_dir():
        raise DataError(f"{data_root}: no such folder; {_request(task, split)} there")
    folder = task_folder(task, data_root)
    # Images may be absent when answers are stored already; only a sample that needs one fails.
    absent = [file for file in missing_files(task, split, folder) if not file.path.endswith("/")]
    if absent and not (task.data_source.hub_of(split) and hub_files(folder)):
        held = [name for name in task.splits if task.data_source.files_of(name)]
        others = [name for name in held if not missing_files(task, name, folder)]
        other = f" (it holds the split {others[0]}: --split {others[0]})" if others else ""
        raise DataError(
            f"{task.name} {split}: {folder} lacks {_names(absent)} (from {absent[0].source}){other}; put it "
            f"there, see `evalkit data where {task.name}`"
        )
    return folder


def _names(files: Sequence[DataFile]) -> str:
    return ", ".join(file.path for file in files)


def _request(task: Task, split: str) -> str:
    files = task.data_source.files_of(split)
    if not files:
        return f"{task.name} {split}: no data found; put the official files into DIR/{task.name}"
    sources = ", ".join(dict.fromkeys(file.source for file in files))
    return f"{task.name} {split}: no data found; put {_names(files)} (from {sources}) into DIR/{task.name}"


def miniature(task: Task) -> Path:
    """The drawn miniature of the task in the cache; drawn now if it is not there, whole or not at all.

    Raises:
        UsageError: the task has none. DataError: the cache cannot be written.
    """
    if (draw := task.data_source.draw) is None:
        raise UsageError(f"{task.name}: no miniature split")
    parent = cache_folder() / "miniature" / task.name
    folder = parent / f"{task.version}-{_drawing_version(task)}"
    if folder.is_dir():
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=parent, prefix=".drawing-"))
    except OSError as error:
        raise DataError(f"{parent}: cannot be written ({error.strerror}); set EVALKIT_CACHE") from None
    try:
        draw(scratch)
        _publish(scratch, folder)
    except OSError as error:
        why = f"{parent}: the miniature cannot be written ({error.strerror or error})"
        raise DataError(f"{why}; free some space, or set EVALKIT_CACHE to another folder") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _publish(scratch: Path, folder: Path) -> None:
    """Rename a finished folder into place; another process that was faster wins."""
    try:
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _drawing_version(task: Task) -> str:
    """Digits that change with the code that draws: the task's file and its package's `miniatures`."""
    module = inspect.getmodule(type(task))
    files = [Path(module.__file__)] if module is not None and module.__file__ else []
    package = f"{type(task).__module__.partition('.')[0]}.miniatures"
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        files += sorted(Path(place).glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


# The Hub ------------------------------------------------------------------------------------------------


def _hub_folder(source: HubSource) -> Path:
    parts = (source.repository, source.configuration, source.split, source.revision)
    return cache_folder() / "hub" / "@".join(part.replace("/", "--") for part in parts if part)


def hub_files(folder: Path) -> list[Path]:
    """Parquet files in the folder or one below, as the Hub lays them."""
    found = (*folder.glob("*.parquet"), *folder.glob("*/*.parquet"))
    return sorted(path for path in found if not macos.is_attribute(path))


def _complete(folder: Path) -> bool:
    return (folder / ".complete").is_file()


def _patterns(source: HubSource) -> list[str]:
    """The source's own files, or the split's Parquet files as the Hub lays them: `<configuration>/<split>-*`
    or `data/<split>-*`."""
    if source.files:
        return list(source.files)
    split = f"{source.split}[-_.]*" if source.split else "*"
    folders = [f"{source.configuration}/"] if source.configuration else ["", "data/"]
    return [f"{folder}{split}parquet" for folder in folders]


def download(source: HubSource) -> Path:
    """Copy the split's files from the Hub into the cache; afterwards no network is needed.

    Not by `datasets.load_dataset`, which downloads and copies every split of the configuration.

    Raises:
        DataError: the Hub cannot be reached, refuses, or holds no such files.
    """
    from huggingface_hub import snapshot_download

    folder = _hub_folder(source)
    log.info("downloading %s from the Hub into %s", source.repository, folder)
    try:
        snapshot_download(
            source.repository,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=_patterns(source),
            local_dir=folder,
        )
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise DataError(f"{source.repository} cannot be downloaded from the Hub ({cause})") from None
    if not (all((folder / name).is_file() for name in source.files) if source.files else hub_files(folder)):
        kind = "" if source.files else "Parquet files "
        raise DataError(f"{source.repository} does not hold {kind}{', '.join(_patterns(source))} on the Hub")
    try:
        (folder / ".complete").touch()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); set EVALKIT_CACHE") from None
    return folder
