"""What `--gen` may set for a served model, besides generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from evalkit.errors import UsageError

N = TypeVar("N", int, float)

#: Settings that change no answer: a run may go on with other values.
FREE = ("timeout", "attempts", "max_requests", "max_total_tokens", "token_limit", "send_stop")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server is asked.

    Attributes:
        jpeg_quality: 1 to 100; None sends lossless PNG.
        timeout: seconds for one attempt. attempts: how often a request is sent before it counts as failed.
        max_requests, max_total_tokens: budget of one call of the command.
        token_limit: the protocol's field for the longest answer; newer cloud models want
            `max_completion_tokens`.
        send_stop: whether stop texts are sent; answers are cut at them in any case.
    """

    jpeg_quality: int | None = None
    timeout: float = 600.0
    attempts: int = 6
    max_requests: int | None = None
    max_total_tokens: int | None = None
    token_limit: str = "max_tokens"
    send_stop: bool = True

    @classmethod
    def parse(cls, extra: Mapping[str, str]) -> ServerSettings:
        """From `--gen KEY=VALUE`.

        Raises:
            UsageError: an unknown key, or a value out of range.
        """
        known: dict[str, Any] = {
            "jpeg_quality": lambda key, text: _number(key, text, int, 1, 100),
            "timeout": lambda key, text: _number(key, text, float, 0.001, 86400.0),
            "attempts": lambda key, text: _number(key, text, int, 1, 1000),
            "max_requests": lambda key, text: _number(key, text, int, 1, 10**15),
            "max_total_tokens": lambda key, text: _number(key, text, int, 1, 10**15),
            "token_limit": lambda key, text: _choice(key, text, ("max_tokens", "max_completion_tokens")),
            "send_stop": lambda key, text: _choice(key, text, ("yes", "no")) == "yes",
        }
        for key in extra:
            if key not in known:
                raise UsageError(
                    f"--gen {key}: a served model knows {', '.join(known)} and the settings of generation"
                )
        return cls(**{key: known[key](key, text) for key, text in extra.items()})


def _number(key: str, text: str, kind: type[N], least: N, most: N) -> N:
    try:
        value = kind(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise UsageError(f"--gen {key}={text}: write a number from {least:g} to {most:g}")
    return value


def _choice(key: str, text: str, known: Sequence[str]) -> str:
    if text not in known:
        raise UsageError(f"--gen {key}={text}: write {' or '.join(known)}")
    return text
