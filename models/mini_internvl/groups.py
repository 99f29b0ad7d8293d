"""Which prompts of a batch share what: pictures encoded once, a common beginning read once."""

from __future__ import annotations

from collections import deque
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
        rows: places in the list of rows; after a common prefix those that go on alike lie side by side.
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
            ordered = sorted(after, key=lambda place: tuple(rows[place].ids[shared:]))
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


@dataclass(frozen=True)
class Limits:
    """What a batch may hold.

    Attributes:
        rows: most rows.
        tokens: most tokens whose keys and values are held, padding included; None for no bound.
    """

    rows: int
    tokens: int | None = None


class Waiting:
    """Groups that are not begun yet: those with a common prefix first, then rows read whole, by length.

    Args:
        groups: what `group_rows` returned.
        rows: the prompts.
        new: most new tokens of a row.
    """

    def __init__(self, groups: Sequence[Group], rows: Sequence[Row], new: int) -> None:
        whole = sorted((g for g in groups if not g.shared), key=lambda g: len(rows[g.rows[0]].ids))
        self._groups = deque([*(g for g in groups if g.shared), *whole])
        self._rows = rows
        self._new = new

    def __bool__(self) -> bool:
        return bool(self._groups)

    def take(self, limits: Limits, going: Sequence[Group] = ()) -> list[Group]:
        """The next groups that fit beside those going on; none where they must end first.

        A group is torn only where it is too large for a batch by itself; a row is a batch whether it fits or
        not. Rows with a prefix and whole rows do not share a batch: their own parts are of unlike length.
        """
        batch: list[Group] = []
        while self._groups:
            together = [*going, *batch, self._groups[0]]
            if bool(together[0].shared) == bool(together[-1].shared) and self._fit(together, limits):
                batch.append(self._groups.popleft())
            elif len(together) > 1:
                break
            elif len(together[0].rows) == 1:
                return [self._groups.popleft()]
            else:
                self._groups.extendleft(reversed(_halves(self._groups.popleft())))
        return batch

    def put_back(self, groups: Sequence[Group]) -> None:
        """Groups that were taken and are to be taken again, before all others."""
        self._groups.extendleft(reversed(groups))

    def tokens(self, batch: Sequence[Group]) -> int:
        """Tokens whose keys and values a batch holds, padding included."""
        longest = max(len(self._rows[place].ids) - group.shared for group in batch for place in group.rows)
        count = sum(len(group.rows) for group in batch)
        prefixes = {id(group.common): group.shared for group in batch}
        return sum(prefixes.values()) + count * (longest + self._new)

    def _fit(self, batch: Sequence[Group], limits: Limits) -> bool:
        return sum(len(group.rows) for group in batch) <= limits.rows and (
            limits.tokens is None or self.tokens(batch) <= limits.tokens
        )


def _halves(group: Group) -> tuple[Group, Group]:
    """Two groups of half the rows over the same prefix."""
    middle = (len(group.rows) + 1) // 2
    return (
        Group(group.rows[:middle], group.pictures, group.common),
        Group(group.rows[middle:], group.pictures, group.common),
    )
