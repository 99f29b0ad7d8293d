"""Handing out groups: every request once, whole groups, bounded chunks, small groups last, blame exact."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.batch_config import BATCHING
from evalkit.contracts import Failure, Message, ModelInfo, Request, Response
from evalkit.data.images import ImageFile
from evalkit.engines.base import InProcess
from evalkit.engines.scheduler import MOST_LOSSES, Answer, Asked, Assignment, Scheduler
from evalkit.errors import ModelError
from evalkit.pipeline.plan import make_plan

LOST = Failure("worker", "its worker died")


def request(position: int) -> Request:
    """Of a position."""
    return Request(f"r{position}", (Message("user", f"{position}?"),), ())


def groups_of(sizes: list[int]) -> list[tuple[int, ...]]:
    """Groups of these sizes over consecutive positions."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [tuple(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def scheduler(sizes: list[int], chunk: int, kept: int = 0, halve: bool = False) -> Scheduler:
    """Of groups of these sizes."""
    return Scheduler(groups_of(sizes), request, "toy", chunk, kept, halve)


def places(chunk: Sequence[Asked]) -> list[int]:
    """The positions of what was handed out."""
    return [asked.position for asked in chunk]


def answer_first(made: Scheduler, assignment: Assignment) -> list[Answer]:
    """Answer a worker's first chunk."""
    positions = [position for group in assignment.chunks[0] for position in group.positions]
    found = [made.answer(assignment, f"r{position}", Response("yes")) for position in positions]
    assert list(made.finish(assignment)) == []
    return found


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 90), max_size=60),
    st.integers(0, 20),
    st.integers(0, 1000),
    st.booleans(),
    st.sampled_from(["first", "all"]),
)
def test_every_request_is_answered_once_whoever_is_lost(
    sizes: list[int], kept: int, seed: int, halve: bool, blame: str
) -> None:
    chance = random.Random(seed)
    made = scheduler(sizes, 16, kept, halve)
    workers = [Assignment(str(number)) for number in range(3)]
    answers: list[Answer] = []
    for _ in range(20_000):
        if made.finished:
            break
        worker = chance.choice(workers)
        if worker.chunks and chance.random() < 0.1:
            blamed = blame if chance.random() < 0.5 else "none"
            answers += made.give_back(worker, blamed, LOST)  # type: ignore[arg-type]
            assert not worker.chunks and not worker.asked
        elif worker.chunks and chance.random() < 0.5:
            answers += answer_first(made, worker)
        elif len(worker.chunks) < BATCHING.chunks_ahead:
            made.take(worker, chance.random())
    assert made.finished
    assert sorted(answer.id for answer in answers) == sorted(f"r{at}" for at in range(sum(sizes)))
    assert all(answer.key == request(int(answer.id[1:])).key() for answer in answers)


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_a_lone_worker_gets_full_chunks_of_whole_groups_in_plan_order(images: list[int], size: int) -> None:
    question = (Message("user", "?"),)
    requests = [Request(str(i), question, (ImageFile(f"p{image}"),)) for i, image in enumerate(images)]
    plan = make_plan(requests)
    made = Scheduler(plan.groups, requests.__getitem__, "toy", size)
    worker, chunks = Assignment("0"), []
    while chunk := made.take(worker):
        chunks.append(places(chunk))
    assert [at for chunk in chunks for at in chunk] == [at for group in plan.groups for at in group]
    for left, right in pairwise(chunks):
        assert len(left) >= size and not {images[i] for i in left} & {images[i] for i in right}


def test_the_smallest_groups_come_last_smallest_first() -> None:
    sizes = [7, 3, 9, 1, 5, 8, 2, 6, 4, 10, 11, 12]
    made, order = scheduler(sizes, 1, kept=4), []
    while chunk := made.take(Assignment("0")):
        order.append(len(chunk))
    kept = sorted(sizes)[:4]
    assert order == [size for size in sizes if size not in kept] + kept


def test_a_slow_worker_gets_less_towards_the_end() -> None:
    made = scheduler([1] * 100, 32)
    taken = [len(made.take(Assignment("0"), share)) for share in (0.9, 0.9, 0.1, 0.001)]
    assert taken == [32, 31, 2, 1]  # of 68 left, half of its share


def test_a_group_that_cost_a_worker_is_alone_at_hand_until_it_is_given_up() -> None:
    made = scheduler([2] * 9, 8)
    lost, other = Assignment("0"), Assignment("1")
    assert [len(made.take(worker)) for worker in (lost, lost, other)] == [8, 8, 2]
    made.answer(lost, "r0", Response("yes"))
    groups = [group for chunk in lost.chunks for group in chunk]
    assert made.give_back(lost, "all", LOST) == [] and made.left == 15
    killer = groups[-1]
    for group in groups:
        assert made.take(other) == []
        alone = Assignment("2")
        assert places(made.take(alone)) == list(group.positions) and group.losses == 1
        assert made.take(alone) == []
        if group is not killer:
            answer_first(made, alone)
    for _ in range(MOST_LOSSES - 2):
        assert made.give_back(alone, "all", LOST) == []
        assert made.take(alone)
    answers = made.give_back(alone, "all", LOST)
    assert [(answer.id, answer.response.error, answer.worker) for answer in answers] == [
        ("r14", LOST, "2"),
        ("r15", LOST, "2"),
    ]
    assert not made.finished
    answer_first(made, other)
    assert made.finished


@pytest.mark.parametrize("killer", range(7))
def test_in_halves_only_the_request_at_fault_fails(killer: int) -> None:
    made = scheduler([7, 3], 10, halve=True)
    answers: list[Answer] = []
    losses = 0
    while not made.finished:
        worker = Assignment("0")
        chunk = places(made.take(worker))
        if killer in chunk:
            losses += 1
            answers += made.give_back(worker, "first", LOST)
        else:
            answers += answer_first(made, worker)
    assert [answer.id for answer in answers if answer.response.error] == [f"r{killer}"]
    assert len(answers) == 10 and losses <= 6  # in company, its group, halves of it, twice alone


def test_only_the_first_chunk_without_all_answers_is_blamed() -> None:
    made = scheduler([1] * 6, 2, halve=True)
    worker = Assignment("0")
    first, second, third = made.take(worker), made.take(worker), made.take(worker)
    for asked in first:
        made.answer(worker, asked.request.id, Response("yes"))
    assert made.give_back(worker, "first", LOST) == []
    assert [asked.group.losses for asked in first + second + third] == [0, 0, 1, 1, 0, 0]
    assert made.left == 4


def test_a_lost_node_is_nobodys_fault() -> None:
    made, worker = scheduler([1], 64), Assignment("0")
    for _ in range(10):
        (asked,) = made.take(worker)
        assert made.give_back(worker, "none", LOST) == []
    assert asked.group.losses == 0 and not made.finished


class Careless:
    """Answers what it is told to."""

    info = ModelInfo(name="careless", fingerprint="0", dtype="float32", device="cpu")

    def __init__(self, answer: Callable[[Request], list[str]]) -> None:
        self.answer = answer
        self.windows: list[int] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """In order."""
        self.windows.append(len(requests))
        for asked in requests:
            for name in self.answer(asked):
                yield name, Response("yes", "stop")

    def close(self) -> None:
        """Nothing to free."""


def test_a_model_in_this_process_is_asked_window_by_window() -> None:
    model = Careless(lambda asked: [asked.id])
    engine = InProcess(model)
    groups = make_plan(map(request, range(1000))).groups
    found = list(engine.answers(groups, request))
    assert [answer.id for answer in found] == [f"r{at}" for group in groups for at in group]
    assert model.windows == [256, 256, 256, 232]
    assert {answer.worker for answer in found} == {"0"} and engine.report() is None
    assert list(engine.answers((), request)) == []


def test_a_request_without_an_answer_fails_and_an_odd_answer_stops() -> None:
    groups = make_plan(map(request, range(3))).groups
    silent = InProcess(Careless(lambda asked: [] if asked.id == "r1" else [asked.id]))
    errors = {answer.id: answer.response.error for answer in silent.answers(groups, request)}
    assert errors == {"r0": None, "r2": None, "r1": Failure("model", "the model gave no answer")}
    for odd in (["r0", "r0"], ["nobody"]):
        engine = InProcess(Careless(lambda asked, odd=odd: odd))  # type: ignore[misc]
        with pytest.raises(ModelError, match=r"model careless: answered .* the model's adapter is wrong"):
            list(engine.answers(groups, request))


@pytest.mark.parametrize("name", ["bind_samples", "announce"])
def test_a_model_of_stored_answers_is_told_the_samples_under_either_name(name: str) -> None:
    model = Careless(lambda asked: [asked.id])
    assert InProcess(model).bind_samples({"a"}) == {}
    setattr(model, name, lambda ids: {"unknown": len(ids)})
    assert InProcess(model).bind_samples({"a", "b"}) == {"unknown": 2}
