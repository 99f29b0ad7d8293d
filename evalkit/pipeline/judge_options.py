"""Which judge is asked, and how: `--judge`, `--judge-model`, `--judge-gen`, `--judge-repeats`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from evalkit.contracts import Json
from evalkit.errors import ServerError, UsageError
from evalkit.judge_settings import JudgeSettings
from evalkit.key_values import as_items
from evalkit.request_form import without_secrets


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """An OpenAI-compatible endpoint that judges answers; its key comes from the environment.

    Attributes:
        gen: how it is asked, KEY=VALUE. repeats: how often each answer is judged.
    """

    url: str
    model: str
    gen: tuple[str, ...] = ()
    repeats: int = 1

    @property
    def settings(self) -> JudgeSettings:
        """How it is asked. Raises UsageError."""
        return JudgeSettings.parse(self.model, self.gen)

    @property
    def name(self) -> str:
        """For signatures: the model, and the settings that may change its replies."""
        decides = self.settings.decides
        return f"{self.model}[{decides}]" if decides else self.model

    def to_json(self) -> dict[str, Json]:
        """For the manifest; a password in the address and the values of headers are left out."""
        return {
            "url": without_password(self.url),
            "model": self.model,
            "gen": list(without_secrets(self.gen)),
            "request": self.settings.to_json(),
            "repeats": self.repeats,
        }


def judge_options(
    url: str | None,
    model: str | None,
    gen: Mapping[str, Json] | Sequence[str] = (),
    repeats: int | None = None,
) -> JudgeOptions | None:
    """Address and model, or none.

    Raises:
        UsageError: one without the other, or settings that cannot be.
    """
    if repeats is not None and repeats < 1:
        raise UsageError(f"--judge-repeats {repeats}: give a positive number")
    if not url and not model:
        if unused := "--judge-gen" if gen else "--judge-repeats" if repeats else None:
            raise UsageError(f"{unused} has no meaning without --judge URL and --judge-model NAME")
        return None
    if not url or not model:
        raise UsageError("--judge URL and --judge-model NAME belong together")
    from evalkit.openai_client import check_address

    options = JudgeOptions(url, model, as_items(gen), repeats or 1)
    _ = options.settings
    try:
        check_address(url)
    except ServerError as error:
        raise UsageError(f"--judge: {error}") from None
    return options


def without_password(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
