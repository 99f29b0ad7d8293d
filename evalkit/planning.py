"""Which samples are asked, and in which order: what shares a picture together, then what shares a prefix.

Both are functions of the samples alone, so that a resumed, limited or repeated run plans the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from evalkit import registry
from evalkit.contracts import ImagePolicy, Request, Sample
from evalkit.errors import DataError, ImageError, UsageError
from evalkit.images import ImageHandle

#: Requests handed to a model at once; a group is not torn to meet it.
WINDOW = 256
#: Groups larger than this are torn, to bound what a model holds at once.
_LARGEST_GROUP = 2048
#: Distinct pictures opened to estimate tiles.
_PROBES = 48


def unique(samples: Iterable[Sample], where: str) -> list[Sample]:
    """All samples, as handles.

    Raises:
        DataError: two have the same id.
    """
    seen: dict[str, Sample] = {}
    for sample in samples:
        if sample.id in seen:
            raise DataError(
                f"{where}: sample id {sample.id!r} occurs twice: not the official files, or a "
                "part was appended again"
            )
        seen[sample.id] = sample
    return list(seen.values())


def select(
    samples: Sequence[Sample], limit: int | None, sample_ids: Sequence[str], seed: int
) -> list[Sample]:
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
        return list(samples)
    if limit < 1:
        raise UsageError(f"--limit {limit}: give a positive number")
    ranked = sorted(range(len(samples)), key=lambda i: (_rank(seed, samples[i].cluster), i))
    return [samples[i] for i in sorted(ranked[:limit])]


def _rank(seed: int, cluster: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{cluster}".encode("utf-8", "surrogatepass")).digest()


def _named(samples: Sequence[Sample], sample_ids: Sequence[str]) -> list[Sample]:
    by_id = {sample.id: sample for sample in samples}
    for name in sample_ids:
        if name not in by_id:
            raise UsageError(f"--sample-id {name}: no such sample{registry.nearest(name, by_id)}")
    wanted = set(sample_ids)
    return [sample for sample in samples if sample.id in wanted]


@dataclass(frozen=True, slots=True)
class Plan:
    """Positions of the requests, group by group; a group shares its pictures."""

    groups: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Requests in all."""
        return sum(map(len, self.groups))

    def pending(self, pending: Collection[int]) -> list[tuple[int, ...]]:
        """What is pending of each group, groups without any left out."""
        found: list[tuple[int, ...]] = []
        for group in self.groups:
            left = tuple(position for position in group if position in pending)
            if left:
                found.append(group if len(left) == len(group) else left)
        return found

    def windows(self, pending: Collection[int], size: int = WINDOW) -> Iterator[list[int]]:
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
    """Group by the pictures' identity in order of first appearance; inside, by earlier turns, then length.

    A request without pictures is a group by itself.
    """
    groups: dict[object, list[tuple[str, int, int]]] = {}
    for position, request in enumerate(requests):
        key = tuple(image.identity() for image in request.images) or position
        *history, last = request.messages
        earlier = "\0".join(f"{message.role}\0{message.text}" for message in history)
        digest = hashlib.sha256(earlier.encode("utf-8", "surrogatepass")).hexdigest() if earlier else ""
        groups.setdefault(key, []).append((digest, len(last.text), position))
    ordered = (tuple(entry[-1] for entry in sorted(group)) for group in groups.values())
    return Plan(tuple(part for group in ordered for part in _parts(group)))


def _parts(group: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(group), _LARGEST_GROUP):
        yield group[start : start + _LARGEST_GROUP]


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
