"""Hostile servers: a model's answer and a judge's reply with damaged bodies, headers and pace.

A body in which the answer stands plainly must give that answer or a message; damaged framing must give the
answer or a message. Nothing takes longer than the time-out.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from campaign.mutations import Members, Token, difference, mutate_bytes, mutate_json, parse, write
from campaign.servers import RawServer
from campaign.trial import UNKNOWN, Trial, Verdict, ask, judge, told
from evalkit.contracts import Failure, Generation, Message, ModelOptions, Request
from evalkit.errors import JudgeError, ServerError
from evalkit.judge import Judge
from evalkit.judge_settings import JudgeSettings
from evalkit.task import JudgeQuestion
from evalkit_models.sending import Sender
from evalkit_models.served import FAMILY, ServedModel

#: Seconds that an attempt may take, and after which it is said to outlive them.
TIMEOUT, LONGEST = 0.4, 3.0
STATUSES = (
    200,
    200,
    201,
    204,
    206,
    301,
    307,
    400,
    401,
    403,
    404,
    408,
    413,
    418,
    429,
    500,
    502,
    503,
    599,
    999,
)
HEADERS = (
    b"Content-Length: 3", b"Content-Length: -1", b"Content-Length: x",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip",
    b"Content-Encoding: gzip", b"Content-Encoding: br",
    b"Content-Type: text/html; charset=utf-16", b"Location: http://127.0.0.1:9/", b"Retry-After: 1e999",
    b"Retry-After: -5", b"Retry-After: nan",
    b"Retry-After: Wed, 21 Oct 9999 07:28:00 GMT", b"Set-Cookie: a=\xff",
    b": empty", b"No colon", b" folded", b"X: " + b"y" * 70_000, b"\xc3\xa9: \x00", b"Connection: keep-alive",
    b"Content-Length: 7\r\nContent-Length: 900", *(b"X%d: 1\r\n" % n * 150 for n in range(2)),
)  # fmt: skip


class _Replies(Trial):
    """One kind of client; the server's reply is mutated."""

    share = 2.0
    seconds = 15.0
    answer = "Yes"
    more: ClassVar[dict[str, Any]] = {}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        message = {"role": "assistant", "content": self.answer, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
        self.good = json.dumps(
            {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage, **self.more}
        ).encode()
        logging.getLogger("evalkit").setLevel(logging.CRITICAL)  # refusals are told by the value here
        self.server = RawServer()
        self.server.reply = framed(self.good)
        self.begin()
        self.base = self.read()
        assert self.base == self.answer

    def begin(self) -> None:
        """The client."""
        raise NotImplementedError

    def read(self) -> Any:
        """What the client takes the answer to be."""
        raise NotImplementedError

    def once(self, rng: random.Random) -> Verdict:
        """One request."""
        kind = rng.random()
        self.server.pause = 0.0
        if kind < 0.75:
            body = self._body(rng)
            self.server.reply = framed(body)
        else:
            body = self.good
            self.server.reply = self._framing(rng)
            if kind > 0.995:
                self.server.pause = rng.choice((0.03, 0.1))
        began = time.monotonic()
        said = ask(self.read)
        if time.monotonic() - began > LONGEST:
            return Verdict(
                "hang", f"a reply took {time.monotonic() - began:.1f} s at a time-out of {TIMEOUT}"
            )
        expected = _answer(body)
        verdict = judge(said, self.base, touched=lambda: expected != self.base, expected=expected)
        return told(verdict, lambda: difference(framed(self.good), self.server.reply))

    def _body(self, rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return mutate_bytes(self.good, rng)
        return write(mutate_json(parse(self.good), rng)[0]).encode("utf-8", "surrogatepass")

    def _framing(self, rng: random.Random) -> bytes:
        """The good body under another status line, other headers, or as damaged bytes."""
        kind = rng.randrange(3)
        if kind == 0:
            return framed(self.good, rng.choice(STATUSES), (rng.choice(HEADERS),) * rng.randrange(2))
        if kind == 1:
            return framed(self.good, 200, [rng.choice(HEADERS) for _ in range(rng.randint(1, 3))])
        head, _, body = framed(self.good).partition(b"\r\n\r\n")
        return mutate_bytes(head + b"\r\n\r\n", rng) + body

    def close(self) -> None:
        self.server.close()


def framed(body: bytes, status: int = 200, headers: Any = ()) -> bytes:
    """A whole reply."""
    lines = [b"HTTP/1.1 %d OK" % status, b"Content-Type: application/json", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def _answer(body: bytes) -> Any:
    """The answer that stands in a body, `UNKNOWN` where it does not stand there plainly."""
    try:
        found = parse(body.decode())
        choice = _member(_member(found, "choices")[0], "message")
        content = _member(choice, "content")
    except Exception:
        return UNKNOWN
    return content if isinstance(content, str) and not isinstance(content, Token) else UNKNOWN


def _member(value: Any, name: str) -> Any:
    """The one member of that name; one that occurs twice has no value."""
    found = [each for key, each in value if key == name] if isinstance(value, Members) else []
    if len(found) != 1:
        raise LookupError(name)
    return found[0]


class ServedReplies(_Replies):
    """A served model; a failure of the sample is a message."""

    name = "HTTP: a served model"

    def begin(self) -> None:
        extra = {"timeout": str(TIMEOUT), "attempts": "1"}
        model = FAMILY.load("openai:m", ModelOptions(base_url=self.server.url, extra=extra, batch_size=1))
        assert isinstance(model, ServedModel)
        self.model = model
        self.asked = [Request("s", (Message("user", "Is it?"),), (), Generation(max_new_tokens=5))]

    def read(self) -> Any:
        model = self.model
        model._sender = Sender(model._api, model._settings, model._stop)  # no pause that was asked for before
        model._failed_in_a_row = 0
        ((_, response),) = model.generate(self.asked)
        if response.error is not None:
            raise ServerError(response.error.message)
        return response.text


class JudgeReplies(_Replies):
    """A judge that must give a number; its replies are kept."""

    name = "HTTP: a judge"
    answer = "50"

    def begin(self) -> None:
        settings = JudgeSettings.parse("j", (f"timeout={TIMEOUT}", "attempts=1"))
        self.judge = Judge(self.server.url, "j", self.folder / "kept" / "judge.jsonl", settings, workers=1)

    def read(self) -> Any:
        shutil.rmtree(self.folder / "kept", ignore_errors=True)
        question = JudgeQuestion("", "How good?", numeric=True)
        ((_, reply),) = self.judge.replies({"s": question})
        if isinstance(reply, Failure):
            raise JudgeError(reply.message)
        ((_, again),) = self.judge.replies({"s": question})
        if again != reply:
            raise AssertionError(f"kept as {again!r}, came as {reply!r}")
        return reply


class StoredReplies(Trial):
    """`judge.jsonl` of a run folder: a line gives its reply, or none, never another without a word."""

    name = "judge.jsonl"
    share = 1.5

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from evalkit import judge as module

        self.questions = {f"s{n}": JudgeQuestion("", f"How good is {n}?", numeric=True) for n in range(8)}
        self.stored = module.StoredReplies("j", folder / "judge.jsonl")
        self.keys = {name: module._reply_key("j", asked, "", 0) for name, asked in self.questions.items()}
        lines = [
            {"key": key, "model": "j", "reply": str(10 * place)}
            for place, key in enumerate(self.keys.values())
        ]
        self.good = "".join(json.dumps(line) + "\n" for line in lines).encode()
        self.stored.cache.write_bytes(self.good)
        self.base = self.read()
        assert all(isinstance(reply, str) for reply in self.base.values())

    def read(self) -> Any:
        """The reply to each question; a failure, which is counted and told, as None."""
        found = self.stored.replies(self.questions)
        return {name: reply if isinstance(reply, str) else None for name, reply in found}

    def once(self, rng: random.Random) -> Verdict:
        """Read the file with one line changed."""
        lines = self.good.splitlines()
        number, kind = rng.randrange(len(lines)), rng.randrange(4)
        if kind == 0:
            lines[number] = mutate_bytes(lines[number], rng, lines[rng.randrange(len(lines))])
        elif kind == 1:
            lines.insert(
                rng.randrange(len(lines) + 1), rng.choice((lines[number], b"", b"null", lines[number][:40]))
            )
        else:
            lines[number] = write(mutate_json(parse(lines[number]), rng)[0]).encode("utf-8", "surrogatepass")
        data = b"\n".join(lines) + rng.choice((b"\n", b""))
        self.stored.cache.write_bytes(data)
        expected = self._expected(data)
        verdict = judge(ask(self.read), self.base, touched=lambda: expected != self.base, expected=expected,
                        file="judge.jsonl")  # fmt: skip
        return told(verdict, lambda: difference(self.good, data))

    def _expected(self, data: bytes) -> Any:
        """The replies by another reading; a reply that stands twice is none that is certain."""
        found: dict[Any, Any] = {}
        for line in data.split(b"\n"):
            try:
                row = parse(line.decode())
            except (ValueError, RecursionError):
                continue
            if not isinstance(row, Members):
                continue
            if len({name for name, _ in row}) < len(row):
                return "refused"
            reply = dict(row).get("reply")
            if isinstance(reply, Token) or not isinstance(reply, str):
                continue
            if found.setdefault(repr(dict(row).get("key")), reply) != reply:
                return "refused"
        return {name: found.get(repr(key)) for name, key in self.keys.items()}


TRIALS: tuple[Callable[[Path], Trial], ...] = (ServedReplies, JudgeReplies, StoredReplies)
