"""A run folder's responses, looked up where they lie; their places lie in a temporary file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from evalkit.hashing import short_hash
from evalkit.scratch import Row, Table
from evalkit.store.responses import StoredResponse, read_places, response_files

#: Of an id's last response in the latest file that has one, and of the best in the files before: number of
#: the file (-1: none), where its line begins, when it was stored.
_FIELDS = "iqdiqd"
_NONE = (-1, 0, 0.0)


class ResponseIndex(Mapping[str, StoredResponse]):
    """The last response of each id, as `read_responses` has it; use as a context manager.

    Args:
        folder: the run folder.

    Raises:
        EvalkitError: the temporary folder is full or refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._open = ExitStack()
        self._files: list[Any] = []
        self._places = Table(_FIELDS)
        self._open.callback(self._places.close)
        for number, path in enumerate(response_files(folder)):
            self._files.append(self._open.enter_context(path.open("rb")))
            for place, stored in read_places(path):
                row = (number, place, stored.at)
                self._places.update(short_hash(stored.id), partial(_with, row))

    def __enter__(self) -> ResponseIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        for row in self._places.rows():
            yield self._read(row).id

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._places.get(short_hash(name)) is not None

    def __getitem__(self, name: str) -> StoredResponse:
        row = self._places.get(short_hash(name))
        if row is None:
            raise KeyError(name)
        return self._read(row)

    def _read(self, row: Row) -> StoredResponse:
        number, place, _ = _winner(row)
        file = self._files[number]
        file.seek(place)
        return StoredResponse.from_json(file.readline())


def _with(found: Row, known: Row | None) -> Row:
    """The row with one more response of its id; within a file the last counts."""
    if known is None:
        return (*found, *_NONE)
    return (*found, *(known[3:] if known[0] == found[0] else _winner(known)))


def _winner(row: Row) -> Row:
    """Between files the later response; of two at one time that in the later file."""
    latest, before = row[:3], row[3:]
    return latest if before[0] < 0 or latest[2] >= before[2] else before
