"""The chat completions protocol: one attempt at a request, every kind of failure told apart, and retries.

Used by the judge and by served models. The `openai` package sends the requests (openai_sdk.py). The key and a
password of the address are sent to that address alone, and are cut out of all that is returned or raised.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import random
import re
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from evalkit.data import strict_json
from evalkit.errors import ServerError
from evalkit.openai_reply import Completion, TryAgainError, http_error, read_completion
from evalkit.openai_sdk import network_error, root, sdk_client

T = TypeVar("T")
R = TypeVar("R")

#: Longest pause of our own making, in seconds.
LONGEST_PAUSE = 60.0

#: Words shorter than this (`EMPTY`, the usual stand-in for a key) are not secrets and are left in texts.
_SHORTEST_SECRET = 6
#: The one query that an address may have, and hosts of Azure.
_VERSION = re.compile(r"api-version=[\w.-]+")
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
#: Headers that authenticate.
_SECRET_HEADER = re.compile(r"key|token|auth|secret|passw|cookie|credential|signature", re.IGNORECASE)
#: Errors before anything was sent.
_NOBODY = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)


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
            `user:password@`, that is sent as basic authentication in place of the key. Azure's may end with
            `?api-version=DATE`.
        key: sent as a bearer token; to Azure as `api-key`.
        timeout: seconds for one attempt.
        headers: more headers, in place of ours of the same name.

    Attributes:
        base: of the address, without user and password. address: of the chat completions.

    Raises:
        ServerError: not an http address, or one with a query, which may hold a secret; it is not repeated.
    """

    def __init__(
        self, url: str, key: str | None, timeout: float = 60.0, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = _split(url)
        place, _, host = parts.netloc.rpartition("@")
        base = urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self.base = base.removesuffix("/chat/completions")
        self.address = f"{self.base}/chat/completions"
        own = {
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
            own["Authorization"] = f"Basic {token}"
        elif key and is_azure(url):
            own["api-key"] = key
        elif key:
            own["Authorization"] = f"Bearer {key}"
        headers = headers or {}
        replaced = {name.lower() for name in headers}
        if "authorization" in replaced:
            replaced.add("api-key")
        own = {name: value for name, value in own.items() if name.lower() not in replaced}
        words += [word for item in headers.items() for word in _secret_words(*item)]
        self.secrets = Secrets(words)
        self._client = sdk_client(
            self.base, timeout, {**own, **headers}, dict(urllib.parse.parse_qsl(parts.query))
        )

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
        from openai import APIStatusError

        try:
            if body is None:
                reply = self._client.get(path, cast_to=Response)
            else:
                reply = self._client.post(path, content=json.dumps(body).encode(), cast_to=Response)
            content: bytes = reply.content
            return content
        except APIStatusError as error:
            raise self._refusal(error.response) from None
        except Exception as error:  # the libraries below raise what damaged headers make them
            reason = root(error)
            said = self.secrets.cut(network_error(reason, self.address))
            reached = not isinstance(reason, _NOBODY)
            raise TryAgainError(said, worked=reached, reached=reached) from None

    def _refusal(self, response: Any) -> Exception:
        detail = self._shortened(response.content)
        said = f"HTTP {response.status_code} {response.reason_phrase}: {detail}".rstrip(": ")
        return http_error(response.status_code, self.secrets.cut(said), response.headers.get("Retry-After"))

    def _json(self, body: bytes) -> Any:
        try:
            return strict_json.loads(body)
        except strict_json.AmbiguousJson as error:
            said = self.secrets.cut(str(error))
            raise TryAgainError(f"ambiguous JSON ({said}): {self._shortened(body)}", worked=True) from None
        except (ValueError, RecursionError):
            raise TryAgainError(f"not JSON: {self._shortened(body)}", worked=True) from None

    def _completion(self, body: bytes) -> Completion:
        return read_completion(self._json(body), self.secrets.cut, self._shortened(body))

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
    if parts.fragment or (parts.query and not _VERSION.fullmatch(parts.query)):
        raise ServerError("an address with a query; give the base, such as http://localhost:8000/v1")
    return parts


def check_address(url: str) -> None:
    """Raises ServerError where `ChatApi` would."""
    _split(url)


def is_azure(url: str) -> bool:
    """Whether the address is one of Azure, which takes keys by a header of its own."""
    parts = _split(url)
    return bool(parts.query) or str(parts.hostname).endswith(_AZURE_HOSTS)


def _secret_words(name: str, value: str) -> list[str]:
    """What must not be written of a header: its value, unless that is a plain word of no secret header."""
    if value.isalpha() and not _SECRET_HEADER.search(name):
        return []
    return [value, *(word for word in value.split() if word.lower() not in ("bearer", "basic"))]
