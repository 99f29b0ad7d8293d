"""Which samples are asked, and in which order: what shares a picture together, then what shares a prefix.

Both are functions of the samples alone, so that a resumed, limited or repeated run plans the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from evalkit import registry
from evalkit.batch_config import BATCHING
from evalkit.contracts import ImagePolicy, Message, Request, Sample
from evalkit.data.images import ImageHandle
from evalkit.errors import DataError, ImageError, UsageError

#: Positions of requests that share their images.
Group = tuple[int, ...]

#: Distinct pictures opened to estimate tiles.
_PROBES = 48


def unique(samples: Iterable[Sample], where: str) -> list[Sample]:
    """All samples.

    Raises:
        DataError: two have the same id.
    """
    every = list(samples)
    seen: set[str] = set()
    for sample in every:
        if sample.id in seen:
            raise DataError(
                f"{where}: sample id {sample.id!r} occurs twice: not the official files, or a part was "
                "appended again"
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
    ranks = [_rank(seed, sample.cluster) for sample in samples]
    chosen = sorted(range(len(samples)), key=ranks.__getitem__)[:limit]
    return [samples[place] for place in sorted(chosen)]


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
    return [samples[place] for place in sorted(places.values())]


@dataclass(frozen=True, slots=True)
class Plan:
    """Positions of the requests, group by group; the requests of a group share their images."""

    groups: Sequence[Group]

    @property
    def size(self) -> int:
        """Requests in all."""
        return sum(map(len, self.groups))

    def pending(self, pending: Collection[int]) -> list[Group]:
        """What is pending of each group; groups with nothing pending are left out."""
        left = (tuple(position for position in group if position in pending) for group in self.groups)
        return [group for group in left if group]

    def numbered(self, request: Callable[[int], Request]) -> Callable[[int], Request]:
        """`request` with the number of its group in each (`Request.group`), for models that share work."""
        numbers = {place: number for number, group in enumerate(self.groups) for place in group}
        return lambda position: dataclasses.replace(request(position), group=numbers[position])


def make_plan(requests: Iterable[Request]) -> Plan:
    """Group requests with the same images and image policy; the only place that finds who shares what.

    Groups are in order of first appearance; inside, requests are sorted by earlier turns, then length, so
    that those that begin alike lie side by side. A request without images is a group by itself.
    """
    groups: list[Group] = []
    for _, keys in groupby(sorted(_sort_keys(requests)), lambda key: key[0]):
        group = tuple(position for _, _, _, position in keys)
        step = BATCHING.largest_group
        groups += (group[at : at + step] for at in range(0, len(group), step))
    return Plan(groups)


def _sort_keys(requests: Iterable[Request]) -> Iterator[tuple[int, int, int, int]]:
    """Where the request's images first appear, hash of its earlier turns, length, position."""
    seen: dict[tuple[tuple[str, ...], ImagePolicy], int] = {}
    for position, request in enumerate(requests):
        names = tuple(image.identity() for image in request.images)
        first = seen.setdefault((names, request.image_policy), position) if names else position
        *history, last = request.messages
        yield first, _hash(history), len(last.text), position


def _hash(history: Sequence[Message]) -> int:
    """64 bits that put equal earlier turns beside each other; 0 without any."""
    if not history:
        return 0
    text = "\0".join(f"{message.role}\0{message.text}" for message in history)
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


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
