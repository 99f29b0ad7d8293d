"""The adapter: sharing changes no answer, and what fails fails alone."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from PIL import Image

from evalkit.contracts import Generation, Message, Model, ModelOptions, Request, Response
from evalkit.data.images import ImageBytes
from evalkit.pipeline.plan import make_plan
from evalkit_models.mini_internvl import FAMILY


@pytest.fixture(scope="module")
def model() -> Model:
    """The embedded model with random weights, whose answers differ from question to question."""
    import torch

    loaded: Any = FAMILY.load("mini-internvl-tiny", ModelOptions(dtype="float32", device="cpu"))
    torch.manual_seed(0)
    for name, weight in loaded._network.named_parameters():
        if "norm" in name and "weight" in name:
            weight.data.uniform_(0.5, 1.5)
        else:
            weight.data.normal_(std=0.1)
    return loaded  # type: ignore[no-any-return]


def picture(seed: int) -> ImageBytes:
    """A picture of large blocks."""
    drawn = random.Random(seed)
    image = Image.new("RGB", (160, 90))
    for _ in range(12):
        corner = drawn.randrange(120), drawn.randrange(60)
        image.paste(tuple(drawn.randrange(256) for _ in range(3)), (*corner, corner[0] + 40, corner[1] + 30))
    data = io.BytesIO()
    image.save(data, "PNG")
    return ImageBytes(data.getvalue(), f"picture {seed}")


def asked(pictures: int = 4, questions: int = 5) -> list[Request]:
    """Several questions about each picture, some as second turns, and some without a picture."""
    drawn = random.Random(1)
    words = ["what", "where", "colour", "cube", "red", "left", "of", "the", "many", "is", "there"]
    found = []
    for number in range(pictures):
        for question in range(questions):
            text = " ".join(drawn.choices(words, k=drawn.randrange(2, 9)))
            turns = [Message("user", text)]
            if question % 3 == 2:
                turns = [Message("user", "what is there"), Message("assistant", "a cube"), *turns]
            images = () if number == 2 else (picture(number),)
            found.append(Request(f"{number}-{question}", tuple(turns), images, Generation(max_new_tokens=8)))
    return [*map(make_plan(found).numbered(found.__getitem__), range(len(found)))]


def answers(model: Any, requests: list[Request], share: bool = True) -> dict[str, tuple[Any, ...]]:
    """Everything about the answers but the time."""
    model._network.plan_batches(share=share)
    found: dict[str, Response] = dict(model.generate(requests))
    return {
        identifier: (r.text, r.finish, r.prompt_tokens, r.visual_tokens, r.new_tokens, r.error)
        for identifier, r in found.items()
    }


def test_sharing_changes_no_answer(model: Model) -> None:
    requests = asked()
    shared = answers(model, requests)
    assert list(shared) == [request.id for request in requests]
    assert shared == answers(model, requests, share=False)
    assert len({text for text, *_ in shared.values()}) > 10


def test_any_part_of_the_requests_gets_the_same_answers(model: Model) -> None:
    requests = asked()
    whole = answers(model, requests)
    drawn = random.Random(2)
    for _ in range(4):
        some = [request for request in requests if drawn.random() < 0.4]
        assert answers(model, some) == {request.id: whole[request.id] for request in some}
    assert answers(model, requests[7:8]) == {"1-2": whole["1-2"]}


def test_a_broken_picture_fails_alone(model: Model) -> None:
    requests = asked(2, 3)
    torn = ImageBytes(picture(1).data[:200], "torn.png")
    broken = [
        Request(f"torn-{place}", r.messages, (torn,), r.generation, group=9)
        for place, r in enumerate(requests[:2])
    ]
    found = answers(model, [*requests[:3], *broken, *requests[3:]])
    for request in broken:
        failure = found.pop(request.id)[-1]
        assert failure.kind == "image" and "torn.png" in failure.message
    assert found == answers(model, requests)


def test_half_of_a_character_in_a_question_fails_alone(model: Model) -> None:
    requests = asked(1, 2)
    broken = Request("half", (Message("user", "Is it \ud800?"),), (), requests[0].generation)
    found = answers(model, [requests[0], broken, requests[1]])
    failure = found.pop("half")[-1]
    assert failure.kind == "prompt" and "U+D800" in failure.message and "fix the text" in failure.message
    assert found == answers(model, requests)
