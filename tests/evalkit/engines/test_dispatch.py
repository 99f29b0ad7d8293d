"""Handing out groups: every position once, whole groups, bounded, small ones last, killers alone."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.engines.dispatch import AHEAD, KEPT, MOST_DEATHS, Dispatcher, Parcel


def groups_of(sizes: list[int]) -> list[tuple[int, ...]]:
    """Groups of these sizes over consecutive positions."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [tuple(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def positions(parcel: Parcel) -> list[int]:
    """All positions of a parcel."""
    return [position for lot in parcel for position in lot.positions]


def answer(dispatcher: Dispatcher, parcel: Parcel) -> list[int]:
    """Answer a whole parcel."""
    found = positions(parcel)
    for lot in parcel:
        lot.positions.clear()
    dispatcher.answered(len(found))
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=60), st.integers(0, 5), st.integers(0, 1000))
def test_every_position_is_answered_once_whoever_is_lost(sizes: list[int], workers: int, seed: int) -> None:
    chance = random.Random(seed)
    groups = groups_of(sizes)
    dispatcher = Dispatcher(groups, workers, part=16)
    whole = {group[0]: set(group) for group in groups}
    at_hand: list[list[Parcel]] = [[] for _ in range(3)]
    answered: list[int] = []
    for _ in range(10_000):
        if dispatcher.finished:
            break
        worker = at_hand[chance.randrange(3)]
        if worker and chance.random() < 0.1:
            for lot in dispatcher.give_back(worker, blame=chance.random() < 0.5):
                assert lot.deaths == MOST_DEATHS
                answered += answer(dispatcher, [lot])
            worker.clear()
        elif worker and chance.random() < 0.5:
            answered += answer(dispatcher, worker.pop(0))
        elif len(worker) < AHEAD and (parcel := dispatcher.take(chance.random(), worker)):
            for lot in parcel:
                assert set(lot.positions) == whole[min(lot.positions)]
            worker.append(parcel)
    assert dispatcher.finished
    assert sorted(answered) == [position for group in groups for position in group]


def test_parcels_are_whole_groups_in_plan_order_and_the_smallest_come_last_smallest_first() -> None:
    sizes = [7, 3, 9, 1, 5, 8, 2, 6, 4, 10, 11, 12]
    groups = groups_of(sizes)
    dispatcher = Dispatcher(groups, workers=1, part=1)
    order = []
    while parcel := dispatcher.take():
        (lot,) = parcel
        order.append(len(lot.positions))
        answer(dispatcher, parcel)
    kept = sorted(sizes)[:KEPT]
    assert order == [size for size in sizes if size not in kept] + kept


def test_a_slow_worker_gets_less_towards_the_end() -> None:
    dispatcher = Dispatcher(groups_of([1] * 100), workers=2, part=32)
    assert len(positions(dispatcher.take(0.9))) == 32
    assert len(positions(dispatcher.take(0.9))) == 31  # of 68 left, half of its share
    assert len(positions(dispatcher.take(0.1))) == 2
    assert len(positions(dispatcher.take(0.001))) == 1


def test_a_group_that_cost_a_worker_is_alone_at_hand_until_it_is_given_up() -> None:
    dispatcher = Dispatcher(groups_of([2] * 9), workers=0, part=8)
    first, second, other = dispatcher.take(), dispatcher.take(), dispatcher.take()
    del first[0].positions[0]
    dispatcher.answered()
    assert dispatcher.give_back([first, second], blame=True) == []
    assert dispatcher.left == 15
    killer = second[-1]
    for lot in first + second:
        assert dispatcher.take(at_hand=[other]) == []
        assert dispatcher.take() == [lot] and lot.deaths == 1
        assert dispatcher.take(at_hand=[[lot]]) == []
        if lot is not killer:
            answer(dispatcher, [lot])
    assert dispatcher.give_back([[killer]], blame=True) == [] and dispatcher.take() == [killer]
    assert dispatcher.give_back([[killer]], blame=True) == [killer]
    answer(dispatcher, [killer])
    answer(dispatcher, other)
    assert not dispatcher.finished
    answer(dispatcher, dispatcher.take())
    assert dispatcher.finished


def test_a_lost_node_is_nobodys_fault() -> None:
    dispatcher = Dispatcher(groups_of([1]), workers=0)
    for _ in range(10):
        parcel = dispatcher.take()
        assert dispatcher.give_back([parcel], blame=False) == []
    assert parcel[0].deaths == 0 and not dispatcher.finished
