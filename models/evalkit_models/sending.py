"""Sends requests to a server: within the budget, again where that may help, with the price of it counted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from evalkit.contracts import Json
from evalkit.openai_client import ChatApi, patiently
from evalkit.openai_reply import Completion, HopelessError, RefusedError, TryAgainError
from evalkit_models.budget import Budget
from evalkit_models.server_settings import ServerSettings

#: Seconds before a failed request is sent again the first time.
BACKOFF = 1.0
#: Bytes of a body above which a gateway may turn it away.
_LARGE = 1 << 20


class OutOfBudgetError(Exception):
    """The request was not sent because the budget does not allow it."""


class Sender:
    """Sends for all workers of a served model; safe to use from several threads.

    Args:
        stop: ends pauses and attempts.

    Attributes:
        budget: what may be sent, and what was.
    """

    def __init__(self, api: ChatApi, settings: ServerSettings, stop: threading.Event) -> None:
        self.budget = Budget(settings.max_requests, settings.max_total_tokens)
        self._api = api
        self._settings = settings
        self._stop = stop
        self._pause = _Pause()
        self._lock = threading.Lock()
        self._asked = self._lost_tokens = 0
        self._answered = False

    def send(self, body: Mapping[str, Any], most: int) -> tuple[Completion, float]:
        """The answer and its seconds; `most` bounds its tokens.

        Raises:
            OutOfBudgetError, RefusedError, HopelessError: see there. TryAgainError: of the last attempt.
        """
        with self._lock:
            self._asked += 1
        try:
            answer = patiently(
                lambda: self._attempt(body, most), self._settings.attempts, BACKOFF, self._stop
            )
        except (RefusedError, HopelessError) as error:
            raise self._explained(error, body) from None
        self._answered = True
        return answer

    def report(self) -> dict[str, Json]:
        """Requests sent, how many of them again, and the most that attempts without an answer may cost."""
        sent = self.budget.sent
        return {
            "sent": sent,
            "again": max(sent - self._asked, 0),
            "tokens": self.budget.spent,
            "tokens_without_answer": self._lost_tokens,
        }

    def price(self) -> str:
        """What sending again has cost, for people; empty where nothing was."""
        found = self.report()
        if not found["again"]:
            return ""
        lost = found["tokens_without_answer"]
        cost = f" (up to {lost:,} tokens without an answer)" if lost else ""
        return f"{found['again']:,} requests sent again{cost}"

    def _attempt(self, body: Mapping[str, Any], most: int) -> tuple[Completion, float]:
        """One attempt within the budget, and its seconds."""
        self._pause.wait(self._stop)
        if not self.budget.take(most):
            raise OutOfBudgetError
        cost, lost = most, 0  # if the server does not report its usage
        started = time.perf_counter()
        try:
            answer = self._api.complete(body)
            if answer.prompt_tokens is not None and answer.new_tokens is not None:
                cost = answer.prompt_tokens + answer.new_tokens
        except TryAgainError as error:
            self._pause.extend(error.after)
            cost = lost = most if error.worked else 0
            raise
        except RefusedError as error:
            cost = lost = error.tokens
            raise
        except HopelessError:
            cost = 0
            raise
        finally:
            self.budget.settle(most, cost)
            with self._lock:
                self._lost_tokens += lost
        return answer, time.perf_counter() - started

    def _explained(self, error: RefusedError | HopelessError, body: Mapping[str, Any]) -> Exception:
        """The error with its fix; a large body that is turned away says nothing about other requests."""
        said = str(error)
        size = len(json.dumps(body)) if said.startswith(("HTTP 404", "HTTP 413")) else 0
        if size > _LARGE:
            quality = self._settings.jpeg_quality
            fix = f"below {quality}" if quality else "=90"
            said += (
                f"; the body has {size / 2**20:.1f} MiB, which a gateway may turn away: --gen jpeg_quality"
            )
            said += f"{' ' if quality else ''}{fix} sends less (non-standard)"
            if self._answered:
                return RefusedError(said)
        if isinstance(error, HopelessError):
            return HopelessError(said)
        more = "" if error.understood else self._settings.form.fix(said, "--gen")
        return RefusedError(said + more, error.kind, error.understood, error.tokens)


class _Pause:
    """A time before which no worker sends anything: a server's wish to wait holds for all of them."""

    def __init__(self) -> None:
        self._until = 0.0

    def extend(self, seconds: float) -> None:
        """Wait for so long from now, or longer if that was asked before."""
        self._until = max(self._until, time.monotonic() + seconds) if seconds else self._until

    def wait(self, stop: threading.Event) -> None:
        """Return when the time has come, or at once when `stop` is set."""
        while (left := self._until - time.monotonic()) > 0 and not stop.wait(left):
            pass
