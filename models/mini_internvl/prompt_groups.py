"""Prompts that share work: images encoded once, a common beginning prefilled once; their queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from mini_internvl.prefix_cache import SharedPrefix


@dataclass(frozen=True)
class TokenSequence:
    """One prompt.

    Attributes:
        ids: its tokens, image tokens included.
        tiles: `[tiles, 3, size, size]`, uint8 or normalised floats; None for text alone. Prompts that hold
            the same tensor object are about the same images; values are never compared.
        seed: that it draws with; None: that of the settings.
    """

    ids: Sequence[int]
    tiles: Tensor | None
    seed: int | None = None


@dataclass
class SharedImages:
    """Tiles of some sequences, encoded when first needed and dropped after the last use.

    Attributes:
        tiles: as in `TokenSequence`.
        uses: sequences that still need them.
        features: `[tiles, tokens, width]` once encoded.
    """

    tiles: Tensor
    uses: int = 0
    features: Tensor | None = None


@dataclass(frozen=True)
class PromptGroup:
    """Sequences prefilled after one shared prefix, or one sequence prefilled as a whole.

    Attributes:
        members: places in the list of sequences; those that go on alike after the prefix lie side by side.
        images: None for text alone.
        prefix: None where the sequence is prefilled as a whole.
    """

    members: list[int]
    images: SharedImages | None = None
    prefix: SharedPrefix | None = None

    @property
    def shared_tokens(self) -> int:
        """Tokens of the shared prefix."""
        return 0 if self.prefix is None else self.prefix.length

    def release(self, count: int) -> None:
        """Count down the uses of what is shared, after `count` members ended, and drop it after the last."""
        if self.images is not None:
            self.images.uses -= count
            if self.images.uses <= 0:
                self.images.features = None
        if self.prefix is not None:
            self.prefix.uses -= count
            if self.prefix.uses <= 0:
                self.prefix.layers = None


def group_sequences(
    sequences: Sequence[TokenSequence], regime: Callable[[int], object], share: bool = True
) -> list[PromptGroup]:
    """Groups in the order of first appearance.

    Sequences with the same `tiles` object share the longest prefix that all of them begin with. A sequence
    whose rotary positions differ at its own length from those at the prefix's (`RotaryEmbedding.regime`) is
    prefilled as a whole.

    Args:
        sequences: prompts.
        regime: what rotary positions depend on besides the position, by length.
        share: False prefills every sequence as a whole and encodes its images for it alone.
    """
    groups: list[PromptGroup] = []
    for members in _members(sequences, share):
        tiles = sequences[members[0]].tiles
        if tiles is None:
            groups.append(PromptGroup(members))
            continue
        images = SharedImages(tiles, len(members))
        shared = _common_length(sequences, members) if len(members) > 1 else 0
        after = [place for place in members if shared and regime(len(sequences[place].ids)) == regime(shared)]
        if len(after) > 1:
            ordered = sorted(after, key=lambda place: tuple(sequences[place].ids[shared:]))
            groups.append(PromptGroup(ordered, images, SharedPrefix(shared, uses=len(ordered))))
        else:
            after = []
        groups += [PromptGroup([place], images) for place in members if place not in set(after)]
    return groups


def _members(sequences: Sequence[TokenSequence], share: bool) -> Iterable[list[int]]:
    """Places of the sequences with the same tiles; those without tiles are alone."""
    if not share:
        return [[place] for place in range(len(sequences))]
    found: dict[object, list[int]] = {}
    for place, sequence in enumerate(sequences):
        key = ("text", place) if sequence.tiles is None else id(sequence.tiles)
        found.setdefault(key, []).append(place)
    return found.values()


def _common_length(sequences: Sequence[TokenSequence], members: Iterable[int]) -> int:
    """Length of the longest common beginning that leaves each at least one token."""
    ids = [list(sequences[place].ids) for place in members]
    low, high = min(ids), max(ids)
    most = min(map(len, ids)) - 1
    return next((at for at in range(most) if low[at] != high[at]), most)


@dataclass(frozen=True)
class BatchLimits:
    """What a batch may hold.

    Attributes:
        sequences: at most.
        tokens: most tokens whose keys and values are held, padding included; None for no bound.
    """

    sequences: int
    tokens: int | None = None


class RequestQueue:
    """Groups that wait to be prefilled: those with a shared prefix first, then whole sequences by length.

    Args:
        groups: what `group_sequences` returned.
        sequences: the prompts.
        new: most new tokens of a sequence.
    """

    def __init__(self, groups: Sequence[PromptGroup], sequences: Sequence[TokenSequence], new: int) -> None:
        whole = sorted(
            (g for g in groups if g.prefix is None), key=lambda g: len(sequences[g.members[0]].ids)
        )
        self._groups = deque([*(g for g in groups if g.prefix is not None), *whole])
        self._sequences = sequences
        self._new = new

    def __bool__(self) -> bool:
        return bool(self._groups)

    def take(self, limits: BatchLimits, running: Sequence[PromptGroup] = ()) -> list[PromptGroup]:
        """The next groups that fit beside those running; none where these must end first.

        A group is split only where it is too large for a batch by itself; one sequence is a batch whether it
        fits or not. Sequences with and without a prefix do not share a batch: the lengths of their own parts
        are too unlike.
        """
        batch: list[PromptGroup] = []
        while self._groups:
            together = [*running, *batch, self._groups[0]]
            if (together[0].prefix is None) == (together[-1].prefix is None) and self._fit(together, limits):
                batch.append(self._groups.popleft())
            elif len(together) > 1:
                break
            elif len(together[0].members) == 1:
                return [self._groups.popleft()]
            else:
                self._groups.extendleft(reversed(_halves(self._groups.popleft())))
        return batch

    def put_back(self, groups: Sequence[PromptGroup]) -> None:
        """Groups that were taken and are to be taken again, before all others."""
        self._groups.extendleft(reversed(groups))

    def tokens(self, batch: Sequence[PromptGroup]) -> int:
        """Tokens whose keys and values a batch holds, padding included."""
        longest = max(
            len(self._sequences[place].ids) - group.shared_tokens
            for group in batch
            for place in group.members
        )
        count = sum(len(group.members) for group in batch)
        prefixes = {id(group.prefix): group.shared_tokens for group in batch}
        return sum(prefixes.values()) + count * (longest + self._new)

    def _fit(self, batch: Sequence[PromptGroup], limits: BatchLimits) -> bool:
        return sum(len(group.members) for group in batch) <= limits.sequences and (
            limits.tokens is None or self.tokens(batch) <= limits.tokens
        )


def _halves(group: PromptGroup) -> tuple[PromptGroup, PromptGroup]:
    """Two groups of half the members each, over the same images and prefix."""
    middle = (len(group.members) + 1) // 2
    return (
        PromptGroup(group.members[:middle], group.images, group.prefix),
        PromptGroup(group.members[middle:], group.images, group.prefix),
    )
