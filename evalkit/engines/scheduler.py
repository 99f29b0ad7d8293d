"""Which worker is asked what, and what becomes of the requests when a worker is lost.

This is bookkeeping: it starts no process and reads no clock. Work is handed out in chunks of whole groups.
With several workers, a worker's chunks shrink towards the end of a run: it gets its share, by speed, of half
of what is left, so that a slow worker gets less. The smallest groups may be kept for the end and are handed
out smallest first: then the last worker at work is soon done.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from evalkit.contracts import Failure, Request, Response
from evalkit.errors import ModelError

#: Workers that a group may cost before its requests fail.
MOST_LOSSES = 3

#: Which chunks of a lost worker may have caused the loss: none of them (its machine is gone), the first one
#: without all answers, or all of them (the worker may have begun the second before it handed over the first).
Blame = Literal["none", "first", "all"]


class Answer(NamedTuple):
    """A response.

    Attributes:
        id: of the sample. key: content hash of the request. worker: names the responses file.
    """

    id: str
    key: str
    response: Response
    worker: str


@dataclass(eq=False, slots=True)
class Group:
    """The unanswered positions of a group, in order, and how many workers were lost over it."""

    positions: dict[int, None]
    losses: int = 0


Chunk = list[Group]

#: The positions of each group of a plan.
Groups = Sequence[tuple[int, ...]]


@dataclass(slots=True)
class Asked:
    """A request that a worker has; its `key` is hashed when it is answered, unless it is set before."""

    group: Group
    position: int
    request: Request
    key: str = ""


@dataclass
class Assignment:
    """What one worker has been asked and has not answered.

    Attributes:
        worker: names its responses file. chunks: in the order in which it got them. asked: by request id.
    """

    worker: str
    chunks: deque[Chunk] = field(default_factory=deque)
    asked: dict[str, Asked] = field(default_factory=dict)


class Scheduler:
    """The groups of a plan on their way to the workers, and the answers on their way back.

    Args:
        groups: positions of each group, in plan order.
        request: makes the request of a position, when it is handed out.
        model: its name, for messages.
        chunk: requests in a chunk; its last group goes beyond rather than being split.
        kept: how many of the smallest groups are kept for the end.
        halve: whether a group that surely cost a worker is asked again in halves, so that in the end only
            the request that is the cause fails; otherwise its whole group does.
    """

    def __init__(
        self,
        groups: Groups,
        request: Callable[[int], Request],
        model: str,
        chunk: int,
        kept: int = 0,
        halve: bool = False,
    ) -> None:
        self._request = request
        self._model = model
        self._chunk = chunk
        self._halve = halve
        self._left = sum(map(len, groups))
        self._under_way = 0
        self._again: deque[Group] = deque()
        last = heapq.nsmallest(kept, range(len(groups)), key=lambda i: (len(groups[i]), i))
        self._order = _in_order(groups, last)

    @property
    def left(self) -> int:
        """Requests that no worker has."""
        return self._left

    @property
    def finished(self) -> bool:
        """Whether every request is answered."""
        return not self._left and not self._under_way

    def take(self, assignment: Assignment, share: float | None = None) -> list[Asked]:
        """Give a worker its next chunk; the list is empty if there is none for it now.

        A group that cost a worker is all that its next worker has, so that another loss tells whether it was
        that group's.

        Args:
            share: of all the work, from 0 to 1, that this worker does; None hands out full chunks to the end.
        """
        if any(group.losses for chunk in assignment.chunks for group in chunk):
            return []
        wanted = self._chunk
        if share is not None:
            wanted = min(wanted, max(1, math.ceil(self._left * share / 2)))
        chunk: Chunk = []
        size = 0
        while size < wanted and (group := self._next(bool(chunk or assignment.chunks))) is not None:
            chunk.append(group)
            size += len(group.positions)
            if group.losses:
                break
        self._left -= size
        self._under_way += size
        if not chunk:
            return []
        found = [Asked(group, at, self._request(at)) for group in chunk for at in group.positions]
        assignment.chunks.append(chunk)
        assignment.asked.update((asked.request.id, asked) for asked in found)
        return found

    def _next(self, in_company: bool) -> Group | None:
        if self._again:
            return None if in_company and self._again[0].losses else self._again.popleft()
        return next(self._order, None)

    def answer(self, assignment: Assignment, identifier: str, response: Response) -> Answer:
        """Take a worker's response to a request.

        Raises:
            ModelError: the worker was not asked that, or has answered it already.
        """
        asked = assignment.asked.pop(identifier, None)
        if asked is None:
            raise ModelError(
                f"model {self._model}: answered {identifier!r}, which was not asked or is answered already; "
                "the model's adapter is wrong"
            )
        del asked.group.positions[asked.position]
        self._under_way -= 1
        return Answer(identifier, asked.key or asked.request.key(), response, assignment.worker)

    def finish(self, assignment: Assignment) -> Iterator[Answer]:
        """The worker is done with its first chunk: what it has not answered by now fails."""
        for group in assignment.chunks.popleft():
            yield from self._fail(assignment, group, Failure("model", "the model gave no answer"))

    def give_back(self, assignment: Assignment, blame: Blame, failure: Failure) -> list[Answer]:
        """Take back what a lost worker has not answered.

        Args:
            blame: which of its chunks may be the cause.
            failure: of a request that is given up.

        Returns:
            The answers to the requests of groups that have cost `MOST_LOSSES` workers.
        """
        chunks = [[group for group in chunk if group.positions] for chunk in assignment.chunks]
        chunks = [chunk for chunk in chunks if chunk]
        blamed = {"none": chunks[:0], "first": chunks[:1], "all": chunks}[blame]
        suspects = [group for chunk in blamed for group in chunk]
        for group in suspects:
            group.losses += 1
        returned: list[Group] = []
        answers: list[Answer] = []
        for group in (group for chunk in chunks for group in chunk):
            if self._halve and [group] == suspects and len(group.positions) > 1:
                returned += _halves(group)
            elif group.losses >= MOST_LOSSES and not (self._halve and len(group.positions) > 1):
                answers += self._fail(assignment, group, failure)
            else:
                returned.append(group)
        self._again.extendleft(reversed(returned))
        self._left += len(assignment.asked)
        self._under_way -= len(assignment.asked)
        assignment.chunks.clear()
        assignment.asked.clear()
        return answers

    def _fail(self, assignment: Assignment, group: Group, failure: Failure) -> Iterator[Answer]:
        for position in list(group.positions):
            yield self.answer(assignment, self._request(position).id, Response(error=failure))


def _in_order(groups: Groups, last: Sequence[int]) -> Iterator[Group]:
    kept = set(last)
    for number, group in enumerate(groups):
        if number not in kept:
            yield Group(dict.fromkeys(group))
    for number in last:
        yield Group(dict.fromkeys(groups[number]))


def _halves(group: Group) -> list[Group]:
    """Two groups that have cost a worker, so that each is asked alone."""
    positions = list(group.positions)
    middle = len(positions) // 2
    return [Group(dict.fromkeys(half), losses=1) for half in (positions[:middle], positions[middle:])]
