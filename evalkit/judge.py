"""A judge model behind any OpenAI-compatible endpoint: retried, concurrent, and cached so that it resumes.

The replies are kept in an append-only file, one line each, by a hash over judge model and question: what was
answered once is never asked again, in whatever order the questions come.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import logging
import math
import os
import queue
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tenacity

from evalkit.contracts import Failure
from evalkit.errors import JudgeError
from evalkit.task import JudgeQuestion

log = logging.getLogger(__name__)

#: Keys of `Record.data`: the judge's reply; why there is none.
REPLY, FAILURE = "judge", "judge_failure"
#: Environment variables that may hold the endpoint's key, the first that is set.
KEY_VARIABLES = ("EVALKIT_JUDGE_KEY", "OPENAI_API_KEY")
#: So many questions failing in a row mean that the judge itself is broken.
PATIENCE = 20

_LONGEST_WAIT = 60.0
_LONGEST_REPLY = 1 << 22
#: Statuses by which no question will ever be answered: address, model name or key is wrong.
_HOPELESS = (301, 302, 303, 307, 308, 401, 403, 404, 405)
_PASSING = (408, 409, 425, 429)


def number(reply: object) -> float | None:
    """The one finite number that a reply consists of, as Python's `float()` reads it, or None."""
    try:
        value = float(reply) if isinstance(reply, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class Judge:
    """Asks a model to rate answers over the chat completions protocol.

    Args:
        url: the endpoint's base (`https://api.openai.com/v1`), or the full address of its chat completions.
        model: the model's name there.
        cache: file of replies; created with the first reply.
        workers: questions under way at once.
        attempts: how often a question is asked before it counts as failed.
        timeout: seconds for one attempt.
        backoff: seconds before the second attempt; doubles from there, up to a minute, with jitter.

    The key comes from `EVALKIT_JUDGE_KEY` or `OPENAI_API_KEY` and is sent to `url` alone: redirections are
    not followed, and it is cut out of whatever is written or said.
    """

    def __init__(
        self,
        url: str,
        model: str,
        cache: Path,
        *,
        workers: int = 8,
        attempts: int = 6,
        timeout: float = 60.0,
        backoff: float = 1.0,
    ) -> None:
        """Raises JudgeError for an address that is not http or https, or a key that no header can hold."""
        if not _is_http(url):
            raise JudgeError(f"--judge {url}: not an http address; give one like http://localhost:8000/v1")
        base = url.rstrip("/")
        self.address = base if base.endswith("/chat/completions") else f"{base}/chat/completions"
        self.model = model
        self.cache = cache
        self._workers = workers
        self._attempts = attempts
        self._timeout = timeout
        self._backoff = backoff
        self._key = _key()
        self._opener = urllib.request.build_opener(_NoRedirects)

    def replies(self, questions: Mapping[str, JudgeQuestion]) -> Iterator[tuple[str, str | Failure]]:
        """Each question's id with the judge's reply or why there is none, as they come.

        Equal questions are asked once. A reply is on disk before it is handed on. Failures are not kept: the
        next call asks again.

        Raises:
            JudgeError: the judge cannot be reached, refuses, or fails `PATIENCE` questions in a row; the
                replies until then are kept.
        """
        known = self._read_cache()
        waiting: dict[str, list[str]] = {}
        for sample_id, question in questions.items():
            key = self._cache_key(question)
            if key in known:
                yield sample_id, known[key]
            else:
                waiting.setdefault(key, []).append(sample_id)
        if not waiting:
            return
        log.info("judge %s: %d of %d questions to ask", self.model, len(waiting), len(questions))
        failed_in_a_row = 0
        for key, outcome in self._outcomes({key: questions[ids[0]] for key, ids in waiting.items()}):
            if isinstance(outcome, Failure):
                failed_in_a_row += 1
                self._check_patience(failed_in_a_row, outcome)
            else:
                failed_in_a_row = 0
                self._keep(key, outcome)
            yield from ((sample_id, outcome) for sample_id in waiting[key])

    def _outcomes(self, questions: Mapping[str, JudgeQuestion]) -> Iterator[tuple[str, str | Failure]]:
        """Ask in `workers` daemon threads: an interrupted process need not wait for a slow judge."""
        pending: queue.SimpleQueue[tuple[str, JudgeQuestion]] = queue.SimpleQueue()
        outcomes: queue.SimpleQueue[tuple[str, str | Failure | Exception]] = queue.SimpleQueue()
        stop = threading.Event()
        for item in questions.items():
            pending.put(item)

        def work() -> None:
            while not stop.is_set():
                try:
                    key, question = pending.get_nowait()
                except queue.Empty:
                    return
                try:
                    outcomes.put((key, self._reply(question, stop)))
                except Exception as error:
                    outcomes.put((key, error))

        for _ in range(min(self._workers, len(questions))):
            threading.Thread(target=work, name="judge", daemon=True).start()
        try:
            for _ in questions:
                key, outcome = outcomes.get()
                if isinstance(outcome, Exception):
                    raise outcome
                yield key, outcome
        finally:
            stop.set()

    def _check_patience(self, failed: int, last: Failure) -> None:
        if failed >= PATIENCE:
            raise JudgeError(
                f"judge {self.address}: {failed} questions in a row failed, last: {last.message}; mend it, "
                f"then run the same command again: the replies so far are kept in {self.cache}"
            )

    # Asking ---------------------------------------------------------------------------------------------

    def _reply(self, question: JudgeQuestion, stop: threading.Event) -> str | Failure:
        patiently = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TryAgainError),
            stop=tenacity.stop_after_attempt(self._attempts) | tenacity.stop_when_event_set(stop),
            wait=self._wait,
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )
        try:
            return self._scrub(patiently(self._attempt, question))
        except (_TryAgainError, _RefusedError) as error:
            return Failure("judge", self._scrub(str(error)))

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds before the next attempt: what the server asks for, or longer each time, never for ever."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.after if isinstance(error, _TryAgainError) else 0.0
        grown = self._backoff * 2.0 ** (state.attempt_number - 1) * random.uniform(0.5, 1.0)
        return min(max(asked, grown), _LONGEST_WAIT)

    def _attempt(self, question: JudgeQuestion) -> str:
        """One attempt; raises `_TryAgainError` for what may pass and for a reply of no use."""
        try:
            with self._opener.open(self._request(question), timeout=self._timeout) as response:
                body = self._read(response)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise _TryAgainError(f"{type(reason).__name__}: {reason}") from None
        try:
            text = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise _TryAgainError(f"no chat completion: {_shortened(body)}") from None
        if not isinstance(text, str):
            raise _TryAgainError("a completion without text")
        if question.numeric and number(text) is None:
            raise _TryAgainError(f"not a number: {_shortened(text)}")
        return text

    def _request(self, question: JudgeQuestion) -> urllib.request.Request:
        messages = [{"role": "user", "content": question.user}]
        if question.system:
            messages.insert(0, {"role": "system", "content": question.system})
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": question.temperature,
            "max_tokens": question.max_tokens,
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "evalkit"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return urllib.request.Request(self.address, json.dumps(body).encode(), headers, method="POST")

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """The whole body; the time-out of the socket alone would let a trickle go on for ever."""
        end = time.monotonic() + self._timeout
        body = b""
        while block := response.read1(1 << 16):
            body += block
            if time.monotonic() > end:
                raise TimeoutError("the reply came too slowly")
            if len(body) > _LONGEST_REPLY:
                raise TimeoutError(f"a reply of more than {_LONGEST_REPLY} bytes")
        return body

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        with error:
            try:
                detail = _shortened(error.read(2048))
            except (OSError, http.client.HTTPException):
                detail = ""
        said = f"HTTP {error.code} {error.reason}: {detail}".rstrip(": ")
        if error.code in _HOPELESS:
            return JudgeError(
                self._scrub(
                    f"judge {self.address}: {said}; check --judge, --judge-model and the key in "
                    f"{' or '.join(KEY_VARIABLES)}"
                )
            )
        if error.code in _PASSING or error.code >= 500:
            return _TryAgainError(said, _seconds(error.headers.get("Retry-After")))
        return _RefusedError(said)

    def _scrub(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    # The cache ------------------------------------------------------------------------------------------

    def _cache_key(self, question: JudgeQuestion) -> str:
        body = json.dumps([self.model, dataclasses.asdict(question)], sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()[:32]

    def _read_cache(self) -> dict[str, str]:
        """Replies by key; a torn or foreign line is no reply."""
        known: dict[str, str] = {}
        if not self.cache.exists():
            return known
        for line in self.cache.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("reply"), str):
                known[str(entry.get("key"))] = entry["reply"]
        return known

    def _keep(self, key: str, reply: str) -> None:
        line = json.dumps({"key": key, "model": self.model, "reply": reply}).encode() + b"\n"
        try:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with self.cache.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    # What a kill left of the last line stays by itself.
                    line = line if file.read(1) == b"\n" else b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JudgeError(
                f"{self.cache}: a reply cannot be written ({error.strerror}); make room and run the same "
                "command again"
            ) from None


class _TryAgainError(Exception):
    """What may go better at the next attempt; `after` is how long the server asks to wait, in seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class _RefusedError(Exception):
    """The server will not answer this question, though it may answer others."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirections, which would carry the key to another server."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None makes urllib raise the redirection as an HTTPError."""


def _is_http(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _key() -> str | None:
    for name in KEY_VARIABLES:
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise JudgeError(f"{name}: holds characters that no key has; set it anew")
            return key
    return None


def _seconds(header: str | None) -> float:
    """`Retry-After` in seconds; its form with a date is not read."""
    return max(0.0, number(header) or 0.0)


def _shortened(said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    line = " ".join(text[:2048].split())
    return line if len(line) <= 160 else f"{line[:157]}..."
