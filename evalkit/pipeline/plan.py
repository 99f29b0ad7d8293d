"""Which samples are asked, and in which order: what shares a picture together, then what shares a prefix.

Both are functions of the samples alone, so that a resumed, limited or repeated run plans the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from evalkit import registry
from evalkit.batch_config import BATCHING
from evalkit.contracts import ImagePolicy, Request, Sample
from evalkit.data.images import ImageHandle
from evalkit.errors import DataError, ImageError, TaskError, UsageError
from evalkit.hashing import short_hash
from evalkit.scratch import Row, Table, in_order, no_room
from evalkit.spool import Chosen, Spool

#: Positions, or ends of groups among them: 4 bytes each.
Places = npt.NDArray[np.signedinteger[Any]]

#: Distinct pictures opened to estimate tiles.
_PROBES = 48


def unique(samples: Iterable[Sample], where: str) -> Spool[Sample]:
    """All samples, as handles.

    Raises:
        DataError: two have the same id. TaskError: there are many, and they cannot be pickled.
    """
    try:
        every = Spool(samples)
    except OSError as error:
        raise no_room(error) from error
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TaskError(f"{where}: a sample cannot be pickled ({error}); its handles must be") from error
    names = in_order(((short_hash(sample.id),) for sample in every), 1)
    if any(name == other for name, other in pairwise(names)):
        seen: set[str] = set()
        for sample in every:
            if sample.id in seen:
                raise DataError(
                    f"{where}: sample id {sample.id!r} occurs twice: not the official files, or a "
                    "part was appended again"
                )
            seen.add(sample.id)
    return every


def select(
    samples: Sequence[Sample], limit: int | None, sample_ids: Sequence[str], seed: int
) -> Sequence[Sample]:
    """The samples that are asked, in file order.

    `limit` takes whole clusters in the order of a hash of (seed, cluster), the last one cut in file order, so
    that exactly `limit` samples remain and a smaller limit is a subset of a larger one.

    Raises:
        UsageError: both are given, an id is unknown, or the limit is not positive.
    """
    if sample_ids:
        if limit is not None:
            raise UsageError("--limit and --sample-id exclude each other")
        return _named(samples, sample_ids)
    if limit is None or limit >= len(samples):
        return samples
    if limit < 1:
        raise UsageError(f"--limit {limit}: give a positive number")
    ranks = np.fromiter((_rank(seed, sample.cluster) for sample in samples), np.uint64, len(samples))
    chosen = np.sort(np.argsort(ranks, kind="stable")[:limit])
    return Chosen(samples, array("q", chosen.astype(np.int64).tobytes()))


def _rank(seed: int, cluster: str) -> int:
    data = f"{seed}\0{cluster}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def _named(samples: Sequence[Sample], sample_ids: Sequence[str]) -> Sequence[Sample]:
    wanted = set(sample_ids)
    places = {sample.id: place for place, sample in enumerate(samples) if sample.id in wanted}
    for name in sample_ids:
        if name not in places:
            known = [sample.id for sample in samples]
            form = f"; ids here look like {known[0]}" if known else ""
            raise UsageError(f"--sample-id {name}: no such sample{registry.nearest(name, known)}{form}")
    return Chosen(samples, sorted(places.values()))


class Pending(Collection[int]):
    """Positions, a byte each."""

    def __init__(self, size: int) -> None:
        self.flags = np.zeros(size, dtype=np.bool_)

    def __contains__(self, position: object) -> bool:
        return isinstance(position, int) and bool(self.flags[position])

    def __len__(self) -> int:
        return int(self.flags.sum())

    def __iter__(self) -> Iterator[int]:
        return iter(self.flags.nonzero()[0].tolist())


class Groups(Sequence[tuple[int, ...]]):
    """Groups of positions.

    Args:
        order: positions, group by group. ends: of each group in `order`.
    """

    def __init__(self, order: Places, ends: Places) -> None:
        self.order, self.ends = order, ends

    def __len__(self) -> int:
        return len(self.ends)

    def every(self, first: int, step: int) -> Groups:
        """Each `step`-th group from the `first`."""
        sizes = np.diff(self.ends, prepend=0)
        chosen = np.arange(len(sizes)) % step == first
        return Groups(self.order[np.repeat(chosen, sizes)], sizes[chosen].cumsum())

    @overload
    def __getitem__(self, place: int) -> tuple[int, ...]: ...

    @overload
    def __getitem__(self, place: slice) -> list[tuple[int, ...]]: ...

    def __getitem__(self, place: int | slice) -> tuple[int, ...] | list[tuple[int, ...]]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"{place} of {len(self)}")
        place %= len(self)
        start = self.ends[place - 1] if place else 0
        return tuple(self.order[start : self.ends[place]].tolist())


@dataclass(frozen=True, slots=True)
class Plan:
    """Positions of the requests, group by group; a group shares its pictures."""

    groups: Groups

    @property
    def size(self) -> int:
        """Requests in all."""
        return len(self.groups.order)

    def pending(self, pending: Collection[int]) -> Groups:
        """What is pending of each group, groups without any left out."""
        order = self.groups.order
        if isinstance(pending, Pending):
            left = pending.flags[order]
        else:
            left = np.fromiter((position in pending for position in order.tolist()), np.bool_, len(order))
        ends = left.cumsum()[self.groups.ends - 1] if len(order) else self.groups.ends
        return Groups(order[left], ends[np.diff(ends, prepend=0) > 0])

    def numbered(self, request: Callable[[int], Request]) -> Callable[[int], Request]:
        """`request` with the number of its group in each (`Request.group`), for models that share work."""
        numbers = {place: number for number, group in enumerate(self.groups) for place in group}
        return lambda position: dataclasses.replace(request(position), group=numbers[position])

    def windows(self, pending: Collection[int], size: int = BATCHING.window) -> Iterator[list[int]]:
        """Pending positions in plan order, whole groups until `size` is reached."""
        window: list[int] = []
        for group in self.groups:
            window.extend(position for position in group if position in pending)
            if len(window) >= size:
                yield window
                window = []
        if window:
            yield window


def make_plan(requests: Iterable[Request]) -> Plan:
    """Group requests with the same images and image policy; the only place that finds who shares what.

    Groups are in order of first appearance; inside, requests are sorted by earlier turns, then length, so
    that those that begin alike lie side by side. A request without images is a group by itself.
    """
    order, ends = array("i"), array("i")
    current = start = -1
    for first, _, _, position in in_order(_sort_keys(requests), 4):
        if first != current or len(order) - start == BATCHING.largest_group:
            current, start = first, len(order)
            ends.append(start)
        order.append(position)
    ends.append(len(order))
    return Plan(Groups(np.frombuffer(order, np.intc), np.frombuffer(ends, np.intc)[1:]))


def _sort_keys(requests: Iterable[Request]) -> Iterator[tuple[int, int, int, int]]:
    """Where the request's pictures first appear, hash of its earlier turns, length, position."""
    seen = Table("q")
    for position, request in enumerate(requests):
        first = position
        if names := [image.identity() for image in request.images]:
            (first,) = seen.update(
                short_hash("\0".join((*names, _policy(request.image_policy)))), partial(_known, (position,))
            )
        *history, last = request.messages
        text = "\0".join(f"{message.role}\0{message.text}" for message in history)
        yield first, short_hash(text) if text else 0, len(last.text), position
    seen.close()


@lru_cache(maxsize=64)
def _policy(policy: ImagePolicy) -> str:
    return repr(policy)


def _known(new: Row, known: Row | None) -> Row:
    return known or new


def tile_count(width: int, height: int, policy: ImagePolicy, tile: int = 448) -> int:
    """Tiles of one picture, thumbnail included (InternVL 1.5 dynamic tiling, protocols' shared facts).

    Among grids of min_tiles to max_tiles tiles the one with the nearest aspect ratio; on a tie the larger one
    if the picture has more than half its area.
    """
    if policy.grid is not None:
        chosen = policy.grid[0] * policy.grid[1]
    else:
        span = range(1, policy.max_tiles + 1)
        fits = {(c, r) for c in span for r in span if policy.min_tiles <= c * r <= policy.max_tiles}
        best, chosen = float("inf"), 1
        for columns, rows in sorted(fits, key=lambda grid: grid[0] * grid[1]):
            distance = abs(width / height - columns / rows)
            area = columns * rows
            if distance < best or (distance == best and width * height > 0.5 * tile * tile * area):
                best, chosen = distance, area
    return chosen + 1 if policy.thumbnail and chosen > 1 else chosen


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a plan would cost: tiles estimated from a probe of the pictures, text at 4 characters a token.

    Attributes:
        pictures: distinct ones; picture_uses: counted once for every request that shows them.
        tiles: of the distinct pictures; tile_uses: counted once a use, as without sharing.
        unreadable: one line for each probed picture that cannot be opened.
        group_tiles: counted once a group, as the language model reads them with sharing.
        text_tokens: of all prompts; repeated_text_tokens: those that sharing need not read again.
        new_tokens_at_most: max_new_tokens of all requests together.
    """

    requests: int
    groups: int
    pictures: int
    picture_uses: int
    tiles: int
    tile_uses: int
    group_tiles: int
    text_tokens: int
    repeated_text_tokens: int
    new_tokens_at_most: int
    unreadable: tuple[str, ...]

    def prefilled(self, tokens_per_tile: int, shared: bool) -> int:
        """Prompt tokens that the language model reads, image tokens included.

        Args:
            tokens_per_tile: of the model.
            shared: whether what the requests of a group begin with is read once.
        """
        if shared:
            return self.group_tiles * tokens_per_tile + self.text_tokens - self.repeated_text_tokens
        return self.tile_uses * tokens_per_tile + self.text_tokens

    def to_json(self) -> dict[str, object]:
        """Field names to values."""
        return dataclasses.asdict(self)


def _common(texts: Sequence[str]) -> int:
    """Characters that all begin with."""
    low, high = min(texts), max(texts)
    return next((at for at, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))


def outlook(plan: Plan, request: Callable[[int], Request]) -> Outlook:
    """Estimate a plan's cost, opening a few dozen pictures at most."""
    uses: dict[str, int] = {}
    handles: dict[str, tuple[ImageHandle, ImagePolicy]] = {}
    characters = repeated = answers = group_uses = 0
    for group in plan.groups:
        texts: list[str] = []
        for position in group:
            asked = request(position)
            texts.append("".join(message.text for message in asked.messages))
            answers += asked.generation.max_new_tokens
            for image in asked.images:
                name = image.identity()
                uses[name] = uses.get(name, 0) + 1
                handles.setdefault(name, (image, asked.image_policy))
        group_uses += len(asked.images)
        characters += sum(map(len, texts))
        repeated += (len(texts) - 1) * _common(texts)
    names = list(handles)
    step = max(1, len(names) // _PROBES)
    tiles: list[int] = []
    unreadable: list[str] = []
    for name in names[::step]:
        image, policy = handles[name]
        try:
            width, height = image.open().size
            tiles.append(tile_count(width, height, policy))
        except ImageError as error:
            unreadable.append(str(error))
    mean = sum(tiles) / len(tiles) if tiles else 0.0
    return Outlook(
        requests=plan.size,
        groups=len(plan.groups),
        pictures=len(names),
        picture_uses=sum(uses.values()),
        tiles=round(mean * len(names)),
        tile_uses=round(mean * sum(uses.values())),
        group_tiles=round(mean * group_uses),
        text_tokens=characters // 4,
        repeated_text_tokens=repeated // 4,
        new_tokens_at_most=answers,
        unreadable=tuple(unreadable),
    )
