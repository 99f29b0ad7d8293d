"""Keys and values of a batch: one copy of each shared prefix, and a preallocated buffer of the suffixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

ROOM = 64
"""Columns by which the buffer grows when it is full."""


@dataclass(frozen=True)
class Prefix:
    """What the rows of a group have in common, already read.

    Attributes:
        length: its tokens.
        layers: keys and values of every layer, each `[1, kv_heads, length, head_dim]`.
    """

    length: int
    layers: tuple[tuple[Tensor, Tensor], ...]


class SharedPrefixCache(Cache):  # type: ignore[misc]
    """transformers' cache over shared prefixes and rows of unlike length, padded on the left.

    A pass writes and reads a window: rows `first` to `last` and the columns up to `end`. The rows of one
    prefix lie side by side.

    Args:
        rows: sequences.
        columns: longest suffix.
        room: columns for new tokens; the buffer grows when they are used up.
        prefixes: how many of the rows, from the first on, belong to which prefix; rows after them to none.
    """

    def __init__(
        self, rows: int, columns: int, room: int, prefixes: Sequence[tuple[int, Prefix]] = ()
    ) -> None:
        super().__init__(layers=[])
        self.rows = rows
        self.end = columns
        self._capacity = columns + room
        self._prefixes = list(prefixes)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._window = (0, rows, 0, columns)

    def window(
        self, first: int, last: int, width: int
    ) -> list[tuple[slice, tuple[tuple[Tensor, Tensor], ...]]]:
        """Makes the next pass read and write rows `first` to `last`, the `width` columns before the end.

        Returns:
            The prefixes of these rows, for `shared_prefix` of `attend_shared`.
        """
        self._window = (first, last, self.end - width, self.end)
        found = []
        start = 0
        for count, prefix in self._prefixes:
            low, high = max(start, first), min(start + count, last)
            if low < high:
                found.append((slice(low - first, high - first), prefix.layers))
            start += count
        return found

    def advance(self) -> list[tuple[slice, tuple[tuple[Tensor, Tensor], ...]]]:
        """Makes room for one more token of every row; returns what `window` does."""
        self.end += 1
        if self.end > self._capacity:
            self._capacity = self.end + ROOM
            for buffers in (self._keys, self._values):
                for layer, old in enumerate(buffers):
                    buffers[layer] = self._buffer(old, self.rows)
                    buffers[layer][:, :, : self.end - 1] = old[:, :, : self.end - 1]
        return self.window(0, self.rows, self.end)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores new keys and values at the window's end, and returns all of the window's.

        Args:
            key_states: `[rows, kv_heads, new, head_dim]`. value_states: likewise.
            layer_idx: of the layer.
        """
        first, last, begin, end = self._window
        self.store(key_states, value_states, layer_idx, first, last)
        return (
            self._keys[layer_idx][first:last, :, begin:end],
            self._values[layer_idx][first:last, :, begin:end],
        )

    def store(self, keys: Tensor, values: Tensor, layer: int, first: int, last: int) -> None:
        """Writes keys and values of rows `first` to `last` into the columns before the end."""
        if layer == len(self._keys):
            self._keys.append(self._buffer(keys, self.rows))
            self._values.append(self._buffer(values, self.rows))
        place = slice(self.end - keys.shape[2], self.end)
        self._keys[layer][first:last, :, place] = keys
        self._values[layer][first:last, :, place] = values

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all rows but these, which are in ascending order."""
        index = torch.tensor(rows, device=self._keys[0].device)
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                buffers[layer] = old.index_select(0, index)
        left: list[tuple[int, Prefix]] = []
        start = 0
        for count, prefix in self._prefixes:
            stay = sum(start <= row < start + count for row in rows)
            if stay:
                left.append((stay, prefix))
            start += count
        self._prefixes = left
        self.rows = len(rows)

    def _buffer(self, like: Tensor, rows: int) -> Tensor:
        """Zeros, for a masked column must hold no NaN."""
        return like.new_zeros(rows, like.shape[1], self._capacity, like.shape[3])
