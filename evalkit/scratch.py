"""What would take memory for every sample, in unnamed temporary files: bytes, rows by key, rows in order.

The files have no name, so nobody but this process reads or writes them. Short ones stay in memory.
"""

from __future__ import annotations

import errno
import heapq
import io
import os
import struct
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from evalkit.errors import EvalkitError

#: Bytes up to which a file stays in memory.
_SHORT = 1 << 20
#: Of a new table's number of slots; slots that are read at once to look a row up, and to go through all.
_BITS, _PROBE, _SLOTS = 10, 4, 2048
#: Rows that are sorted in memory at a time, and read at a time of each sorted run.
_RUN, _BLOCK = 1 << 15, 256

Row = tuple[Any, ...]
Slots = np.ndarray[Any, np.dtype[np.void]]


class ScratchFile:
    """Bytes by place; what was never written is zero up to the last byte that was."""

    def __init__(self) -> None:
        self._file: Any = io.BytesIO()
        self._end = 0

    def __del__(self) -> None:
        self.close()

    def read(self, place: int, size: int) -> bytes:
        """At most `size` bytes, fewer at the end."""
        self._file.seek(place)
        found: bytes = self._file.read(size)
        return found

    def write(self, place: int, data: bytes) -> None:
        """Put bytes there.

        Raises:
            EvalkitError: the temporary folder is full or refuses.
        """
        try:
            if isinstance(self._file, io.BytesIO) and place + len(data) > _SHORT:
                short = self._file.getvalue()
                self._file = tempfile.TemporaryFile(prefix="evalkit-", buffering=0)  # noqa: SIM115
                self._put(0, short)
            self._put(place, data)
        except OSError as error:
            raise no_room(error) from error
        self._end = max(self._end, place + len(data))

    def append(self, data: bytes) -> int:
        """Put bytes at the end; returns their place. Raises EvalkitError as `write`."""
        place = self._end
        self.write(place, data)
        return place

    def _put(self, place: int, data: bytes) -> None:
        self._file.seek(place)
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Give the room back."""
        self._file.close()


def no_room(error: OSError) -> EvalkitError:
    """What to tell the user when the temporary folder fails."""
    try:
        folder = tempfile.gettempdir()
    except OSError:  # none can be written
        folder = "the temporary folder"
    return EvalkitError(f"{folder}: {error.strerror}; make room, or set TMPDIR")


class Table:
    """A row of numbers by 64-bit hash: a hash table with linear probing, at most half full.

    Rows lie in the order of their hashes but for those that found their slot taken, so that a larger table is
    written from beginning to end. Zeros are an empty slot, so that the hashes 0 and 1 are one.

    Args:
        fields: of a row, in struct's letters.
    """

    def __init__(self, fields: str) -> None:
        self._row = struct.Struct(f"<Q{fields}")
        self._file = ScratchFile()
        self._bits = _BITS
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: int) -> Row | None:
        """The row, or None."""
        return self._find(key or 1)[1]

    def update(self, key: int, make: Callable[[Row | None], Row]) -> Row:
        """Put a row in the place of the one there is.

        Args:
            make: the row from the one there is, or from None; the very same is not written again.

        Raises:
            EvalkitError: as `ScratchFile.write`.
        """
        slot, known = self._find(key or 1)
        row = make(known)
        if row is not known:
            self._file.write(slot * self._row.size, self._row.pack(key or 1, *row))
        if known is None:
            self._count += 1
            if 2 * self._count > 1 << self._bits:
                self._grow()
        return row

    def rows(self) -> Iterator[Row]:
        """All rows, in no order."""
        for block in self._blocks():
            yield from (row[1:] for row in self._row.iter_unpack(block.tobytes()))

    def close(self) -> None:
        """Give the room back."""
        self._file.close()

    def _find(self, key: int) -> tuple[int, Row | None]:
        """The key's slot and its row, or the empty slot that it would take, which may lie behind the last."""
        slot, size = key >> 64 - self._bits, self._row.size
        while True:
            block = self._file.read(slot * size, _PROBE * size)
            for row in self._row.iter_unpack(block):
                if row[0] == key:
                    return slot, row[1:]
                if not row[0]:
                    return slot, None
                slot += 1
            if len(block) < _PROBE * size:
                return slot, None

    def _blocks(self) -> Iterator[Slots]:
        """The filled slots, each block with all that were in each other's way, sorted by hash."""
        kind = np.dtype([("key", np.uint64), ("row", np.void, self._row.size - 8)])
        place, size, rest = 0, _SLOTS * kind.itemsize, b""
        while rest or not place:
            block = self._file.read(place, size)
            slots = np.frombuffer(rest + block, kind)
            free = (slots["key"] == 0).nonzero()[0]
            cut = len(slots) if not block else int(free[-1]) if len(free) else 0
            filled = slots[:cut][slots["key"][:cut] > 0]
            yield filled[filled["key"].argsort()]
            rest = slots[cut:].tobytes()
            place += size

    def _grow(self) -> None:
        """Twice the slots: each row goes to its slot, or next to the row before it if that is further on."""
        larger, end = ScratchFile(), 0
        self._bits += 1
        for rows in self._blocks():
            if not len(rows):
                continue
            wanted = (rows["key"] >> np.uint64(64 - self._bits)).astype(np.int64)
            steps = np.arange(len(rows))
            places = np.maximum(np.maximum.accumulate(wanted - steps), end) + steps
            start, end = int(places[0]), int(places[-1]) + 1
            written = np.zeros(end - start, rows.dtype)
            written[places - start] = rows
            larger.write(start * self._row.size, written.tobytes())
        self._file.close()
        self._file = larger


def in_order(rows: Iterable[Sequence[int]], width: int) -> Iterator[list[int]]:
    """Rows of `width` whole numbers from 0 to 2^64 - 1, sorted: some in memory at a time, merged from a file.

    Raises:
        EvalkitError: as `ScratchFile.write`.
    """
    file, size = ScratchFile(), 8 * _RUN * width
    ends: list[int] = []
    run = array("Q")
    for row in rows:
        run.extend(row)
        if len(run) == _RUN * width:
            file.write(len(ends) * size, _sorted(run, width).tobytes())
            ends.append((len(ends) + 1) * size)
            run = array("Q")
    last: list[list[int]] = _sorted(run, width).tolist()
    yield from heapq.merge(*(_read(file, end - size, end, width) for end in ends), last)
    file.close()


def _sorted(run: array[int], width: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    table = np.frombuffer(run, np.uint64).reshape(-1, width)
    return table[np.lexsort(table.T[::-1])]


def _read(file: ScratchFile, start: int, end: int, width: int) -> Iterator[list[int]]:
    step = 8 * width * _BLOCK
    for place in range(start, end, step):
        block = np.frombuffer(file.read(place, min(step, end - place)), np.uint64)
        yield from block.reshape(-1, width).tolist()
