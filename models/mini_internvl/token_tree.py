"""Rows' tokens as a tree: what some rows begin with in common is written, and so read, once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


class TokenTree:
    """Rows of tokens, merged while they are equal from the first on.

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


def grow(rows: Sequence[Sequence[Hashable]], most: int) -> list[tuple[int, TokenTree]]:
    """Trees over neighbouring rows, of at most `most` nodes unless one row has more.

    Args:
        rows: each of one token or more; rows that begin alike best lie side by side.
        most: nodes of a tree.

    Returns:
        (first row, tree) in the order of the rows.
    """
    trees: list[tuple[int, TokenTree]] = []
    for place, row in enumerate(rows):
        if not trees or len(trees[-1][1].source) + trees[-1][1].new_nodes(row) > most:
            trees.append((place, TokenTree()))
        trees[-1][1].add(row)
    return trees
