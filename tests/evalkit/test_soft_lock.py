"""Run folders on file systems that cannot lock."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import RunFolderError
from evalkit.store import load_run, lock, open_run
from evalkit.store.folder import open_for_scoring


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "_told", False)


def opened(folder: Path) -> Any:
    return open_run(folder, "m", "t", "test", "same", {"outcome": None}, resume=True)


def test_a_run_is_written_and_a_partial_one_is_not_running(
    no_locks: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as run:
        assert load_run(run.path).status == "running"
        with pytest.raises(lock.LockedError, match="another process is writing this run"):
            opened(tmp_path)
    assert load_run(run.path).status == "partial"
    with opened(tmp_path) as again:
        assert again.path == run.path and again.resumed
    assert caplog.text.count("this file system cannot lock") == 1
    assert "without a sign for 60 s counts as gone" in caplog.text


def test_a_killed_writer_of_this_machine_is_seen_at_once(no_locks: None, tmp_path: Path) -> None:
    program = f"""
        import errno, fcntl, time, pathlib
        def refuse(*_): raise OSError(errno.ENOLCK, "No locks available")
        fcntl.flock = refuse
        from evalkit.store import lock
        held = lock.acquire(pathlib.Path({str(tmp_path)!r}))
        print("there", flush=True)
        time.sleep(60)
    """
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None and writer.stdout.readline() == "there\n"
    assert lock.is_held(tmp_path)
    with pytest.raises(lock.LockedError):
        lock.acquire(tmp_path, 0.1)
    writer.kill()
    writer.communicate()
    assert not lock.is_held(tmp_path)
    began = time.monotonic()
    lock.acquire(tmp_path).release()
    assert time.monotonic() - began < 5


def test_a_lease_of_another_machine_ends_without_a_sign(
    no_locks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE", 1.0)
    monkeypatch.setattr(lock, "_SIGN", 0.3)
    lease = tmp_path / lock.LEASE_NAME
    lease.write_text("filelock/2\npid=7\nhost=elsewhere\nmode=lease\ntoken=" + "a" * 32 + "\nduration=1.0\n")
    assert lock.is_held(tmp_path)
    with pytest.raises(lock.LockedError):
        lock.acquire(tmp_path, 0.1)
    os.utime(lease, (time.time() - 5, time.time() - 5))
    assert not lock.is_held(tmp_path)
    lock.acquire(tmp_path, 0.1).release()  # watched for its time, then taken over


def test_a_lease_keeps_out_those_who_can_lock(tmp_path: Path) -> None:
    (tmp_path / lock.LEASE_NAME).write_text("filelock/2\npid=7\nhost=elsewhere\n")
    assert lock.is_held(tmp_path)
    with pytest.raises(lock.LockedError):
        lock.acquire(tmp_path)
    (tmp_path / lock.LEASE_NAME).unlink()
    held = lock.acquire(tmp_path)
    assert lock.is_held(tmp_path)
    held.release()
    assert not lock.is_held(tmp_path)


def test_a_folder_that_cannot_be_written_names_a_way_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "a b") as run:
        path = run.path
    plain = os.open

    def read_only(name: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return plain(name, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(
        RunFolderError, match=r"Read-only file system\); make it writable, or .* copy: cp -r '"
    ):
        open_for_scoring(path)
    with pytest.raises(RunFolderError, match="choose another --output"):
        opened(tmp_path / "a b")
