"""Pictures are made ready once, in order, ahead of time and a bounded number at a time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from evalkit.contracts import Failure, ImagePolicy, Message, Request
from evalkit_models import feeding
from evalkit_models.feeding import Feeder


@dataclass(frozen=True)
class Named:
    """A picture known by its name."""

    name: str

    def identity(self) -> str:
        """The name."""
        return self.name


def requests(pictures: str, max_tiles: int = 12) -> list[Request]:
    """One request for each letter, about the picture of that name; a dot is a request without one."""
    return [
        Request(
            str(place),
            (Message("user", "?"),),
            () if name == "." else (Named(name),),
            image_policy=ImagePolicy(max_tiles=max_tiles),
        )  # type: ignore[arg-type]
        for place, name in enumerate(pictures)
    ]


def test_pictures_are_made_once_and_requests_keep_their_order() -> None:
    made: list[str] = []

    def make(request: Request) -> str | Failure:
        made.append(request.id)
        return "".join(image.identity() for image in request.images)

    feeder: Feeder[str] = Feeder(make)
    batches = list(feeder.batches(requests("aaabbc..d"), 4))
    feeder.close()
    assert sorted(made) == ["0", "3", "5", "6", "8"]
    assert [[(r.pictures, len(r.requests)) for r in batch] for batch in batches] == [
        [("a", 3), ("b", 2)],
        [("c", 1), ("", 2), ("d", 1)],
    ]
    asked = [request.id for batch in batches for ready in batch for request in ready.requests]
    assert asked == [str(place) for place in range(9)]


def test_another_policy_is_another_picture() -> None:
    feeder: Feeder[int] = Feeder(lambda request: request.image_policy.max_tiles)
    both = [*requests("a"), *requests("a", 1)]
    (batch,) = feeder.batches(both, 9)
    assert [ready.pictures for ready in batch] == [12, 1]


def test_a_failure_belongs_to_its_picture() -> None:
    feeder: Feeder[str] = Feeder(lambda request: Failure("image", "torn") if request.id == "1" else "fine")
    (batch,) = feeder.batches(requests("abc"), 9)
    assert [ready.pictures for ready in batch] == ["fine", Failure("image", "torn"), "fine"]


def test_many_questions_about_one_picture_are_answered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "TOGETHER", 4)
    made: list[str] = []
    feeder: Feeder[str] = Feeder(lambda request: made.append(request.id) or "a")  # type: ignore[func-returns-value]
    sizes = [[len(ready.requests) for ready in batch] for batch in feeder.batches(requests("a" * 10), 4)]
    assert sizes == [[4], [4], [2]] and made == ["0"]


def test_few_pictures_wait_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "AHEAD", 3)
    ready = 0
    most = 0
    lock = threading.Lock()

    def make(request: Request) -> str | Failure:
        nonlocal ready, most
        with lock:
            ready += 1
            most = max(most, ready)
        return request.id

    feeder: Feeder[str] = Feeder(make)
    for batch in feeder.batches(requests("abcdefghijklmnop"), 2):
        time.sleep(0.01)
        with lock:
            ready -= len(batch)
    assert 2 <= most <= 3 + 2


def test_work_goes_on_while_nobody_waits() -> None:
    feeder: Feeder[str] = Feeder(lambda request: time.sleep(0.02) or "a")  # type: ignore[func-returns-value]
    batches = feeder.batches(requests("abcdef"), 1)
    next(batches)
    time.sleep(0.4)
    before = feeder.waited
    assert len(list(batches)) == 5
    assert feeder.waited - before < 0.02
