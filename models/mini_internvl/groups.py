"""Which prompts of a batch share what: pictures encoded once, a common beginning read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mini_internvl.sharing import Prefix


@dataclass(frozen=True)
class Row:
    """One prompt.

    Attributes:
        ids: its tokens, image tokens included.
        tiles: `[tiles, 3, size, size]`, uint8 or normalised floats; None for text alone. Prompts about
            the same pictures best hold the same tensor.
    """

    ids: Sequence[int]
    tiles: Tensor | None


@dataclass
class Pictures:
    """Tiles that some rows have in common, encoded when first needed and dropped after the last use.

    Attributes:
        tiles: as in `Row`.
        uses: rows that still need them.
        features: `[tiles, tokens, width]` once encoded.
    """

    tiles: Tensor
    uses: int = 0
    features: Tensor | None = None


@dataclass
class Common:
    """A beginning that some rows have in common, read when first needed and dropped after the last use.

    Attributes:
        length: its tokens.
        uses: rows that still need it.
        prefix: its keys and values once read.
    """

    length: int
    uses: int = 0
    prefix: Prefix | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Group:
    """Rows that are read after one common prefix, or a row that is read whole.

    Attributes:
        rows: places in the list of rows, by length.
        pictures: of the rows; None for text alone.
        common: None where the row is read whole.
    """

    rows: list[int]
    pictures: Pictures | None = None
    common: Common | None = None

    @property
    def shared(self) -> int:
        """Tokens of the common prefix."""
        return 0 if self.common is None else self.common.length


def group_rows(rows: Sequence[Row], regime: Callable[[int], object], share: bool = True) -> list[Group]:
    """Groups in the order of first appearance.

    Rows about the same pictures share the longest prefix that all of them begin with. A row whose rotary
    positions differ at its own length from those at the prefix's (`RotaryEmbedding.regime`) is read whole.

    Args:
        rows: prompts.
        regime: what rotary positions depend on besides the position, by length.
        share: False reads every row whole and encodes its pictures for it alone.
    """
    groups: list[Group] = []
    for tiles, members in _by_pictures(rows, share):
        if tiles is None:
            groups += [Group([place]) for place in members]
            continue
        pictures = Pictures(tiles, len(members))
        shared = _common(rows, members) if len(members) > 1 else 0
        after = [place for place in members if shared and regime(len(rows[place].ids)) == regime(shared)]
        if len(after) > 1:
            ordered = sorted(after, key=lambda place: len(rows[place].ids))
            groups.append(Group(ordered, pictures, Common(shared, len(ordered))))
        else:
            after = []
        groups += [Group([place], pictures) for place in members if place not in set(after)]
    return groups


def _by_pictures(rows: Sequence[Row], share: bool) -> Iterator[tuple[Tensor | None, list[int]]]:
    found: list[tuple[Tensor | None, list[int]]] = []
    for place, row in enumerate(rows):
        known = next((m for tiles, m in found if _same(tiles, row.tiles)), None) if share else None
        if known is None:
            found.append((row.tiles, [place]))
        else:
            known.append(place)
    return iter(found)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is other:
        return True
    if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other)


def _common(rows: Sequence[Row], members: Iterable[int]) -> int:
    """Tokens that all begin with, so many that each has at least one left."""
    ids = [list(rows[place].ids) for place in members]
    low, high = min(ids), max(ids)
    most = min(map(len, ids)) - 1
    return next((at for at in range(most) if low[at] != high[at]), most)


def pack(
    groups: Sequence[Group], rows: Sequence[Row], new: int, most_rows: int, most_tokens: int | None
) -> list[list[Group]]:
    """Batches that are decoded together: rows with prefixes in some, whole rows in others.

    A group is torn only where it is too large for a batch by itself; its parts then follow each other.

    Args:
        groups: what `group_rows` returned.
        rows: the prompts.
        new: most new tokens of a row.
        most_rows: rows of a batch.
        most_tokens: tokens of a batch, those of padding included, or None for no bound.
    """
    whole = sorted((g for g in groups if not g.shared), key=lambda g: len(rows[g.rows[0]].ids))
    batches = _pack_shared([g for g in groups if g.shared], rows, new, most_rows, most_tokens)
    batch: list[Group] = []
    for group in whole:
        longest = len(rows[group.rows[0]].ids) + new  # in ascending order, so the last is the longest
        full = most_tokens is not None and (len(batch) + 1) * longest > most_tokens
        if batch and (len(batch) >= most_rows or full):
            batches.append(batch)
            batch = []
        batch.append(group)
    return [*batches, batch] if batch else batches


def _pack_shared(
    groups: Sequence[Group], rows: Sequence[Row], new: int, most_rows: int, most_tokens: int | None
) -> list[list[Group]]:
    batches: list[list[Group]] = []
    batch: list[Group] = []
    for group in groups:
        for part in _parts(group, rows, new, most_rows, most_tokens):
            if batch and not _fits([*batch, part], rows, new, most_rows, most_tokens):
                batches.append(batch)
                batch = []
            batch.append(part)
    return [*batches, batch] if batch else batches


def _parts(
    group: Group, rows: Sequence[Row], new: int, most_rows: int, most_tokens: int | None
) -> list[Group]:
    """The group, or halves of it until each fits; one row is a part whether it fits or not."""
    if len(group.rows) == 1 or _fits([group], rows, new, most_rows, most_tokens):
        return [group]
    return [part for half in halves(group) for part in _parts(half, rows, new, most_rows, most_tokens)]


def halves(group: Group) -> tuple[Group, Group]:
    """Two groups of half the rows over the same prefix."""
    middle = (len(group.rows) + 1) // 2
    return (
        Group(group.rows[:middle], group.pictures, group.common),
        Group(group.rows[middle:], group.pictures, group.common),
    )


def _fits(
    batch: Sequence[Group], rows: Sequence[Row], new: int, most_rows: int, most_tokens: int | None
) -> bool:
    return sum(len(group.rows) for group in batch) <= most_rows and (
        most_tokens is None or tokens(batch, rows, new) <= most_tokens
    )


def tokens(batch: Sequence[Group], rows: Sequence[Row], new: int) -> int:
    """Tokens whose keys and values a batch holds, padding included."""
    longest = max(len(rows[place].ids) - group.shared for group in batch for place in group.rows)
    count = sum(len(group.rows) for group in batch)
    return sum(group.shared for group in batch) + count * (longest + new)
