"""`evalkit doctor --base-url` against servers of different abilities."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from chat_server import Answer, Server, completion

from evalkit.cli.main import invoke

USAGE = {"prompt_tokens": 9, "completion_tokens": 7}
ANSWER = "one, two, three"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running = Server()
    running.listed = ["good", "other"]
    running.behave = able
    yield running
    running.close()


def able(body: dict[str, Any], attempt: int) -> Answer:
    text = ANSWER
    for mark in body.get("stop", ()):
        text = text.partition(mark)[0]
    more = {"logprobs": {"content": [1]}} if body.get("logprobs") else {}
    return completion(text, usage=USAGE, **more)


def visit(capsys: pytest.CaptureFixture[str], server: Server, *arguments: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert invoke(["doctor", "--base-url", server.url, "--json", *arguments]) == status
    return {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}


def test_an_able_server(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    found = visit(capsys, server)
    assert {finding["state"] for finding in found.values()} == {"ok"}
    assert {body["model"] for body in server.bodies} == {"good"}
    pictures = [len(body["messages"][0]["content"]) for body in server.bodies if "image_url" in str(body)]
    assert pictures == [2, 3]
    assert "inputs:server" in str(found) or "refused" in found["differs"]["found"]
    assert invoke(["doctor", "--base-url", server.url, "-m", "openai:other"]) == 0
    assert "inputs:server" in capsys.readouterr().out and server.bodies[-1]["model"] == "other"


def test_a_server_that_can_little(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    turn = iter(range(1000))

    def little(body: dict[str, Any], attempt: int) -> Answer:
        if "image_url" in str(body):
            return 400, {"error": "no images"}
        if "stop" in body:
            return 500, {"error": "get_vocab"}
        return completion(f"{next(turn)} and so on")

    server.behave = little
    server.listed = (404, {})
    found = visit(capsys, server, "-m", "m")
    missing = {name for name, finding in found.items() if finding["state"] == "missing"}
    all_of_them = {"models", "usage", "image", "several images", "stop", "greedy", "seed", "logprobs"}
    assert missing == all_of_them
    assert "no images" in found["image"]["found"] and "send_stop=no" in found["stop"]["mend"]


def test_a_stop_text_that_is_passed_over(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.behave = lambda body, attempt: completion(ANSWER, usage=USAGE)
    assert visit(capsys, server)["stop"]["found"] == "accepted and not honoured"


def test_the_other_name_of_the_longest_answer_is_found(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behave = lambda body, attempt: (
        (400, {"error": "Unsupported parameter: use 'max_completion_tokens'"})
        if "max_tokens" in body
        else able(body, attempt)
    )
    found = visit(capsys, server)
    assert found["chat"]["state"] == "ok"
    assert "--gen token_field=max_completion_tokens" in found["chat"]["mend"]


def test_a_server_that_refuses_or_is_not_there(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.behave = lambda body, attempt: (401, {"error": "who are you"})
    assert "HTTP 401" in visit(capsys, server, status=3)["chat"]["found"]
    server.listed = []
    assert "no model name" in visit(capsys, server, status=3)["chat"]["found"]
    server.close()
    assert visit(capsys, server, "-m", "m", status=3)["chat"]["state"] == "broken"
    assert invoke(["doctor", "--base-url", "localhost:8000"]) == 2
    assert "not an http address" in capsys.readouterr().err


def test_what_a_server_refuses_after_it_has_answered(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def refuses(body: dict[str, Any], attempt: int) -> Answer:
        wanted = [name for name in ("seed", "logprobs") if name in body]
        asked.append(str(body["messages"]))
        if wanted or ("stop" not in body and asked.count(asked[-1]) - 1 == 2):
            return 400, {"error": f"no {' '.join(wanted) or 'more'}"}
        return completion("A", usage=USAGE)

    server.behave = refuses
    found = visit(capsys, server)
    assert {name for name, finding in found.items() if finding["state"] == "missing"} == {
        "greedy",
        "seed",
        "logprobs",
    }
    for name, said in (("greedy", "no more"), ("seed", "no seed"), ("logprobs", "no logprobs")):
        assert said in found[name]["found"]
    assert "too short" in found["stop"]["found"] and found["logprobs"]["mend"] == "evalkit needs none"


def test_the_key_is_not_shown(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server.listed = ["model sk-very-secret"]
    server.behave = lambda body, attempt: completion("your key is sk-very-secret")
    assert "sk-very-secret" not in str(visit(capsys, server))
    server.behave = lambda body, attempt: (400, {"error": "key sk-very-secret"})
    assert "sk-very-secret" not in str(visit(capsys, server, status=3))
