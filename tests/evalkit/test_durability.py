"""What is said to be stored is on the disk: flushed before it is renamed, and before it is relied on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Server

from evalkit.contracts import Response
from evalkit.errors import RunFolderError
from evalkit.judge import Judge
from evalkit.store import ResponseLog
from evalkit.store.atomic import write_json
from evalkit.task import JudgeQuestion


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    """Every file and folder flushed to the disk, with its size then."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("names of open files are read from /proc")
    found: list[tuple[Path, int]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        found.append((Path(f"/proc/self/fd/{descriptor}").readlink(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    return found


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def test_a_file_is_flushed_before_it_takes_its_place_and_its_folder_after(
    tmp_path: Path, flushed: list[tuple[Path, int]]
) -> None:
    write_json(tmp_path / "summary.json", {"a": "b" * 100})
    (scratch, size), (folder, _) = flushed
    assert scratch.parent == tmp_path and scratch.name != "summary.json" and size > 100
    assert folder == tmp_path


def test_responses_are_flushed_a_batch_at_a_time_and_at_the_end(
    tmp_path: Path, flushed: list[tuple[Path, int]]
) -> None:
    path = tmp_path / "responses-0.jsonl"
    log = ResponseLog(path)
    for number in range(1000):
        log.append(str(number), "key", Response("yes", "stop"))
    assert path in [file for file, _ in flushed], "a power cut costs a batch, not the run"
    log.close()
    assert max(size for file, size in flushed if file == path) == path.stat().st_size
    flushed.clear()
    with path.open("ab") as file:
        file.write(b'{"id": "torn')
    whole = path.stat().st_size - len(b'{"id": "torn')
    ResponseLog(path).close()
    assert path.stat().st_size == whole
    assert (path, whole) in flushed, "what was cut off does not come back"


def test_a_disk_that_refuses_to_flush_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = ResponseLog(tmp_path / "responses-0.jsonl")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunFolderError, match="disk is full"):
        for number in range(64):
            log.append(str(number), "key", Response("yes", "stop"))
    monkeypatch.undo()
    log.close()


def test_a_judges_reply_is_flushed(tmp_path: Path, flushed: list[tuple[Path, int]], server: Server) -> None:
    path = tmp_path / "judge.jsonl"
    dict(Judge(server.url, "m", path).replies({"1": JudgeQuestion("", "a")}))
    assert (path, path.stat().st_size) in flushed
