"""One writer for each run folder. The operating system holds the lock, so a killed process leaves none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from evalkit.errors import RunFolderError

LOCK_NAME = ".lock"

#: Seconds that a writer waits: a reader that tests the lock holds it for an instant.
_PATIENCE = 1.0


def acquire(folder: Path, patience: float = _PATIENCE) -> FileLock:
    """Lock the folder for this process.

    Raises:
        RunFolderError: another process has it, or the file system cannot lock.
    """
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=patience, poll_interval=0.02)
    except Timeout:
        raise RunFolderError(
            f"{folder}: another process is writing this run; wait for it, or start a new one with --no-resume"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise RunFolderError(f"{folder}: cannot be locked ({error}); choose another --output") from None
    return lock


@contextmanager
def held(folder: Path, patience: float = 30.0) -> Iterator[None]:
    """Hold the folder's lock during a block."""
    lock = acquire(folder, patience)
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether some process is writing the folder. Writes nothing."""
    path = folder / LOCK_NAME
    if not path.is_file():
        return False
    try:
        import fcntl
    except ImportError:  # Windows
        return _held_elsewhere(path)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _held_elsewhere(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False
