"""Keys and values of a batch: one copy of each shared prefix, and a preallocated buffer of the rows' own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

ROOM = 64
"""Columns by which the buffer grows when it is full."""

Layers = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Prefix:
    """What the rows of a group have in common, already read.

    Attributes:
        length: its tokens.
        layers: keys and values of every layer, each `[1, kv_heads, length, head_dim]`.
    """

    length: int
    layers: Layers


class SharedPrefixCache(Cache):  # type: ignore[misc]
    """transformers' cache over shared prefixes and rows of unlike length, padded on the left.

    Args:
        runs: (rows, their prefix or None) from the first row on; the rows of one prefix lie side by side.
        columns: longest row without its prefix.
        room: columns for new tokens; the buffer grows when they are used up.

    Attributes:
        end: columns in use.
    """

    def __init__(self, runs: Sequence[tuple[int, Prefix | None]], columns: int, room: int = ROOM) -> None:
        super().__init__(layers=[])
        self.end = columns
        self._capacity = columns + room
        self._runs = list(runs)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @property
    def rows(self) -> int:
        """Sequences."""
        return sum(count for count, _ in self._runs)

    def prefixes(self) -> list[tuple[slice, Layers]]:
        """The rows of each prefix and its layers, for `shared_prefix` of `attend_shared`."""
        found = []
        start = 0
        for count, prefix in self._runs:
            if prefix is not None:
                found.append((slice(start, start + count), prefix.layers))
            start += count
        return found

    def advance(self) -> list[tuple[slice, Layers]]:
        """Makes room for one more token of every row; returns what `prefixes` does."""
        self.end += 1
        if self.end > self._capacity:
            self._capacity = self.end + ROOM
            for buffers in (self._keys, self._values):
                for layer, old in enumerate(buffers):
                    buffers[layer] = self._buffer(old, self.rows)
                    buffers[layer][:, :, : self.end - 1] = old[:, :, : self.end - 1]
        return self.prefixes()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores new keys and values of all rows at the end, and returns all there are.

        Args:
            key_states: `[rows, kv_heads, new, head_dim]`. value_states: likewise.
            layer_idx: of the layer.
        """
        self.store(key_states, value_states, layer_idx, 0)
        return self._keys[layer_idx][:, :, : self.end], self._values[layer_idx][:, :, : self.end]

    def store(self, keys: Tensor, values: Tensor, layer: int, first: int) -> None:
        """Writes keys and values of the rows from `first` on into the columns before the end."""
        if layer == len(self._keys):
            self._keys.append(self._buffer(keys, self.rows))
            self._values.append(self._buffer(values, self.rows))
        place = slice(first, first + len(keys)), slice(None), slice(self.end - keys.shape[2], self.end)
        self._keys[layer][place] = keys
        self._values[layer][place] = values

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all rows but these, which are in ascending order."""
        index = torch.tensor(rows, device=self._keys[0].device)
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                buffers[layer] = old.index_select(0, index)
        left: list[tuple[int, Prefix | None]] = []
        start = 0
        for count, prefix in self._runs:
            stay = sum(start <= row < start + count for row in rows)
            if stay:
                left.append((stay, prefix))
            start += count
        self._runs = left

    def join(self, other: SharedPrefixCache, unused: int) -> None:
        """Takes in the rows of another cache, after its own.

        Args:
            other: not to be used afterwards.
            unused: columns from the left that are padding in all of this cache's rows: they are dropped.
        """
        own = self.end - unused
        end = max(own, other.end)
        old_rows, old_end = self.rows, self.end
        self._runs = [*self._runs, *other._runs]
        self.end, self._capacity = end, end + ROOM
        for buffers, others in ((self._keys, other._keys), (self._values, other._values)):
            for layer, old in enumerate(buffers):
                buffers[layer] = self._buffer(old, self.rows)
                buffers[layer][:old_rows, :, end - own : end] = old[:, :, unused:old_end]
                buffers[layer][old_rows:, :, end - other.end : end] = others[layer][:, :, : other.end]
            others.clear()

    def _buffer(self, like: Tensor, rows: int) -> Tensor:
        """Zeros, for a masked column must hold no NaN."""
        return like.new_zeros(rows, like.shape[1], self._capacity, like.shape[3])


class TreePass(Cache):  # type: ignore[misc]
    """The cache of one pass over a tree of tokens: hands each row its own nodes' keys and values.

    Args:
        cache: where they go.
        first: row of the tree's first.
        columns: int64 `[rows, longest]`, as `TokenTree.columns` returns it.
    """

    def __init__(self, cache: SharedPrefixCache, first: int, columns: Tensor) -> None:
        super().__init__(layers=[])
        self._cache = cache
        self._first = first
        self._columns = columns

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores and returns what it is given, each `[1, kv_heads, nodes, head_dim]`."""
        keys, values = (states[0][:, self._columns].transpose(0, 1) for states in (key_states, value_states))
        self._cache.store(keys, values, layer_idx, self._first)
        return key_states, value_states
