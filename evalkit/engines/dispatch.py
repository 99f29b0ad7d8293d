"""Who is handed what, and what becomes of it when a worker is lost: bookkeeping without processes or clocks.

Work is handed out in parcels of whole groups. While there is much of it a parcel holds about `PART` requests;
towards the end a worker gets its share of half of what is left, by its speed, so that a slow one gets less.
The smallest groups of the run are kept for the end and handed out smallest first: what somebody still works
on when all others are done is then short.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evalkit.batch_config import BATCHING

#: Requests in a parcel; the last group goes beyond rather than being torn.
PART = BATCHING.ray_chunk
#: Parcels that a worker has at hand, so that it need not wait for the next.
AHEAD = BATCHING.chunks_ahead
#: Groups kept for the end, for each worker.
KEPT = BATCHING.groups_kept
#: Workers that a group may cost.
MOST_DEATHS = 3


@dataclass
class Lot:
    """A group's unanswered positions in order, and how many workers were lost over it."""

    positions: dict[int, None]
    deaths: int = 0


Parcel = list[Lot]


class Dispatcher:
    """The groups of a plan on their way to workers and back.

    Args:
        groups: positions of each group, in plan order.
        workers: how many there are now; more may come.
        part: requests in a parcel.
    """

    def __init__(self, groups: Sequence[tuple[int, ...]], workers: int, part: int = PART) -> None:
        self._part = part
        self._left = sum(map(len, groups))
        self._under_way = 0
        self._again: deque[Lot] = deque()
        kept = heapq.nsmallest(KEPT * workers, range(len(groups)), key=lambda i: (len(groups[i]), i))
        self._order = self._in_order(groups, kept)

    @staticmethod
    def _in_order(groups: Sequence[tuple[int, ...]], kept: Sequence[int]) -> Iterator[Lot]:
        last = set(kept)
        for number, group in enumerate(groups):
            if number not in last:
                yield Lot(dict.fromkeys(group))
        for number in kept:
            yield Lot(dict.fromkeys(groups[number]))

    @property
    def left(self) -> int:
        """Requests that nobody has at hand."""
        return self._left

    @property
    def finished(self) -> bool:
        """Whether nothing is left and nothing is under way."""
        return not self._left and not self._under_way

    def take(self, share: float = 1.0, at_hand: Sequence[Parcel] = ()) -> Parcel:
        """The next parcel for a worker that does `share` (0 to 1) of all the work; empty if it gets none now.

        A group that a worker was lost over is all that its next worker has at hand, so that another loss
        tells whether it was that group's.
        """
        if any(lot.deaths for held in at_hand for lot in held):
            return []
        parcel: Parcel = []
        wanted = min(self._part, max(1, math.ceil(self._left * share / 2)))
        size = 0
        while size < wanted and (lot := self._next(bool(parcel or at_hand))) is not None:
            parcel.append(lot)
            size += len(lot.positions)
            if lot.deaths:
                break
        self._left -= size
        self._under_way += size
        return parcel

    def _next(self, in_company: bool) -> Lot | None:
        if self._again:
            return None if in_company and self._again[0].deaths else self._again.popleft()
        return next(self._order, None)

    def answered(self, count: int = 1) -> None:
        """So many requests under way are answered, or will never be."""
        self._under_way -= count

    def give_back(self, parcels: Sequence[Parcel], blame: bool) -> list[Lot]:
        """Take the unanswered groups of a lost worker back; positions that were answered are gone from them.

        Args:
            blame: whether the work may have been the cause (not where a whole node was lost). All parcels are
                blamed: the worker may have begun the second and been lost before it handed over the first.

        Returns:
            Groups that have cost `MOST_DEATHS` workers: they stay under way, for the caller to answer.
        """
        hopeless: list[Lot] = []
        returned: list[Lot] = []
        for lot in (lot for parcel in parcels for lot in parcel if lot.positions):
            lot.deaths += blame
            (hopeless if lot.deaths >= MOST_DEATHS else returned).append(lot)
        for lot in reversed(returned):
            self._again.appendleft(lot)
            self._left += len(lot.positions)
            self._under_way -= len(lot.positions)
        return hopeless
