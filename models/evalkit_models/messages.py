"""A request as messages with images among the text, for the chat templates of other models."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evalkit.contracts import Request

IMAGE = "<image>"

#: A mark on a line of its own with its line end: how images are set apart is the template's business.
_MARK = re.compile(r"(?m)(^<image>\n|<image>)")

#: Text, or the position of an image.
Part = str | int


class MarksError(Exception):
    """The marks of a conversation are not as many as its images."""


def messages(request: Request) -> list[tuple[str, Sequence[Part]]]:
    """Role and parts of each message.

    Where no user text has an `<image>`, the images go in front of the first one, as the in-repo model has
    it; several are then numbered (`Image-1: <image>`).

    Raises:
        MarksError: the number of `<image>` differs from the number of images.
    """
    texts = [message.text for message in request.messages]
    asked = [place for place, message in enumerate(request.messages) if message.role == "user"]
    if request.images and asked and not any(IMAGE in texts[place] for place in asked):
        texts[asked[0]] = _marks(len(request.images)) + texts[asked[0]]
    marks = sum(text.count(IMAGE) for text in texts)
    if marks != len(request.images):
        raise MarksError(
            f"the conversation holds {marks} {IMAGE} but {len(request.images)} images were given; there "
            "must be one for each"
        )
    image = iter(range(marks))
    found: list[tuple[str, Sequence[Part]]] = []
    for message, text in zip(request.messages, texts, strict=True):
        pieces = _MARK.split(text)
        parts = [next(image) if piece.startswith(IMAGE) else piece for piece in pieces if piece]
        found.append((message.role, parts))
    return found


def _marks(count: int) -> str:
    return f"{IMAGE}\n" if count == 1 else "".join(f"Image-{i}: {IMAGE}\n" for i in range(1, count + 1))
