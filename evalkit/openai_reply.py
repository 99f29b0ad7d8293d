"""What a server's reply is: an answer, or one of the ways in which there is none, told apart."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: The longest pause that a server may ask for, in seconds.
LONGEST_WISH = 600.0

#: Kinds of failures that are the answer of a server that works.
WITHHELD = ("refused", "truncated")

#: Statuses by which nothing will ever be answered: address, model name or key is wrong.
_HOPELESS = (301, 302, 303, 307, 308, 401, 403, 404, 405)
_PASSING = (408, 409, 425, 429)
#: Words for an answer that was cut by its token limit, and for one that the server's filter withheld.
_CUT, _WITHHELD = ("length", "max_tokens"), ("content_filter", "refusal", "safety")
#: How servers name a content filter in an error: OpenAI, Azure, OpenRouter, Model Studio.
_FILTERED = re.compile(
    r"content[_ ]?(filter|policy)|content management policy|ResponsibleAIPolicy|data_inspection_failed|"
    r"moderation_blocked|requires moderation|safety system",
    re.IGNORECASE,
)


class TryAgainError(Exception):
    """What may go better at the next attempt.

    Attributes:
        after: seconds that the server asks to wait. worked: whether the server may have worked on it, and
            charged for it. reached: whether there was a server at all.
    """

    def __init__(self, message: str, after: float = 0.0, worked: bool = False, reached: bool = True) -> None:
        super().__init__(message)
        self.after = after
        self.worked = worked
        self.reached = reached


class RefusedError(Exception):
    """The server will not answer this request, though it may answer others; asking again is of no use.

    Attributes:
        kind: `refused`, or `truncated` where a judge used up its token limit before a reply began.
        understood: whether the request itself was in order: a filter or the model withheld the answer.
        tokens: what it cost, where the server worked on it and says so.
    """

    def __init__(
        self,
        message: str,
        kind: Literal["refused", "truncated"] = "refused",
        understood: bool = False,
        tokens: int = 0,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.understood = understood
        self.tokens = tokens


class HopelessError(Exception):
    """The server will answer no request: address, model name or key is wrong."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A server's answer.

    Attributes:
        finish: its own word for why the answer ended. prompt_tokens: of text and images together.
            None if the server does not report it. reasoning: what it tells apart from the text.
        cut: whether reasoning used up the token limit before an answer began; `text` is then empty.
    """

    text: str
    finish: str | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    reasoning: str = ""
    cut: bool = False


def read_completion(content: Any, cut: Callable[[str], str], shown: str) -> Completion:
    """The answer in a JSON document.

    Args:
        cut: takes secrets out of a text. shown: the start of the document, for errors.

    Raises:
        RefusedError: the answer was withheld. TryAgainError: it is no chat completion.
    """
    try:
        choice = content["choices"][0]
        message = choice["message"]
        said, thought = _texts(message["content"])
    except (LookupError, TypeError, ValueError):
        if _FILTERED.search(shown):
            raise RefusedError(f"a content filter refused it: {shown}", understood=True) from None
        raise TryAgainError(f"no chat completion: {shown}", worked=True) from None
    usage = content.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    prompt, new = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    finish = choice.get("finish_reason")
    reasoning = thought or _reasoning(message)
    if not reasoning and (unseen := _reasoned(usage)):
        reasoning = f"({unseen} tokens that the server does not show)"
    why = _withheld(message, finish, said)
    if why is not None:
        raise RefusedError(cut(why), understood=True, tokens=(prompt or 0) + (new or 0))
    if said is None and not reasoning:
        raise TryAgainError("a completion without text", worked=True)
    text, ended = cut(said or ""), finish if isinstance(finish, str) else None
    only_thought = finish in _CUT and bool(reasoning) and not text.strip()
    return Completion("" if only_thought else text, ended, prompt, new, cut(reasoning), only_thought)


def _withheld(message: Mapping[str, Any], finish: object, said: str | None) -> str | None:
    """The cause where the server did its work and there is no answer."""
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        return f"the model refused: {' '.join(refusal.split())[:160]}"
    if finish in _WITHHELD:
        return "the server's content filter withheld the answer"
    if finish in ("tool_calls", "function_call") or (said is None and message.get("tool_calls")):
        return "the model called a tool in place of an answer"
    return None


def _texts(content: object) -> tuple[str | None, str]:
    """The text of a message, which may come in parts, and what was thought; None where there is no text.

    Raises:
        ValueError: it is something else.
    """
    if content is None or isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        raise ValueError
    said, thought = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "output_text") and isinstance(part["text"], str):
            said.append(part["text"])
        elif kind in ("thinking", "reasoning"):
            inner = part.get(kind, part.get("text"))
            thought.append(inner if isinstance(inner, str) else _texts(inner)[0] or "")
        elif kind == "refusal":
            message = " ".join(str(part.get("refusal")).split())[:160]
            raise RefusedError(f"the model refused: {message}", understood=True)
        else:
            raise RefusedError(
                f"the answer holds a part that is no text ({kind or type(part).__name__})", understood=True
            )
    return ("".join(said) if said or not thought else None), "".join(thought)


def http_error(status: int, said: str, retry_after: str | None) -> Exception:
    """The error that a status stands for; `said` is its line."""
    if _FILTERED.search(said):
        return RefusedError(f"a content filter refused it: {said}", understood=True)
    if status in _HOPELESS:
        return HopelessError(said)
    if status in _PASSING or status >= 500:
        return TryAgainError(said, _seconds(retry_after))
    return RefusedError(said)


def _seconds(header: str | None) -> float:
    """`Retry-After`, seconds or a date, as seconds from now within bounds."""
    if header is None:
        return 0.0
    try:
        wish = float(header)
    except ValueError:
        try:
            wish = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return min(max(wish, 0.0), LONGEST_WISH) if math.isfinite(wish) else 0.0


def _reasoning(message: Mapping[str, Any]) -> str:
    """What a server with a reasoning parser tells apart from the text (vLLM, SGLang; OpenRouter)."""
    found = (message.get(name) for name in ("reasoning_content", "reasoning"))
    return next((text for text in found if isinstance(text, str)), "")


def _reasoned(usage: Mapping[str, Any]) -> int:
    """How many tokens of a reasoning that it does not show the server counts (OpenAI)."""
    details = usage.get("completion_tokens_details")
    return (_count(details.get("reasoning_tokens")) or 0) if isinstance(details, dict) else 0


def _count(value: object) -> int | None:
    """A number of tokens, where it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None
