"""A run folder's responses, looked up where they lie: memory holds their places, not their texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from evalkit.hashing import short_hash
from evalkit.store.responses import StoredResponse, read_places, response_files

#: A response: its id's hash, where its line begins, in which file, and when it was stored.
_ROW = np.dtype([("name", np.uint64), ("place", np.int64), ("file", np.int32), ("at", np.float64)])


class ResponseIndex(Mapping[str, StoredResponse]):
    """The last response of each id, as `read_responses` has it; use as a context manager.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._open = ExitStack()
        self._files: list[Any] = []
        rows = np.zeros(0, _ROW)
        for number, path in enumerate(response_files(folder)):
            self._files.append(self._open.enter_context(path.open("rb")))
            found = np.fromiter(_rows(path, number), _ROW)
            _, last = np.unique(found["name"][::-1], return_index=True)  # by place within a file
            rows = np.concatenate([rows, found[len(found) - 1 - last]])
        rows = rows[np.lexsort((rows["file"], rows["at"], rows["name"]))]  # by time between files
        latest = np.append(rows["name"][1:] != rows["name"][:-1], [True])[: len(rows)]
        self._names = rows["name"][latest].copy()
        self._places = rows["place"][latest].copy()
        self._numbers = rows["file"][latest].copy()

    def __enter__(self) -> ResponseIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        for place in range(len(self)):
            yield self._read(place).id

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __getitem__(self, name: str) -> StoredResponse:
        place = self._find(name)
        if place is None:
            raise KeyError(name)
        return self._read(place)

    def _find(self, name: str) -> int | None:
        key = np.uint64(short_hash(name))
        place = int(self._names.searchsorted(key))
        return place if place < len(self) and self._names[place] == key else None

    def _read(self, place: int) -> StoredResponse:
        file = self._files[self._numbers[place]]
        file.seek(self._places[place])
        return StoredResponse.from_json(file.readline())


def _rows(path: Path, number: int) -> Iterator[tuple[int, int, int, float]]:
    for place, stored in read_places(path):
        yield short_hash(stored.id), place, number, stored.at
