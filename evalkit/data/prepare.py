"""Turns raw downloads (archives and loose files) into the folder that a task reads."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from evalkit import macos
from evalkit.data.archives import is_archive, unpack
from evalkit.data.locate import missing_files
from evalkit.errors import DataError
from evalkit.task import DataFile, Task

log = logging.getLogger(__name__)


def prepare(task: Task, source: Path, folder: Path) -> list[Path]:
    """Unpack the archives in `source` and put the task's official files into `folder` by their names.

    Files are found by the end of their path, so it does not matter in which folder an archive holds them.
    What `folder` has already is kept. Downloads are copied, never changed.

    Returns:
        The files and folders that were put in place.

    Raises:
        DataError: nothing of the task was found, or an archive is broken or refused.
    """
    if not source.is_dir():
        raise DataError(f"--from {source}: no such folder")
    folder.mkdir(parents=True, exist_ok=True)
    absent = {split: missing_files(task, split, folder) for split in task.splits}
    wanted = list(dict.fromkeys(file for files in absent.values() for file in files))
    if not wanted:
        return []
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as scratch:
        trees = [*_unpacked(source, Path(scratch)), source]
        places = [_place(file, trees, folder, Path(scratch)) for file in wanted]
    placed = list(dict.fromkeys(place for place in places if place is not None))
    if not placed and all(absent.values()):
        names = ", ".join(file.path for file in wanted)
        raise DataError(
            f"{source}: holds nothing of {task.name} (looked for {names}); see `evalkit data where`"
        )
    return placed


def _unpacked(source: Path, scratch: Path) -> Iterator[Path]:
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and not macos.is_attribute(path)]
    archives = [path for path in files if is_archive(path)]
    for number, archive in enumerate(archives):
        tree = scratch / str(number)
        tree.mkdir()
        count = unpack(archive, tree)
        log.info("%s: %d files", archive, count)
        yield tree


def _place(file: DataFile, trees: Iterable[Path], folder: Path, scratch: Path) -> Path | None:
    """Put the first spelling of the file that some tree holds into the folder; None where none does."""
    spellings = [name for name in (file.path, *file.alternatives) if ".." not in PurePosixPath(name).parts]
    for name in spellings:
        for tree in trees:
            if (found := _find(tree, name)) is not None:
                target = folder.joinpath(*found.parts[-len(PurePosixPath(name).parts) :])
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if found.is_relative_to(scratch):
                        found.rename(target)
                    else:
                        _copy(found, target)
                return target
    return None


def _find(tree: Path, name: str) -> Path | None:
    """The shallowest path under the tree that ends in `name` (`*` stands for any text)."""
    found = tree.rglob(name.rstrip("/"))
    matches = [path for path in found if path.is_dir() == name.endswith("/") and not macos.is_attribute(path)]
    return min(matches, key=lambda path: (len(path.parts), str(path)), default=None)


def _copy(found: Path, target: Path) -> None:
    """Copy whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    if found.is_dir():
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(found, part)
    else:
        shutil.copyfile(found, part)
    part.rename(target)
