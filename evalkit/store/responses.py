"""Responses as they finish: append-only JSON Lines, one line a response, one file a worker.

A line is complete once its newline is there. What follows the last newline was torn by a kill or a full disk:
readers skip it, and a writer removes it before it appends. The last response of an id wins.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from sys import intern
from typing import Any

from evalkit.contracts import Failure, FinishReason, Response
from evalkit.doors import reading
from evalkit.errors import RunFolderError
from evalkit.store.atomic import disk_error, sync_folder

log = logging.getLogger(__name__)

#: Lines between two flushes to the disk itself: a killed process loses none, a power cut at most these.
_BATCH = 64
_SECONDS = 1.0

#: Equal reasons, and equal answers of up to `_SHORT` characters, are one object in memory.
_FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}
_SHORT = 16


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One line: a response to the request with that content hash, and when it was stored (Unix seconds)."""

    id: str
    request_key: str
    response: Response
    at: float = 0.0

    def to_json(self) -> str:
        """The line without its newline."""
        answer = self.response
        error = answer.error and json.dumps({"kind": answer.error.kind, "message": answer.error.message})
        reasoning = f'"reasoning": {_quoted(answer.reasoning)}, ' if answer.reasoning else ""
        finish = _quoted(answer.finish) if answer.finish else "null"
        # as json.dumps writes a dictionary, in a third of the time
        return (
            f'{{"id": {_quoted(self.id)}, "request_key": {_quoted(self.request_key)}, '
            f'"text": {_quoted(answer.text)}, {reasoning}"finish": {finish}, '
            f'"prompt_tokens": {_number(answer.prompt_tokens)}, '
            f'"visual_tokens": {_number(answer.visual_tokens)}, '
            f'"new_tokens": {_number(answer.new_tokens)}, "seconds": {_number(answer.seconds)}, '
            f'"error": {error or "null"}, "at": {_number(self.at)}}}'
        )

    @classmethod
    def from_json(cls, line: bytes) -> StoredResponse:
        """Parse a line.

        Raises:
            ValueError: not a response.
        """
        item = json.loads(line.decode("utf-8", "surrogatepass"))
        if not isinstance(item, dict):
            raise ValueError("not an object")
        identifier, key, text = item.get("id"), item.get("request_key"), item.get("text", "")
        if not (isinstance(identifier, str) and isinstance(key, str) and isinstance(text, str)):
            raise ValueError("id, request_key or text is not a string")
        finish = item.get("finish")
        response = Response(
            text=intern(text) if len(text) <= _SHORT else text,
            finish=_FINISH.get(finish) if isinstance(finish, str) else None,
            prompt_tokens=_count(item.get("prompt_tokens")),
            visual_tokens=_count(item.get("visual_tokens")),
            new_tokens=_count(item.get("new_tokens")),
            seconds=_seconds(item.get("seconds")),
            error=_failure(item.get("error")),
            reasoning=str(item.get("reasoning") or ""),
        )
        return cls(identifier, key, response, _seconds(item.get("at")))


def _number(value: Any) -> str:
    """As json.dumps writes it; a plug-in's model may give anything, such as None or a number of numpy."""
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return repr(value)
    return json.dumps(value.item() if hasattr(value, "item") else value)


def _count(value: Any) -> int:
    number = int(value or 0)
    if not 0 <= number < 1 << 62:
        raise ValueError("a number of tokens that cannot be")
    return number


def _seconds(value: Any) -> float:
    number = float(value or 0.0)
    if not math.isfinite(number):
        raise ValueError("a time that is not finite")
    return number


def _failure(item: Any) -> Failure | None:
    if item is None:
        return None
    if not isinstance(item, Mapping):
        raise ValueError("error is not an object")
    return Failure(str(item.get("kind", "unknown")), str(item.get("message", "")))


class ResponseLog:
    """The responses file of one worker, opened for appending.

    Raises:
        RunFolderError: from every method, when the disk is full or refuses; what was stored is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending = 0
        self._flushed = time.monotonic()
        try:
            self._file = path.open("ab", buffering=0)
            self._size = _cut_torn_line(path)
            sync_folder(path.parent)
        except OSError as error:
            raise disk_error(error, path) from None

    def append(self, identifier: str, request_key: str, response: Response) -> None:
        """Hand one line to the operating system; it is flushed to the disk a batch at a time."""
        stored = StoredResponse(identifier, request_key, response, time.time())
        data = stored.to_json().encode("ascii") + b"\n"
        try:
            self._write(data)
        except OSError as error:
            self._undo()
            raise disk_error(error, self.path) from None
        self._size += len(data)
        self._pending += 1
        if self._pending >= _BATCH or time.monotonic() - self._flushed >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write every line so far to the disk itself, so that a power cut does not lose it."""
        if self._pending:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise disk_error(error, self.path) from None
        self._pending = 0
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close."""
        try:
            self.flush()
        finally:
            self._file.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def _undo(self) -> None:
        """Remove the half line that fitted on a full disk."""
        try:
            self._file.truncate(self._size)
        except OSError as error:
            log.warning("%s: a torn last line stays (%s); it is left out on reading", self.path, error)


class ResponseLogs:
    """The responses files of a run's workers, each opened when its worker gives its first answer.

    Args:
        folder: the run folder.

    Raises:
        RunFolderError: as `ResponseLog`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs: dict[str, ResponseLog] = {}

    def append(self, worker: str, identifier: str, request_key: str, response: Response) -> None:
        """Store a response in the file of the worker that gave it; see `ResponseLog.append`."""
        if worker not in self._logs:
            self._logs[worker] = ResponseLog(responses_path(self._folder, worker))
        self._logs[worker].append(identifier, request_key, response)

    def close(self) -> None:
        """Flush and close all of them."""
        with ExitStack() as stack:
            for log in self._logs.values():
                stack.callback(log.close)


def responses_path(folder: Path, worker: str) -> Path:
    """The responses file of a worker."""
    return folder / f"responses-{worker}.jsonl"


def reserve(folder: Path, name: str) -> str:
    """Create an empty responses file that nobody has; returns its worker's name, `name-1`, `name-2` ..."""
    for attempt in count(1):
        with suppress(FileExistsError):
            responses_path(folder, f"{name}-{attempt}").touch(exist_ok=False)
            break
    return f"{name}-{attempt}"


def _cut_torn_line(path: Path) -> int:
    """Truncate to the last newline; returns the size left."""
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - (1 << 16))
            file.seek(start)
            block = file.read(end - start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            log.info("%s: a torn last line of %d bytes is dropped", path, size - end)
            file.truncate(end)
            os.fsync(file.fileno())
    return end


def read_responses(folder: Path) -> dict[str, StoredResponse]:
    """The last response of each id: by place within a file, by time between files."""
    merged: dict[str, StoredResponse] = {}
    for path in sorted(path for path in folder.glob("responses-*.jsonl") if path.is_file()):
        latest = {stored.id: stored for stored in _read(path)}
        if not merged:
            merged = latest
            continue
        for identifier, stored in latest.items():
            known = merged.get(identifier)
            if known is None or stored.at >= known.at:
                merged[identifier] = stored
    return merged


def response_ids(folder: Path) -> set[str]:
    """Ids of the samples that have a stored response, without making the responses."""
    found: set[str | None] = set()
    for path in folder.glob("responses-*.jsonl"):
        with path.open("rb") as file:
            found.update(_id_of(line) for line in file if line.endswith(b"\n"))
    return {name for name in found if name is not None}


def _id_of(line: bytes) -> str | None:
    """The id in a line; None of a broken one, of which `read_responses` warns."""
    try:
        return str(json.loads(line.decode())["id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _read(path: Path) -> Iterator[StoredResponse]:
    """Responses of one file in order. A torn last line is left out, a broken line is warned of."""
    broken = 0
    fix = "make it readable, or move the run folder away"
    with reading(path, RunFolderError, fix), path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                yield StoredResponse.from_json(line)
            except (ValueError, TypeError, OverflowError, RecursionError):
                broken += 1
    if broken:
        log.warning("%s: %d broken lines are left out; their samples are asked again", path, broken)
