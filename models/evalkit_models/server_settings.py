"""What `--gen` may set for a served model, besides generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evalkit.contracts import GENERATION_FIELDS
from evalkit.key_values import choice, number
from evalkit.near_names import unknown_setting
from evalkit.request_form import KEYS, RequestForm

#: Settings that change no answer, or are in the model's own settings: a run may go on with other spellings.
FREE = ("timeout", "attempts", "max_requests", "max_total_tokens", "token_limit", "send_stop", *KEYS)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server is asked.

    Attributes:
        jpeg_quality: 1 to 100; None sends lossless PNG.
        timeout: seconds for one attempt. attempts: how often a request is sent before it counts as failed.
        max_requests, max_total_tokens: budget of one call of the command.
        form: of its requests. `token_limit` is the earlier name of `token_field`.
        send_stop: whether stop texts are sent; answers are cut at them in any case.
    """

    jpeg_quality: int | None = None
    timeout: float = 600.0
    attempts: int = 6
    max_requests: int | None = None
    max_total_tokens: int | None = None
    form: RequestForm = field(default_factory=RequestForm)
    send_stop: bool = True

    @classmethod
    def parse(cls, model: str, extra: Mapping[str, str]) -> ServerSettings:
        """From `--gen KEY=VALUE`; `model` is its name at the server.

        Raises:
            UsageError: an unknown key, or a value out of range.
        """
        known: dict[str, Any] = {
            "jpeg_quality": lambda name, text: number(name, text, int, 1, 100),
            "timeout": lambda name, text: number(name, text, float, 0.001, 86400.0),
            "attempts": lambda name, text: number(name, text, int, 1, 1000),
            "max_requests": lambda name, text: number(name, text, int, 1, 10**15),
            "max_total_tokens": lambda name, text: number(name, text, int, 1, 10**15),
            "send_stop": lambda name, text: choice(name, text, ("yes", "no")) == "yes",
        }
        given = {"token_field" if key == "token_limit" else key: text for key, text in extra.items()}
        own = {key: text for key, text in given.items() if key not in KEYS}
        for key in own:
            if key not in known:
                names = (*known, *KEYS, *GENERATION_FIELDS)
                raise unknown_setting("--gen", key, names, "a served model")
        values = {key: known[key](f"--gen {key}", text) for key, text in own.items()}
        return cls(form=RequestForm.parse(model, given), **values)
