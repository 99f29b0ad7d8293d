"""The judge client against a local server that fails, stalls, talks nonsense and answers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chat_server import Answer, Server, completion
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit import judge as judge_module
from evalkit.contracts import Failure
from evalkit.errors import JudgeError
from evalkit.installation import install_command
from evalkit.judge import KEY_VARIABLES, PATIENCE, Judge, StoredReplies, number
from evalkit.judge_settings import JudgeSettings
from evalkit.key_values import as_items
from evalkit.task import JudgeQuestion


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def judge_of(server: Server, folder: Path, **options: Any) -> Judge:
    """Options of `JudgeSettings` or of `Judge`."""
    items = {"timeout": 5.0} | {
        name: options.pop(name) for name in ("timeout", "attempts") if name in options
    }
    given = JudgeSettings.parse("judge-1", as_items(items))
    return Judge(server.url, "judge-1", folder / "judge.jsonl", given, backoff=0.001, **options)


def questions(count: int, numeric: bool = True) -> dict[str, JudgeQuestion]:
    return {
        f"q{i}": JudgeQuestion("be just", f"rate {i}", temperature=0.6, max_tokens=3000, numeric=numeric)
        for i in range(count)
    }


def lines(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "judge.jsonl").read_text().splitlines()]


def test_it_asks_what_the_protocol_says(server: Server, tmp_path: Path) -> None:
    assert dict(judge_of(server, tmp_path).replies(questions(1))) == {"q0": "50"}
    assert server.path == "/v1/chat/completions"
    assert server.bodies == [
        {
            "model": "judge-1",
            "messages": [
                {"role": "system", "content": "be just"},
                {"role": "user", "content": "rate 0"},
            ],
            "temperature": 0.6,
            "max_tokens": 3000,
        }
    ]
    assert "Authorization" not in server.headers[0]


def test_an_address_of_the_completions_themselves_is_taken(server: Server, tmp_path: Path) -> None:
    judge = Judge(f"{server.url}/chat/completions/", "m", tmp_path / "judge.jsonl")
    assert dict(judge.replies(questions(1))) == {"q0": "50"}
    assert server.path == "/v1/chat/completions"


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "file:///etc/passwd", "http://[::1", "http://", ""]
)
def test_an_address_that_is_not_http_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="not an http address"):
        Judge(url, "m", tmp_path / "judge.jsonl")


def test_questions_are_asked_together_and_equal_ones_once(server: Server, tmp_path: Path) -> None:
    def slow(body: dict[str, Any], attempt: int) -> Answer:
        time.sleep(0.05)
        return completion(body["messages"][1]["content"].split()[1])

    server.behave = slow
    asked = {**questions(16), **{f"again{i}": question for i, question in enumerate(questions(16).values())}}
    found = dict(judge_of(server, tmp_path, workers=8).replies(asked))
    assert found == {f"{name}{i}": str(i) for name in ("q", "again") for i in range(16)}
    assert len(server.bodies) == 16
    assert 1 < server.most_together <= 8


@pytest.mark.parametrize(
    "trouble",
    [
        (500, {"error": "internal"}),
        (503, b"busy"),
        (429, {"error": "slow down"}),
        (408, {}),
        None,
        b"nonsense that is not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        (200, b"<html>gateway</html>"),
        (200, b"\xff\xfe"),
        (200, {"choices": []}),
        (200, []),
        (200, {"choices": [{"message": {"content": None}}]}),
        completion("I would say 62."),
        completion("nan"),
        completion("inf"),
        completion(""),
    ],
    ids=repr,
)
def test_what_may_pass_is_asked_again(trouble: Answer, server: Server, tmp_path: Path) -> None:
    server.behave = lambda body, attempt: completion(" 78\n") if attempt == 3 else trouble
    assert dict(judge_of(server, tmp_path).replies(questions(2))) == {"q0": " 78\n", "q1": " 78\n"}
    assert len(server.bodies) == 6
    assert {line["reply"] for line in lines(tmp_path)} == {" 78\n"}


def test_a_server_that_stalls_is_given_up_and_asked_again(server: Server, tmp_path: Path) -> None:
    attempts: list[int] = []

    def stall(body: dict[str, Any], attempt: int) -> Answer:
        attempts.append(attempt)
        if attempt == 1:
            time.sleep(1.0)
        return completion("41")

    server.behave = stall
    assert dict(judge_of(server, tmp_path, timeout=0.2).replies(questions(3))) == dict.fromkeys(
        ("q0", "q1", "q2"), "41"
    )
    assert max(attempts) > 1


def test_a_reply_that_trickles_is_given_up(server: Server, tmp_path: Path) -> None:
    def trickle(request: Any, answer: Answer) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            request.wfile.write(b" ")
            request.wfile.flush()
            time.sleep(0.05)

    server._answer = trickle  # type: ignore[method-assign]
    (outcome,) = dict(judge_of(server, tmp_path, timeout=0.3, attempts=1).replies(questions(1))).values()
    assert isinstance(outcome, Failure) and "too slowly" in outcome.message


def test_nonsense_for_ever_is_a_failure_that_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.behave = lambda body, attempt: completion(
        "Good answer!" if body["messages"][1]["content"] == "rate 1" else "62"
    )
    found = dict(judge_of(server, tmp_path, attempts=3).replies(questions(3)))
    assert found["q0"] == found["q2"] == "62"
    assert found["q1"] == Failure("judge", "not a number: Good answer!")
    assert len(server.bodies) == 5
    assert len(lines(tmp_path)) == 2
    server.behave = lambda body, attempt: completion("7")
    assert dict(judge_of(server, tmp_path).replies(questions(3)))["q1"] == "7"
    assert len(server.bodies) == 6


def test_any_text_will_do_where_no_number_is_asked_for(server: Server, tmp_path: Path) -> None:
    server.behave = lambda body, attempt: completion("B")
    assert dict(judge_of(server, tmp_path).replies(questions(1, numeric=False))) == {"q0": "B"}


def test_a_question_the_server_refuses_fails_alone_and_at_once(server: Server, tmp_path: Path) -> None:
    server.behave = lambda body, attempt: (
        (400, {"error": "context too long"})
        if body["messages"][1]["content"] == "rate 0"
        else completion("1")
    )
    found = dict(judge_of(server, tmp_path).replies(questions(2)))
    assert found["q1"] == "1"
    assert isinstance(found["q0"], Failure) and "HTTP 400" in found["q0"].message
    assert "context too long" in found["q0"].message
    assert len(server.bodies) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_model_or_address_stops_at_once(status: int, server: Server, tmp_path: Path) -> None:
    server.behave = lambda body, attempt: (status, {"error": "no"})
    with pytest.raises(JudgeError, match=f"HTTP {status}.*--judge-model.*EVALKIT_JUDGE_KEY"):
        dict(judge_of(server, tmp_path, workers=1).replies(questions(5)))
    assert len(server.bodies) == 1


def test_a_dead_judge_stops_after_some_questions_and_keeps_what_it_has(
    server: Server, tmp_path: Path
) -> None:
    def die(body: dict[str, Any], attempt: int) -> Answer:
        return completion("9") if int(body["messages"][1]["content"].split()[1]) < 5 else (500, {})

    server.behave = die
    with pytest.raises(JudgeError, match=f"{PATIENCE} questions in a row failed, last: HTTP 500"):
        dict(judge_of(server, tmp_path, workers=1, attempts=2).replies(questions(100)))
    assert len(lines(tmp_path)) == 5
    assert len(server.bodies) <= 5 + 2 * (PATIENCE + 1)
    server.behave = lambda body, attempt: completion("8")
    found = dict(judge_of(server, tmp_path).replies(questions(30)))
    assert list(found.values()).count("9") == 5 and list(found.values()).count("8") == 25


def test_nobody_at_the_address(tmp_path: Path) -> None:
    twice = JudgeSettings.parse("m", ["attempts=2"])
    judge = Judge("http://127.0.0.1:9/v1", "m", tmp_path / "judge.jsonl", twice, backoff=0.001)
    (outcome,) = dict(judge.replies(questions(1))).values()
    assert isinstance(outcome, Failure) and "refused" in outcome.message.lower()


def test_a_server_s_wish_to_wait_is_granted(server: Server, tmp_path: Path) -> None:
    server.extra = {"Retry-After": "0.3"}
    server.behave = lambda body, attempt: completion("3") if attempt > 1 else (429, {})
    start = time.monotonic()
    assert dict(judge_of(server, tmp_path).replies(questions(1))) == {"q0": "3"}
    assert time.monotonic() - start > 0.3


def test_replies_are_known_by_model_and_question_and_asked_once(server: Server, tmp_path: Path) -> None:
    dict(judge_of(server, tmp_path).replies(questions(4)))
    dict(judge_of(server, tmp_path).replies(questions(6)))
    assert len(server.bodies) == 6
    dict(Judge(server.url, "judge-2", tmp_path / "judge.jsonl").replies(questions(1)))
    changed = JudgeQuestion("be just", "rate 0", temperature=0.0, max_tokens=3000, numeric=True)
    dict(judge_of(server, tmp_path).replies({"q0": changed}))
    assert len(server.bodies) == 8


def test_a_torn_line_is_no_reply_and_spoils_none_after_it(server: Server, tmp_path: Path) -> None:
    dict(judge_of(server, tmp_path).replies(questions(2)))
    file = tmp_path / "judge.jsonl"
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"[1]\nnull\n" + first + second[:-9])
    assert dict(judge_of(server, tmp_path).replies(questions(3))) == dict.fromkeys(("q0", "q1", "q2"), "50")
    assert len(server.bodies) == 4
    dict(judge_of(server, tmp_path).replies(questions(3)))
    assert len(server.bodies) == 4


def test_a_reply_is_on_disk_before_it_is_handed_on(server: Server, tmp_path: Path) -> None:
    replies = judge_of(server, tmp_path, workers=1).replies(questions(5))
    for count, _ in enumerate(replies, 1):
        assert len(lines(tmp_path)) == count
        if count == 3:
            break
    replies.close()  # type: ignore[attr-defined]
    assert len(dict(judge_of(server, tmp_path).replies(questions(5)))) == 5


def test_the_key_is_sent_and_never_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("EVALKIT_JUDGE_KEY", "sk-secret")
    server.behave = lambda body, attempt: completion("your key is sk-secret")
    assert dict(judge_of(server, tmp_path).replies(questions(1, numeric=False))) == {"q0": "your key is ***"}
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    server.behave = lambda body, attempt: (400, {"error": "bad key sk-secret"})
    (outcome,) = dict(judge_of(server, tmp_path).replies({"x": JudgeQuestion("", "new")})).values()
    assert isinstance(outcome, Failure) and "sk-secret" not in outcome.message
    server.behave = lambda body, attempt: (401, {"error": "bad key sk-secret"})
    with pytest.raises(JudgeError) as caught:
        dict(judge_of(server, tmp_path).replies({"x": JudgeQuestion("", "new")}))
    assert "sk-secret" not in str(caught.value)
    assert "sk-" not in (tmp_path / "judge.jsonl").read_text()


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("http://judge.example/v1", ["EVALKIT_JUDGE_KEY", "OPENAI_API_KEY"]),
        (
            "https://mine.openai.azure.com/openai/v1",
            ["EVALKIT_JUDGE_KEY", "AZURE_OPENAI_API_KEY", "OPENAI_API_KEY"],
        ),
    ],
)
def test_the_key_is_that_of_the_first_variable_that_is_set(
    address: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str | None] = []
    monkeypatch.setattr(
        "evalkit.judge.ChatApi", lambda url, key, *more: taken.append(key) or SimpleNamespace(address=url)
    )
    for name in ("AZURE_OPENAI_API_KEY", *KEY_VARIABLES):
        monkeypatch.setenv(name, f"key of {name}")
    for name in names:
        Judge(address, "judge", tmp_path / "judge.jsonl")
        assert taken.pop() == f"key of {name}"
        monkeypatch.delenv(name)
    Judge(address, "judge", tmp_path / "judge.jsonl")
    assert taken == [None]


@pytest.mark.parametrize("key", ["sk-\nsecret", "sk-gehéim"])
def test_a_key_that_no_header_can_hold_is_refused_unsaid(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_JUDGE_KEY", key)
    with pytest.raises(JudgeError, match="EVALKIT_JUDGE_KEY: holds characters") as caught:
        Judge("http://localhost/v1", "m", tmp_path / "judge.jsonl")
    assert "sk-" not in str(caught.value)


def test_redirections_do_not_carry_the_key_away(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Server()
    try:
        monkeypatch.setenv("EVALKIT_JUDGE_KEY", "sk-secret")
        server.extra = {"Location": f"{elsewhere.url}/chat/completions"}
        server.behave = lambda body, attempt: (302, {})
        with pytest.raises(JudgeError, match="HTTP 302"):
            dict(judge_of(server, tmp_path).replies(questions(1)))
        assert elsewhere.headers == []
    finally:
        elsewhere.close()


def test_an_interrupted_process_does_not_wait_for_a_judge_that_stalls(server: Server, tmp_path: Path) -> None:
    server.behave = lambda body, attempt: completion("1") if time.sleep(20) else None
    program = (
        "import pathlib, signal; from evalkit.judge import Judge; from evalkit.task import JudgeQuestion\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell may have it ignored
        f"judge = Judge({server.url!r}, 'm', pathlib.Path({str(tmp_path / 'judge.jsonl')!r}))\n"
        "print('asking', flush=True)\n"
        "list(judge.replies({str(i): JudgeQuestion('', str(i)) for i in range(9)}))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"asking\n"
    while not server.bodies:
        time.sleep(0.01)
    process.send_signal(2)
    process.communicate(timeout=15)  # the server answers after 20 s
    assert process.returncode != 0


def test_a_reply_that_cannot_be_written_stops_the_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "folder").touch()
    judge = Judge(server.url, "m", tmp_path / "folder" / "judge.jsonl")
    with pytest.raises(JudgeError, match=r"judge\.jsonl: a reply cannot be written"):
        dict(judge.replies(questions(1)))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("62", 62.0), (" 41.5\n", 41.5), ("-3", -3.0), ("1e2", 100.0), ("120", 120.0), ("62.", 62.0)],
)
def test_a_reply_is_read_as_python_reads_a_number(reply: str, expected: float) -> None:
    assert number(reply) == expected


@pytest.mark.parametrize(
    "reply", ["", "62/100", "62%", "Score: 62", "nan", "inf", "-Infinity", "1e999", None, 62]
)
def test_anything_else_is_no_number(reply: object) -> None:
    assert number(reply) is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12))
def test_number_never_raises_and_never_makes_up_one(text: str) -> None:
    value = number(text)
    if value is not None:
        assert value == float(text)


def test_without_the_package_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(JudgeError) as caught:
        Judge("http://localhost/v1", "m", tmp_path / "judge.jsonl")
    assert str(caught.value) == f"--judge: this needs the package openai: {install_command('api')}"


def stored(folder: Path, *replies: str) -> StoredReplies:
    """A file with these replies to one question."""
    question = questions(1)["q0"]
    key = judge_module._reply_key("judge-1", question, "", 0)
    text = "".join(reply.replace("KEY", json.dumps(key)) + "\n" for reply in replies)
    (folder / "judge.jsonl").write_text(text)
    return StoredReplies("judge-1", folder / "judge.jsonl")


def test_stored_replies_that_are_not_certain_are_refused(tmp_path: Path) -> None:
    plain = '{"key": KEY, "reply": "50"}'
    assert dict(stored(tmp_path, plain, plain, "torn {").replies(questions(1))) == {"q0": "50"}
    for twice in ('{"key": KEY, "reply": "50", "reply": "90"}', '{"key": KEY, "reply": "50", "at": NaN}'):
        with pytest.raises(JudgeError, match=r"judge.jsonl: line 2: .*remove the line"):
            dict(stored(tmp_path, plain, twice).replies(questions(1)))
    with pytest.raises(JudgeError, match=r"judge.jsonl: line 2: another reply"):
        dict(stored(tmp_path, plain, '{"key": KEY, "reply": "90"}').replies(questions(1)))


def test_a_reply_that_can_be_read_in_two_ways_is_none(server: Server, tmp_path: Path) -> None:
    content = b'{"choices": [{"message": {"role": "a", "content": "50", "content": "90"}}]}'
    server.behave = lambda body, attempt: (200, content) if attempt == 1 else completion("70")
    assert dict(judge_of(server, tmp_path).replies(questions(1))) == {"q0": "70"}
    server.behave = lambda body, attempt: (200, content)
    ((_, failure),) = judge_of(server, tmp_path, attempts=1).replies({"q1": questions(2)["q1"]})
    assert isinstance(failure, Failure) and "'content' occurs twice" in failure.message


def test_a_damaged_cookie_spoils_no_later_request(server: Server, tmp_path: Path) -> None:
    server.extra = {"Set-Cookie": "a=\xff"}
    assert set(dict(judge_of(server, tmp_path, workers=1).replies(questions(3))).values()) == {"50"}
    assert not any("Cookie" in headers for headers in server.headers)
