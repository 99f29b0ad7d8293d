"""Which samples are asked, and in which order: what shares images together, then what shares a prefix.

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
from evalkit.errors import DataError, UsageError
from evalkit.files import NOT_OFFICIAL
from evalkit.text import names_nothing

#: Positions of requests that share their images.
Group = tuple[int, ...]


def unique(samples: Iterable[Sample], where: str) -> list[Sample]:
    """All samples.

    Raises:
        DataError: two have the same id, or one has none.
    """
    every = list(samples)
    seen: set[str] = set()
    for number, sample in enumerate(every, 1):
        if names_nothing(sample.id):
            raise DataError(
                f"{where}: sample {number} has the id {sample.id!r}, which is none: {NOT_OFFICIAL}"
            )
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
    that those that begin alike are neighbours. A request without images is a group of its own.
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
