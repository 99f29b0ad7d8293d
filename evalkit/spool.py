"""A long list that lies in a temporary file instead of in memory."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")

#: Items that are written and read together.
_BLOCK = 32
#: Blocks kept after reading, since what is read next is often near.
_KEPT = 64
#: A list of up to so many items stays in memory.
_SHORT = 4096


class Spool(Sequence[T], Generic[T]):
    """The items of an iterable, read once; of a long one, memory holds 8 bytes for 32 items and a few blocks.

    The file has no name, so nobody but this process can write what is unpickled from it. Items are equal, not
    identical, each time they are read.

    Args:
        items: are pickled; what their iteration raises passes through.

    Raises:
        OSError: the temporary folder is full.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._length = 0
        self._recent: OrderedDict[int, list[T]] = OrderedDict()
        self._starts = array("q")
        self._short: list[T] | None = []
        block: list[T] = self._short
        for item in items:
            if self._short is not None and len(self._short) == _SHORT:
                self._to_file(self._short)
                block = []
            block.append(item)
            self._length += 1
            if self._short is None and len(block) == _BLOCK:
                self._write(block)
                block = []
        if self._short is None and block:
            self._write(block)

    def _to_file(self, items: list[T]) -> None:
        self._file = tempfile.TemporaryFile(prefix="evalkit-")  # noqa: SIM115  (lives as long as the list)
        for start in range(0, len(items), _BLOCK):
            self._write(items[start : start + _BLOCK])
        self._short = None

    def _write(self, block: list[T]) -> None:
        self._starts.append(self._file.tell())
        pickle.dump(block, self._file, protocol=pickle.HIGHEST_PROTOCOL)

    def _block(self, number: int) -> list[T]:
        if number in self._recent:
            self._recent.move_to_end(number)
            return self._recent[number]
        self._file.seek(self._starts[number])
        block: list[T] = pickle.load(self._file)  # this process wrote it
        self._recent[number] = block
        if len(self._recent) > _KEPT:
            self._recent.popitem(last=False)
        return block

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> list[T]: ...

    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(self._length))]
        if not -self._length <= place < self._length:
            raise IndexError(f"{place} of {self._length}")
        place %= self._length
        return self._short[place] if self._short is not None else self._block(place // _BLOCK)[place % _BLOCK]

    def __iter__(self) -> Iterator[T]:
        if self._short is not None:
            yield from self._short
            return
        for number in range(len(self._starts)):
            yield from self._block(number)


class Chosen(Sequence[T], Generic[T]):
    """Some items of a list, in a given order.

    Args:
        items: the list. places: of the chosen ones.
    """

    def __init__(self, items: Sequence[T], places: Sequence[int]) -> None:
        self._items = items
        self._places = array("q", places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> list[T]: ...

    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self._items[number] for number in self._places[place]]
        return self._items[self._places[place]]
