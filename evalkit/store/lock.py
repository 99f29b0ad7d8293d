"""One writer for each run folder. The operating system holds the lock, so a killed process leaves none.

Some network file systems cannot lock (NFS, Lustre or Weka without their lock service). There a lease takes
the lock's place: a file that names host and process and is touched again and again.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from evalkit.environment import is_windows
from evalkit.errors import RunFolderError

log = logging.getLogger(__name__)

LOCK_NAME, LEASE_NAME = ".lock", ".lease"

#: Seconds that a writer waits: a reader that tests the lock holds it for an instant.
_PATIENCE = 1.0
#: Seconds without a sign of life after which a lease has ended, and seconds between two signs.
LEASE, _SIGN = 60.0, 10.0
#: What a file system says that cannot lock.
_UNABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)

_told = False


class LockedError(RunFolderError):
    """Another process has the folder."""


def acquire(folder: Path, patience: float = _PATIENCE, fix: str = "choose another --output") -> BaseFileLock:
    """Lock the folder for this process.

    Args:
        fix: what to do where the folder cannot be written.

    Raises:
        LockedError: another process has it. RunFolderError: it cannot be written.
    """
    try:
        unable = _flock_error(folder)
        if unable is not None:
            _tell(folder, unable)
            return _lease(folder, patience)
        lock = FileLock(folder / LOCK_NAME)
        lock.acquire(timeout=patience, poll_interval=0.02)
        if _is_leased(folder):  # by a machine on which the same file system cannot lock
            lock.release()
            raise Timeout(str(folder / LEASE_NAME))
        return lock
    except Timeout:
        raise LockedError(
            f"{folder}: another process is writing this run; wait for it, or start a new one with --no-resume"
        ) from None
    except (OSError, NotImplementedError) as error:
        said = getattr(error, "strerror", None) or error
        raise RunFolderError(f"{folder}: cannot be written ({said}); {fix}") from None


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
    return _is_leased(folder) or _is_locked(folder / LOCK_NAME)


def _is_locked(path: Path) -> bool:
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
    except OSError as error:
        return error.errno not in _UNABLE  # who cannot lock has a lease
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


def _flock_error(folder: Path) -> OSError | None:
    """Why the file system cannot lock; None where it can.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows, which locks everywhere
        return None
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error if error.errno in _UNABLE else None
    finally:
        os.close(descriptor)
    return None


def _lease(folder: Path, patience: float) -> BaseFileLock:
    """Raises Timeout where another process has it."""
    lease = SoftFileLease(
        folder / LEASE_NAME,
        lease_duration=LEASE,
        heartbeat_interval=_SIGN,
        thread_local=False,
        on_compromise=lambda loss: log.warning(
            "%s: another process has taken the lease of this one (%s)", folder, loss.reason
        ),
    )
    wait = patience
    if (folder / LEASE_NAME).exists() and not _is_leased(folder):
        wait = max(patience, LEASE + _SIGN)  # a lease of a lost machine is watched for as long as it may last
    lease.acquire(timeout=wait, poll_interval=0.05)
    return lease


def _is_leased(folder: Path) -> bool:
    """Whether a lease was touched lately, and not by a process of this machine that has ended."""
    path = folder / LEASE_NAME
    try:
        age = time.time() - path.stat().st_mtime
        owner = dict(
            line.split("=", 1) for line in path.read_text("ascii", "replace").splitlines() if "=" in line
        )
    except OSError:
        return False
    here = owner.get("host", "").partition("?")[0] == socket.gethostname()
    if here and not is_windows():  # there, signal 0 is Ctrl-C
        with suppress(ValueError, OSError):
            os.kill(int(owner.get("pid", "")), 0)
            return age < LEASE
        return False
    return age < LEASE


def _tell(folder: Path, error: OSError) -> None:
    global _told
    if not _told:
        _told = True
        log.warning(
            "%s: this file system cannot lock (%s): a file that is touched every %g s stands for a lock, and "
            "a writer without a sign for %g s counts as gone", folder, error.strerror, _SIGN, LEASE,
        )  # fmt: skip
