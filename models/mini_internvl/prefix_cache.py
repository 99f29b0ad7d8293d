"""Prefix caching: one copy of the keys and values of a shared prefix, and a buffer for each sequence's own.

Sequences of one prefix that go on alike for a few tokens are prefilled as a `PrefixTree`, those tokens once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from mini_internvl.batch_config import NETWORK_BATCHING

Layers = tuple[tuple[Tensor, Tensor], ...]


@dataclass
class SharedPrefix:
    """Tokens that the sequences of a group begin with, prefilled when first needed.

    Attributes:
        length: its tokens.
        layers: keys and values of every layer, each `[1, kv_heads, length, head_dim]`; None before the
            prefill and after the last use.
        uses: sequences that still need it.
    """

    length: int
    layers: Layers | None = field(default=None, repr=False)
    uses: int = 0


class SharedPrefixCache(Cache):  # type: ignore[misc]
    """transformers' cache over shared prefixes and sequences of unlike length, padded on the left.

    Args:
        runs: (sequences, their prefix or None) from the first on; those of one prefix lie side by side.
        columns: longest sequence without its prefix.
        room: columns for new tokens, to begin with.
        growth: columns by which the buffer grows when they are used up.

    Attributes:
        end: columns in use.
    """

    def __init__(
        self,
        runs: Sequence[tuple[int, SharedPrefix | None]],
        columns: int,
        room: int | None = None,
        growth: int = NETWORK_BATCHING.cache_growth,
    ) -> None:
        super().__init__(layers=[])
        self.end = columns
        self._growth = growth
        self._capacity = columns + (growth if room is None else room)
        self._runs = list(runs)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @property
    def rows(self) -> int:
        """Sequences in the batch."""
        return sum(count for count, _ in self._runs)

    def prefixes(self) -> list[tuple[slice, Layers]]:
        """The rows of each prefix and its layers, for `prefixes` of `attend_shared`."""
        found = []
        start = 0
        for count, prefix in self._runs:
            if prefix is not None:
                assert prefix.layers is not None  # prefilled before the first of its sequences
                found.append((slice(start, start + count), prefix.layers))
            start += count
        return found

    def advance(self) -> list[tuple[slice, Layers]]:
        """Makes room for one more token of every row; returns what `prefixes` does."""
        self.end += 1
        if self.end > self._capacity:
            self._capacity = self.end + self._growth
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
        left: list[tuple[int, SharedPrefix | None]] = []
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
        self.end, self._capacity = end, end + self._growth
        for buffers, others in ((self._keys, other._keys), (self._values, other._values)):
            for layer, old in enumerate(buffers):
                buffers[layer] = self._buffer(old, self.rows)
                buffers[layer][:old_rows, :, end - own : end] = old[:, :, unused:old_end]
                buffers[layer][old_rows:, :, end - other.end : end] = others[layer][:, :, : other.end]
            others.clear()

    def _buffer(self, like: Tensor, rows: int) -> Tensor:
        """Zeros, for a masked column must hold no NaN."""
        return like.new_zeros(rows, like.shape[1], self._capacity, like.shape[3])


class PrefixTree:
    """Token sequences as a tree: what some begin with in common is a node, and so prefilled, once.

    Attributes:
        source: (row, place in the row) of the token that a node stands for, in the order of adding; a node
            comes after its parent.
        paths: the nodes of each row's tokens.
    """

    def __init__(self) -> None:
        self.source: list[tuple[int, int]] = []
        self.paths: list[list[int]] = []
        self._children: dict[tuple[int, Hashable], int] = {}

    def new_nodes(self, tokens: Sequence[Hashable]) -> int:
        """Nodes that adding a row would make."""
        return len(tokens) - len(self._known(tokens))

    def add(self, tokens: Sequence[Hashable]) -> None:
        """Adds a row, of one token or more."""
        path = self._known(tokens)
        for place in range(len(path), len(tokens)):
            parent = path[-1] if path else -1
            node = self._children[parent, tokens[place]] = len(self.source)
            self.source.append((len(self.paths), place))
            path.append(node)
        self.paths.append(path)

    def _known(self, tokens: Sequence[Hashable]) -> list[int]:
        path: list[int] = []
        node = -1
        for token in tokens:
            found = self._children.get((node, token))
            if found is None:
                break
            path.append(found)
            node = found
        return path

    def hidden(self) -> Tensor:
        """bool `[nodes, nodes]`, true where the second is not on the way to the first."""
        hidden = torch.ones(len(self.source), len(self.source), dtype=torch.bool)
        for path in self.paths:
            index = torch.tensor(path)
            hidden[index[:, None], index] = ~torch.ones(len(path), len(path), dtype=torch.bool).tril()
        return hidden

    def columns(self) -> Tensor:
        """int64 `[rows, longest]`: the nodes of each row, on the right; any node before its first."""
        longest = max(map(len, self.paths))
        return torch.tensor([[0] * (longest - len(path)) + path for path in self.paths])


def grow_trees(rows: Sequence[Sequence[Hashable]], most: int) -> list[tuple[int, PrefixTree]]:
    """Trees over neighbouring rows, of at most `most` nodes unless one row has more.

    Args:
        rows: each of one token or more; rows that begin alike best lie side by side.
        most: nodes of a tree.

    Returns:
        (first row, tree) in the order of the rows.
    """
    trees: list[tuple[int, PrefixTree]] = []
    for place, row in enumerate(rows):
        if not trees or len(trees[-1][1].source) + trees[-1][1].new_nodes(row) > most:
            trees.append((place, PrefixTree()))
        trees[-1][1].add(row)
    return trees


class TreeCache(Cache):  # type: ignore[misc]
    """The cache of one pass over a tree of tokens: hands each row its own nodes' keys and values.

    Args:
        cache: where they go.
        first: row of the tree's first.
        columns: int64 `[rows, longest]`, as `PrefixTree.columns` returns it.
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
