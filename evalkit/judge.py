"""A judge model behind any OpenAI-compatible endpoint: retried, concurrent, and cached so that it resumes.

The replies are kept in an append-only file, one line each, by a hash over judge model and question. A
question that was answered is never asked again, whatever the order of the questions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from evalkit.contracts import Failure
from evalkit.data import strict_json
from evalkit.doors import reading
from evalkit.errors import JudgeError, ServerError
from evalkit.judge_settings import FLAG, JudgeSettings
from evalkit.openai_client import ChatApi, find_key, in_threads, is_azure, patiently, shortened
from evalkit.openai_reply import WITHHELD, HopelessError, RefusedError, TryAgainError
from evalkit.task_parts import JudgeQuestion

log = logging.getLogger(__name__)

#: Environment variables that may hold the endpoint's key, the first that is set.
KEY_VARIABLES = ("EVALKIT_JUDGE_KEY", "OPENAI_API_KEY")
_AZURE_KEY_VARIABLES = ("EVALKIT_JUDGE_KEY", "AZURE_OPENAI_API_KEY", "OPENAI_API_KEY")
#: So many questions failing in a row mean that the judge itself is broken.
PATIENCE = 20


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
        settings: how it is asked.
        workers: questions under way at once.
        repeat: which of several times this is that the same questions are asked, from 0.
        backoff: seconds before the second attempt; doubles from there, up to a minute, with jitter.

    Attributes:
        sent, again: requests so far, and how many of them for a question that was asked before.

    The key comes from `EVALKIT_JUDGE_KEY` or `OPENAI_API_KEY`, of Azure also from `AZURE_OPENAI_API_KEY`, and
    is sent to `url` alone (`ChatApi`).
    """

    def __init__(
        self,
        url: str,
        model: str,
        cache: Path,
        settings: JudgeSettings | None = None,
        *,
        workers: int = 8,
        backoff: float = 1.0,
        repeat: int = 0,
    ) -> None:
        """Raises JudgeError for an address that is not http or https, or a key that no header can hold."""
        self._settings = settings or JudgeSettings.parse(model, ())
        try:
            names = _AZURE_KEY_VARIABLES if is_azure(url) else KEY_VARIABLES
            self._api = ChatApi(
                url, find_key(names), self._settings.timeout, self._settings.form.extra_headers
            )
        except ServerError as error:
            raise JudgeError(f"--judge: {error}") from None
        self.address = self._api.address
        self.model = model
        self.cache = cache
        self._workers = workers
        self._backoff = backoff
        self._repeat = repeat
        self._lock = threading.Lock()
        self.sent = self.again = 0

    def replies(self, questions: Mapping[str, JudgeQuestion]) -> Iterator[tuple[str, str | Failure]]:
        """Each question's id with the judge's reply or why there is none, as they come.

        Equal questions are asked once. A reply is on disk before it is handed on. Failures are not kept: the
        next call asks again.

        Raises:
            JudgeError: the judge cannot be reached, refuses, or fails `PATIENCE` questions in a row; the
                replies until then are kept.
        """
        known = _read_replies(self.cache)
        waiting: dict[str, list[str]] = {}
        for sample_id, question in questions.items():
            key = _reply_key(self.model, question, self._settings.decides, self._repeat)
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
                failed_in_a_row = 0 if outcome.kind in WITHHELD else failed_in_a_row + 1
                self._check_patience(failed_in_a_row, outcome)
            else:
                failed_in_a_row = 0
                self._keep(key, outcome)
            yield from ((sample_id, outcome) for sample_id in waiting[key])

    def _outcomes(self, questions: Mapping[str, JudgeQuestion]) -> Iterator[tuple[str, str | Failure]]:
        stop = threading.Event()
        try:
            asked = in_threads(
                lambda item: self._reply(item[1], stop), questions.items(), self._workers, "judge"
            )
            yield from ((key, outcome) for (key, _), outcome in asked)
        finally:
            stop.set()

    def _check_patience(self, failed: int, last: Failure) -> None:
        if failed >= PATIENCE:
            raise JudgeError(
                f"judge {self.address}: {failed} questions in a row failed, last: {last.message}; fix the "
                f"server, then run the same command again (the replies so far are kept in {self.cache})"
            )

    # Asking ---------------------------------------------------------------------------------------------

    def _reply(self, question: JudgeQuestion, stop: threading.Event) -> str | Failure:
        asked_before = False

        def attempt() -> str:
            nonlocal asked_before
            with self._lock:
                self.sent += 1
                self.again += asked_before
            asked_before = True
            return self._attempt(question)

        try:
            return patiently(attempt, self._settings.attempts, self._backoff, stop)
        except TryAgainError as error:
            return Failure("judge", str(error))
        except RefusedError as error:
            fix = self._settings.form.fix(str(error), FLAG)
            return Failure(error.kind if error.understood else "judge", f"{error}{fix}")
        except HopelessError as error:
            raise JudgeError(
                f"judge {self.address}: {error}; check --judge, --judge-model and the key in "
                f"{' or '.join(KEY_VARIABLES)}"
            ) from None

    def _attempt(self, question: JudgeQuestion) -> str:
        """One attempt; raises `TryAgainError` for what may pass and for a reply of no use."""
        answer = self._api.complete(self._settings.body(self.model, question))
        if answer.cut:
            cause = "the token limit was used up by reasoning; max_new_tokens=N gives it more room"
            raise RefusedError(cause, "truncated", understood=True)
        text = answer.text
        if question.numeric and number(text) is None:
            raise TryAgainError(f"not a number: {shortened(text)}")
        return text

    # The cache ------------------------------------------------------------------------------------------

    def _keep(self, key: str, reply: str) -> None:
        line = json.dumps({"key": key, "model": self.model, "reply": reply}).encode() + b"\n"
        try:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with self.cache.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    # A torn last line, left by a kill, stays on its own line.
                    line = line if file.read(1) == b"\n" else b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JudgeError(
                f"{self.cache}: a reply cannot be written ({error.strerror}); make room and run the same "
                "command again"
            ) from None


class StoredReplies:
    """The replies that a judge gave before; nobody is asked.

    A run folder may be somebody else's: the address in its manifest is contacted only where the user names
    it.

    Args:
        model: the judge's name. cache: its file of replies. settings, repeat: as of `Judge`.
    """

    def __init__(
        self, model: str, cache: Path, settings: JudgeSettings | None = None, repeat: int = 0
    ) -> None:
        self.model = model
        self.cache = cache
        self._decides = settings.decides if settings else ""
        self._repeat = repeat

    def replies(self, questions: Mapping[str, JudgeQuestion]) -> Iterator[tuple[str, str | Failure]]:
        """Each question's id with the stored reply, or a failure where there is none."""
        known = _read_replies(self.cache)
        absent = Failure("judge", "no stored reply; --judge URL --judge-model NAME asks a judge")
        for sample_id, question in questions.items():
            key = _reply_key(self.model, question, self._decides, self._repeat)
            yield sample_id, known.get(key, absent)


def _reply_key(model: str, question: JudgeQuestion, decides: str, repeat: int) -> str:
    body = json.dumps(
        [
            model,
            dataclasses.asdict(question),
            *([decides] if decides else []),
            *([repeat] if repeat else []),
        ],
        sort_keys=True,
    )
    return hashlib.sha256(body.encode()).hexdigest()[:32]


def _read_replies(cache: Path) -> dict[str, str]:
    """Replies by key; a torn or foreign line is not a reply.

    Raises:
        JudgeError: unreadable, a line that can be read in two ways, or two replies to one question.
    """
    known: dict[str, str] = {}
    if not cache.exists():
        return known
    fix = "remove the line to ask the judge again"
    with reading(cache, JudgeError, fix):
        lines = cache.read_bytes().split(b"\n")
    for place, line in enumerate(lines, 1):
        where = f"{cache}: line {place}"
        try:
            entry = strict_json.loads(line)
        except strict_json.AmbiguousJson as error:
            raise JudgeError(f"{where}: {error}: {fix}") from None
        except (ValueError, RecursionError):
            continue
        if not (isinstance(entry, dict) and isinstance(entry.get("reply"), str)):
            continue
        key, reply = str(entry.get("key")), entry["reply"]
        if known.setdefault(key, reply) != reply:
            raise JudgeError(f"{where}: another reply to a question of an earlier line: {fix}")
    return known
