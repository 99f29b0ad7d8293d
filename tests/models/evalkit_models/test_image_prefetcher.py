"""Images are made ready once, in order, ahead of time and a bounded number at a time."""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass

from evalkit.batch_config import BatchConfig
from evalkit.contracts import Failure, ImagePolicy, Message, Request
from evalkit.pipeline.plan import make_plan
from evalkit_models.image_prefetcher import ImagePrefetcher


@dataclass(frozen=True)
class Named:
    """An image known by its name."""

    name: str

    def identity(self) -> str:
        """The name."""
        return self.name


def requests(images: str, max_tiles: int = 12) -> list[Request]:
    """One request for each letter, about the image of that name, as planned; a dot has no image."""
    asked = [
        Request(
            str(place),
            (Message("user", "?"),),
            () if name == "." else (Named(name),),
            image_policy=ImagePolicy(max_tiles=max_tiles),
        )  # type: ignore[arg-type]
        for place, name in enumerate(images)
    ]
    return [*map(make_plan(asked).numbered(asked.__getitem__), range(len(asked)))]


def test_images_are_made_once_and_requests_keep_their_order() -> None:
    made: list[str] = []

    def make(request: Request) -> str | Failure:
        made.append(request.id)
        return "".join(image.identity() for image in request.images)

    prefetcher: ImagePrefetcher[str] = ImagePrefetcher(make)
    batches = list(prefetcher.batches(requests("aaabbc..d"), 4))
    prefetcher.close()
    assert sorted(made) == ["0", "3", "5", "6", "7", "8"]
    assert [[(r.images, len(r.requests)) for r in batch] for batch in batches] == [
        [("a", 3), ("b", 2)],
        [("c", 1), ("", 1), ("", 1), ("d", 1)],
    ]
    asked = [request.id for batch in batches for ready in batch for request in ready.requests]
    assert asked == [str(place) for place in range(9)]


def test_requests_that_nobody_planned_are_made_ready_one_by_one() -> None:
    made: list[str] = []
    prefetcher: ImagePrefetcher[str] = ImagePrefetcher(lambda request: made.append(request.id) or "a")  # type: ignore[func-returns-value]
    alone = [dataclasses.replace(request, group=None) for request in requests("aab")]
    (batch,) = prefetcher.batches(alone, 9)
    assert sorted(made) == ["0", "1", "2"] and [len(ready.requests) for ready in batch] == [1, 1, 1]


def test_a_failure_belongs_to_its_images() -> None:
    prefetcher: ImagePrefetcher[str] = ImagePrefetcher(
        lambda request: Failure("image", "torn") if request.id == "1" else "fine"
    )
    (batch,) = prefetcher.batches(requests("abc"), 9)
    assert [ready.images for ready in batch] == ["fine", Failure("image", "torn"), "fine"]


def test_many_questions_about_one_image_are_answered_in_parts() -> None:
    made: list[str] = []
    prefetcher: ImagePrefetcher[str] = ImagePrefetcher(
        lambda request: made.append(request.id) or "a",  # type: ignore[func-returns-value]
        BatchConfig(requests_per_image_set=4),
    )
    sizes = [[len(ready.requests) for ready in batch] for batch in prefetcher.batches(requests("a" * 10), 4)]
    assert sizes == [[4], [4], [2]] and made == ["0"]


def test_few_images_wait_in_memory() -> None:
    ready = 0
    most = 0
    lock = threading.Lock()

    def make(request: Request) -> str | Failure:
        nonlocal ready, most
        with lock:
            ready += 1
            most = max(most, ready)
        return request.id

    prefetcher: ImagePrefetcher[str] = ImagePrefetcher(make, BatchConfig(image_sets_ahead=3))
    for batch in prefetcher.batches(requests("abcdefghijklmnop"), 2):
        time.sleep(0.01)
        with lock:
            ready -= len(batch)
    assert 2 <= most <= 3 + 2


def test_work_goes_on_while_nobody_waits() -> None:
    prefetcher: ImagePrefetcher[str] = ImagePrefetcher(lambda request: time.sleep(0.02) or "a")  # type: ignore[func-returns-value]
    batches = prefetcher.batches(requests("abcdef"), 1)
    next(batches)
    time.sleep(0.4)
    before = prefetcher.waited
    assert len(list(batches)) == 5
    assert prefetcher.waited - before < 0.02
