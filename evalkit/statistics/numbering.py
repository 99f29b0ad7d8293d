"""Numbers for names: of a few in memory, of any number in temporary files."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

from evalkit.hashing import short_hash
from evalkit.scratch import ScratchFile, Table, in_order
from evalkit.statistics.resampling import IntArray


class Codes:
    """Numbers of names, in the order of their first appearance."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}

    def of(self, names: Iterable[Hashable]) -> IntArray:
        """A number for each name; -1 for None."""
        known = self._known
        numbers = [-1 if name is None else known.setdefault(name, len(known)) for name in names]
        return np.array(numbers, dtype=np.intp)

    def __len__(self) -> int:
        return len(self._known)

    def names(self) -> list[Hashable]:
        """By number."""
        return list(self._known)


class Names:
    """As `Codes`, of any number of texts: they lie in a temporary file."""

    def __init__(self) -> None:
        self._known = Table("i")
        self._texts = ScratchFile()
        self._longest = 0

    def of(self, names: Iterable[str]) -> IntArray:
        """A number for each name."""
        return np.fromiter(map(self._code, names), np.intp)

    def __len__(self) -> int:
        return len(self._known)

    def _code(self, name: str) -> int:
        count = len(self._known)
        (code,) = self._known.update(short_hash(name), lambda known: known or (count,))
        if len(self._known) > count:
            text = name.encode("utf-8", "surrogatepass")
            self._texts.append(len(text).to_bytes(4, "big") + text)
            self._longest = max(self._longest, len(text))
        return int(code)

    def ranks(self) -> IntArray:
        """Place of each number in the order of the names."""
        ranks = np.zeros(len(self), np.intp)
        width = -(-self._longest // 8)
        for rank, (*_, code) in enumerate(in_order(self._rows(width), width + 2)):
            ranks[code] = rank
        return ranks

    def _rows(self, width: int) -> Iterator[Sequence[int]]:
        """Each name as numbers that are in the order of the names (UTF-8 is in that of code points)."""
        kind, place = struct.Struct(f">{width}Q"), 0
        for code in range(len(self)):
            length = int.from_bytes(self._texts.read(place, 4), "big")
            text = self._texts.read(place + 4, length)
            yield *kind.unpack(text.ljust(8 * width, b"\0")), length, code
            place += 4 + length
