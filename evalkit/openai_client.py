"""The chat completions protocol: one attempt at a request, every kind of failure told apart, and retries.

Used by the judge and by served models. The `openai` package sends the requests (openai_sdk.py). The key and a
password of the address are sent to that address alone, and are cut out of all that is returned or raised.
"""

from __future__ import annotations

import base64
import email.utils
import json
import math
import os
import queue
import random
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from evalkit.errors import ServerError
from evalkit.openai_sdk import root, sdk_client

T = TypeVar("T")
R = TypeVar("R")

#: Longest pause of our own making, and the longest that a server may ask for, in seconds.
LONGEST_PAUSE, LONGEST_WISH = 60.0, 600.0

#: Words shorter than this (`EMPTY`, the usual stand-in for a key) are not secrets and are left in texts.
_SHORTEST_SECRET = 6
#: Statuses by which nothing will ever be answered: address, model name or key is wrong.
_HOPELESS = (301, 302, 303, 307, 308, 401, 403, 404, 405)
_PASSING = (408, 409, 425, 429)
#: Words for an answer that was cut by its token limit.
_CUT = ("length", "max_tokens")
#: Errors before anything was sent.
_NOBODY = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)


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
    """The server will not answer this request, though it may answer others."""


class HopelessError(Exception):
    """The server will answer no request: address, model name or key is wrong."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A server's answer.

    Attributes:
        finish: its own word for why the answer ended. prompt_tokens: of text and images together.
            None if the server does not report it. reasoning: what it tells apart from the text.
    """

    text: str
    finish: str | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    reasoning: str = ""


class Secrets:
    """Cuts secrets out of texts, in every spelling in which a server may send them back."""

    def __init__(self, words: Iterable[str]) -> None:
        spellings: set[str] = set()
        for word in words:
            spellings |= {word, urllib.parse.quote(word, safe=""), urllib.parse.unquote(word)}
            spellings.add(json.dumps(word)[1:-1])
        self._spellings = sorted((s for s in spellings if len(s) >= _SHORTEST_SECRET), key=len, reverse=True)

    def cut(self, text: str) -> str:
        """The text with `***` in place of each secret."""
        for word in self._spellings:
            text = text.replace(word, "***")
        return text

    @property
    def longest(self) -> int:
        """Characters of the longest spelling."""
        return max(map(len, self._spellings), default=0)


class ChatApi:
    """One OpenAI-compatible server.

    Args:
        url: its base (`https://api.openai.com/v1`), or the full address of its chat completions. With
            `user:password@`, that is sent as basic authentication in place of the key.
        key: sent as a bearer token.
        timeout: seconds for one attempt.

    Attributes:
        address: of the chat completions, without user and password.

    Raises:
        ServerError: not an http address, or one with a query, which may hold a secret; it is not repeated.
    """

    def __init__(self, url: str, key: str | None, timeout: float = 60.0) -> None:
        parts = _split(url)
        place, _, host = parts.netloc.rpartition("@")
        base = urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._base = base.removesuffix("/chat/completions")
        self.address = f"{self._base}/chat/completions"
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # a packed reply could unpack to any size
            "Connection": "close",  # a kept one may be gone at the next request, which would count as failed
            "User-Agent": "evalkit",
        }
        words = [key] if key else []
        if place:
            pair = urllib.parse.unquote(place)
            token = base64.b64encode(pair.encode()).decode()
            words += [place, pair, token, pair.partition(":")[2] or pair]
            self._headers["Authorization"] = f"Basic {token}"
        elif key:
            self._headers["Authorization"] = f"Bearer {key}"
        self.secrets = Secrets(words)
        self._client = sdk_client(self._base, timeout, self._headers)

    def complete(self, body: Mapping[str, Any]) -> Completion:
        """One attempt at a chat completion.

        Raises:
            TryAgainError: for what may pass, and for a reply of no use. RefusedError, HopelessError.
        """
        return self._completion(self._exchange("/chat/completions", body))

    def raw(self, body: Mapping[str, Any]) -> Any:
        """The JSON document in reply to a chat completion's body. Raises as `complete`."""
        return self._json(self._exchange("/chat/completions", body))

    def models(self) -> list[str]:
        """Names of the models that the server lists. Raises as `complete`."""
        content = self._json(self._exchange("/models", None))
        listed = content.get("data") if isinstance(content, dict) else None
        if not isinstance(listed, list):
            raise TryAgainError("no list of models")
        names = [item.get("id") for item in listed if isinstance(item, dict)]
        return [self.secrets.cut(name) for name in names if isinstance(name, str)]

    def _exchange(self, path: str, body: Mapping[str, Any] | None) -> bytes:
        """The body of the reply."""
        from httpx2 import Response
        from openai import APIConnectionError, APIStatusError

        try:
            if body is None:
                reply = self._client.get(path, cast_to=Response)
            else:
                reply = self._client.post(path, content=json.dumps(body).encode(), cast_to=Response)
            content: bytes = reply.content
            return content
        except APIStatusError as error:
            raise self._refusal(error.response) from None
        except (APIConnectionError, OSError) as error:
            reason = root(error)
            said = self.secrets.cut(f"{type(reason).__name__}: {reason}")
            reached = not isinstance(reason, _NOBODY)
            raise TryAgainError(said, worked=reached, reached=reached) from None

    def _refusal(self, response: Any) -> Exception:
        detail = self._shortened(response.content)
        status = response.status_code
        said = self.secrets.cut(f"HTTP {status} {response.reason_phrase}: {detail}".rstrip(": "))
        if status in _HOPELESS:
            return HopelessError(said)
        if status in _PASSING or status >= 500:
            return TryAgainError(said, _seconds(response.headers.get("Retry-After")))
        return RefusedError(said)

    def _json(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise TryAgainError(f"not JSON: {self._shortened(body)}", worked=True) from None

    def _completion(self, body: bytes) -> Completion:
        content = self._json(body)
        try:
            choice = content["choices"][0]
            message = choice["message"]
            text = message["content"]
        except (LookupError, TypeError):
            raise TryAgainError(f"no chat completion: {self._shortened(body)}", worked=True) from None
        finish = choice.get("finish_reason")
        reasoning = _reasoning(message)
        if text is None and reasoning and finish in _CUT:
            text = ""  # the budget was used up while thinking
        if not isinstance(text, str):
            raise TryAgainError("a completion without text", worked=True)
        usage = content.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return Completion(
            self.secrets.cut(text),
            finish if isinstance(finish, str) else None,
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            self.secrets.cut(reasoning),
        )

    def _shortened(self, said: bytes) -> str:
        """The start of a text on one line, secrets cut out before it is cut itself."""
        text = said[:2048].decode("utf-8", "replace")
        if len(said) >= 2048:
            text = text[: -self.secrets.longest or None]  # the cut may run through a secret
        return shortened(self.secrets.cut(text))


def shortened(text: str) -> str:
    """The start of a text on one line."""
    line = " ".join(text[:2048].split())
    return line if len(line) <= 160 else f"{line[:157]}..."


def find_key(variables: Sequence[str]) -> str | None:
    """The key in the first of the environment variables that is set.

    Raises:
        ServerError: it holds what no header can.
    """
    for name in variables:
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise ServerError(f"{name}: holds characters that no key has; set it anew")
            return key
    return None


def patiently(attempt: Callable[[], R], attempts: int, backoff: float, stop: threading.Event) -> R:
    """What `attempt` returns, tried again with growing pauses while it raises `TryAgainError`.

    Args:
        backoff: seconds before the second attempt; doubles from there, up to a minute, with jitter. A server
            that asks for a longer pause gets it.
        stop: ends the pauses and the attempts.

    Raises:
        TryAgainError: the last attempt's.
    """

    grown = backoff
    for left in reversed(range(attempts)):
        try:
            return attempt()
        except TryAgainError as error:
            if not left or stop.is_set():
                raise
            pause = max(error.after, min(grown * random.uniform(0.5, 1.0), LONGEST_PAUSE))
        stop.wait(pause)
        grown *= 2
    raise ValueError("attempts must be at least 1")


def in_threads(work: Callable[[T], R], items: Iterable[T], workers: int, name: str) -> Iterator[tuple[T, R]]:
    """Each item with what `work` makes of it, as they finish; `items` is read only as fast as workers take.

    The threads are daemons, so that an interrupted process need not wait for a slow server.

    Raises:
        Exception: what `work` raises.
    """
    tasks: queue.SimpleQueue[tuple[T] | None] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[tuple[T, R | None, Exception | None]] = queue.SimpleQueue()

    def do(item: T) -> tuple[T, R | None, Exception | None]:
        try:
            return item, work(item), None
        except Exception as error:
            return item, None, error

    def serve() -> None:
        while (task := tasks.get()) is not None:
            outcomes.put(do(task[0]))

    def finished() -> tuple[T, R]:
        item, result, error = outcomes.get()
        if error is not None:
            raise error
        return item, result  # type: ignore[return-value]

    threads = under_way = 0
    try:
        for item in items:
            if under_way == workers:
                yield finished()
                under_way -= 1
            elif threads == under_way:
                threading.Thread(target=serve, name=name, daemon=True).start()
                threads += 1
            tasks.put((item,))
            under_way += 1
            while not outcomes.empty():
                yield finished()
                under_way -= 1
        for _ in range(under_way):
            yield finished()
    finally:
        for _ in range(threads):
            tasks.put(None)


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise ServerError("not an http address; give one like http://localhost:8000/v1") from None
    if not good:
        raise ServerError("not an http address; give one like http://localhost:8000/v1")
    if parts.query or parts.fragment:
        raise ServerError("an address with a query; give the base, such as http://localhost:8000/v1")
    return parts


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


def _count(value: object) -> int | None:
    """A number of tokens, where it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None
