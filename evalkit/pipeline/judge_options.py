"""The judge that a call names."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from evalkit.contracts import Json
from evalkit.errors import UsageError


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """An OpenAI-compatible endpoint that judges answers; its key comes from the environment."""

    url: str
    model: str
    repeats: int = 1

    def to_json(self) -> dict[str, Json]:
        """For the manifest; a password in the address is left out."""
        content: dict[str, Json] = {"url": without_password(self.url), "model": self.model}
        return {**content, "repeats": self.repeats} if self.repeats > 1 else content


def judge_options(url: str | None, model: str | None, repeats: int | None = None) -> JudgeOptions | None:
    """Both flags or none.

    Args:
        repeats: how often each answer is judged.

    Raises:
        UsageError: one without the other.
    """
    if repeats is not None and repeats < 1:
        raise UsageError(f"--judge-repeats {repeats}: give a positive number")
    if not url and not model:
        if repeats is not None:
            raise UsageError("--judge-repeats: name the judge with --judge URL --judge-model NAME")
        return None
    if not url or not model:
        raise UsageError("--judge URL and --judge-model NAME belong together")
    return JudgeOptions(url, model, repeats or 1)


def without_password(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
