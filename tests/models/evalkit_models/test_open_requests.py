"""Requests as servers in the wild want them, and refusals that are no accidents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import Answer, completion
from served_bench import Bench, open_bench

from evalkit.errors import UsageError
from evalkit.openai_client import _secret_words
from evalkit.request_form import RequestForm, without_secrets
from evalkit.store import load_run
from evalkit_models import sending
from evalkit_models.served import AZURE_KEY_VARIABLE, KEY_VARIABLE

SECRET = "sk-very/secret+word"


@pytest.fixture
def bench(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    with open_bench(tmp_path, capsys, monkeypatch, (KEY_VARIABLE, AZURE_KEY_VARIABLE)) as one:
        yield one


# The form of a request ------------------------------------------------------------------------------------


def sent(model: str, *items: str) -> dict[str, Any]:
    form = RequestForm.parse(model, dict(item.split("=", 1) for item in items))
    settings = {"max_tokens": 9, "temperature": 0.0, "seed": 0, "stop": ["x"]}
    return {name: value for name, value in form.body(model, [], settings).items() if name != "messages"}


@pytest.mark.parametrize(
    "model",
    [
        "gpt-5",
        "gpt-5-mini",
        "GPT-5.1",
        "openai/gpt-5-nano",
        "gpt-5-2025-08-07",
        "o1",
        "o3-mini",
        "openai/o4-mini",
    ],
)
def test_models_that_reason_are_known_by_name(model: str) -> None:
    assert sent(model) == {"model": model, "max_completion_tokens": 9, "seed": 0}
    assert "preset" in RequestForm.parse(model, {}).to_json()
    everything = sent(model, "omit=", "token_field=max_tokens")
    assert everything == {"model": model, "max_tokens": 9, "temperature": 0.0, "seed": 0, "stop": ["x"]}


@pytest.mark.parametrize(
    "model", ["gpt-4o", "gpt-5-chat-latest", "olmo-3", "o", "qwen3-vl", "my-o3", "phi-o1"]
)
def test_other_models_get_what_the_protocol_says(model: str) -> None:
    assert sent(model) == {"model": model, "max_tokens": 9, "temperature": 0.0, "seed": 0, "stop": ["x"]}
    assert RequestForm.parse(model, {}).to_json() == {}


def test_fields_are_left_out_and_added() -> None:
    found = sent(
        "m", "omit=temperature,seed,max_tokens", 'extra_body={"chat_template_kwargs": {"think": false}}'
    )
    assert found == {"model": "m", "stop": ["x"], "chat_template_kwargs": {"think": False}}
    assert sent("m", 'omit=["stop", "max_completion_tokens"]') == {
        "model": "m",
        "temperature": 0.0,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("omit=temprature", "there are max_tokens, temperature"),
        ("token_field=tokens", "write max_tokens or max_completion_tokens"),
        ("extra_body=top_k", "not a JSON object"),
        ("extra_body=[1]", "not a JSON object"),
        ('extra_body={"temperature": 1}', "set it by --gen temperature"),
        ('extra_body={"max_completion_tokens": 1}', "set it by --gen max_new_tokens"),
        ('extra_body={"stream": true}', "leave it out"),
        ('extra_headers={"X-A": 7}', "must be a text"),
        ('extra_headers={"X A": "b"}', "a name that no header has"),
        ('extra_headers={"Host": "elsewhere"}', "up to the connection"),
        ('extra_headers={"X-A": "$NOT_SET_ANYWHERE"}', "NOT_SET_ANYWHERE is not set"),
        ('extra_headers={"X-A": "two\\nlines"}', "characters that no header has"),
        ('extra_headers={"X-A": "***"}', "kept in no run folder"),
    ],
)
def test_a_form_that_cannot_be(item: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"--judge-gen") as caught:
        RequestForm.parse("m", dict([item.split("=", 1)]), "--judge-gen")
    assert said.replace("--gen", "--judge-gen") in str(caught.value) and "elsewhere" not in str(caught.value)


def test_values_of_headers_are_hidden_and_names_of_variables_are_not() -> None:
    items = ('extra_headers={"api-key": "abc", "X-Team": "$TEAM"}', "timeout=3", "extra_headers=sk-oops")
    kept = without_secrets(items)
    assert json.loads(kept[0].partition("=")[2]) == {"api-key": "***", "X-Team": "$TEAM"}
    assert kept[1:] == ("timeout=3", "extra_headers=***")


# In a run -------------------------------------------------------------------------------------------------


def test_headers_are_sent_and_their_values_written_nowhere(bench: Bench) -> None:
    bench.server.behave = lambda body, attempt: completion(f"Yes {bench.server.headers[-1].get('X-Token')}")
    headers = json.dumps({"X-Token": SECRET, "authorization": f"Bearer {SECRET}"})
    assert bench.run("-v", "--gen", f"extra_headers={headers}") == 0
    assert bench.server.headers[-1]["X-Token"] == SECRET
    assert bench.server.headers[-1]["authorization"] == f"Bearer {SECRET}"
    assert "***" in bench.everything() and SECRET not in bench.everything()
    folder = bench.result["run"]
    others = json.dumps({"authorization": "Bearer another-key", "X-Token": "rotated-word-1"})
    assert bench.run("--gen", f"extra_headers={others}") == 0 and bench.result["run"] == folder
    assert bench.run("--gen", 'extra_headers:{"a": "sk-secret"}') == 2 and "sk-secret" not in bench.err


def test_what_is_not_sent_is_said_everywhere(bench: Bench) -> None:
    assert bench.run("--gen", "omit=temperature,max_tokens", "--gen", 'extra_body={"top_k": 1}') == 0
    body = bench.server.bodies[-1]
    assert body["top_k"] == 1 and not {"temperature", "max_tokens"} & set(body) and "seed" in body
    assert "|gen:server,server|" in bench.result["signature"]
    assert any("temperature, max_tokens not sent" in note for note in bench.result["notes"])
    manifest = load_run(bench.result["run"]).manifest
    assert manifest["model"]["settings"]["request"] == {
        "omit": ["temperature", "max_tokens"],
        "extra_body": {"top_k": 1},
    }
    folder = bench.result["run"]
    assert bench.run("--gen", "omit=temperature, max_tokens", "--gen", 'extra_body={"top_k":1}') == 0
    assert bench.result["run"] == folder  # the same request, spelled otherwise
    assert bench.run() == 0 and bench.result["run"] != folder


def test_a_preset_stands_in_the_manifest(bench: Bench) -> None:
    assert bench.run("-m", "openai:gpt-5-mini") == 0
    assert "max_completion_tokens" in bench.server.bodies[-1]
    request = load_run(bench.result["run"]).manifest["model"]["settings"]["request"]
    assert request["preset"] == "gpt-5 and o-series" and "temperature" in request["omit"]


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (
            "Unsupported parameter: 'max_tokens', use 'max_completion_tokens'",
            "--gen token_field=max_completion",
        ),
        ("Unsupported value: 'temperature' does not support 0.0", "--gen omit=temperature leaves it out"),
        ("Extra inputs are not permitted: seed", "--gen omit=seed leaves it out"),
    ],
)
def test_a_field_that_a_server_does_not_know_is_named_with_the_fix(said: str, fix: str, bench: Bench) -> None:
    bench.server.behave = lambda body, attempt: (400, {"error": {"message": said}})
    assert bench.run("--limit", "2") == 4
    (failed, _) = load_run(bench.result["run"]).records()
    assert failed.error is not None and fix in failed.error.message and len(bench.server.bodies) == 2


def test_azure_gets_its_version_and_its_own_header(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []
    plain = bench.server._handle

    def handle(request: Any) -> None:
        paths.append(request.path)
        plain(request)

    bench.server._server._server.RequestHandlerClass.do_POST = lambda self: handle(self)  # type: ignore[method-assign,attr-defined]
    monkeypatch.setenv(KEY_VARIABLE, "sk-not-for-azure")
    monkeypatch.setenv(AZURE_KEY_VARIABLE, SECRET)
    url = f"{bench.server.url}/openai/deployments/mine?api-version=2024-10-21"
    assert bench.run("--limit", "1", url=url) == 0
    assert paths == ["/v1/openai/deployments/mine/chat/completions?api-version=2024-10-21"]
    assert bench.server.headers[-1]["api-key"] == SECRET and "Authorization" not in bench.server.headers[-1]
    assert SECRET not in bench.everything()
    whole = url.replace("?", "/chat/completions?")
    assert bench.run("--limit", "1", "--no-resume", url=whole) == 0 and paths[1] == paths[0]
    assert bench.run(url=f"{bench.server.url}?api-version=1&key={SECRET}") == 2 and SECRET not in bench.err


# Refusals -------------------------------------------------------------------------------------------------


def reply(content: object, finish: str = "stop", usage: object = None, **message: object) -> Answer:
    said = {"role": "assistant", "content": content, **message}
    return 200, {"choices": [{"message": said, "finish_reason": finish}], "usage": usage}


WITHHELD: dict[str, tuple[Answer, str, str]] = {
    "filter": (reply(None, "content_filter"), "refused", "content filter"),
    "filter with half a text": (reply("The tum", "content_filter"), "refused", "content filter"),
    "refusal": (reply(None, refusal="I cannot help"), "refused", "I cannot help"),
    "refusal in parts": (reply([{"type": "refusal", "refusal": "Not this"}]), "refused", "Not this"),
    "a tool": (reply(None, "tool_calls", tool_calls=[{}]), "refused", "called a tool"),
    "a picture": (reply([{"type": "image_url"}]), "refused", "a part that is no text"),
    "HTTP 400": ((400, {"error": {"code": "content_filter", "message": "no"}}), "refused", "filter"),
    "Azure": (
        (400, {"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
        "refused",
        "filter",
    ),
    "HTTP 403": ((403, {"error": {"message": "Your input requires moderation"}}), "refused", "filter"),
    "error in place of choices": ((200, {"error": {"code": "content_filter"}}), "refused", "filter"),
}
#: Replies that are unfinished thinking alone.
THOUGHT: dict[str, Answer] = {
    "no text": reply(None, "length", reasoning_content="hm"),
    "empty text": reply("\n", "length", reasoning="hm"),
    "unseen": reply("", "length", {"completion_tokens_details": {"reasoning_tokens": 100}}),
    "in parts": reply([{"type": "thinking", "thinking": "hm"}], "length"),
}


@pytest.mark.parametrize("case", WITHHELD)
def test_a_withheld_answer_is_asked_for_once_and_named(case: str, bench: Bench) -> None:
    answer, kind, said = WITHHELD[case]
    bench.server.behave = lambda body, attempt: answer
    assert bench.run("--limit", "6") == 4
    assert len(bench.server.bodies) == 6
    assert bench.result["failures"] == {kind: 6} and bench.result["counts"]["errors"] == 6
    assert bench.result["counts"][kind] == 6
    assert all(
        r.error is not None and said in r.error.message for r in load_run(bench.result["run"]).records()
    )


@pytest.mark.parametrize("case", THOUGHT)
def test_unfinished_thinking_is_a_wrong_answer(case: str, bench: Bench) -> None:
    bench.server.behave = lambda body, attempt: THOUGHT[case]
    assert bench.run("--limit", "6") == 0
    counts = bench.result["counts"]
    assert (counts["errors"], counts["truncated"], counts["reasoning"]) == (0, 6, 6)
    assert bench.result["metrics"]["accuracy"]["value"] == 0.0
    assert len(bench.server.bodies) == 6 and "6 of 6 answers used up their" in bench.err
    for record in load_run(bench.result["run"]).records():
        assert record.text == "" and "truncated" in record.flags and record.data["reasoning"]


def test_unfinished_thinking_in_the_text_is_scored_as_the_protocol_does(bench: Bench) -> None:
    bench.server.behave = lambda body, attempt: reply("<think>hm", "length")
    for mode, text in (("auto", "<think>hm"), ("strip", "")):
        assert bench.run("--limit", "6", "--reasoning", mode) == 0
        assert (bench.result["counts"]["errors"], bench.result["counts"]["truncated"]) == (0, 6)
        assert {record.text for record in load_run(bench.result["run"]).records()} == {text}


def test_refusals_stop_no_run_and_stand_apart(bench: Bench) -> None:
    def behave(body: dict[str, Any], attempt: int) -> Answer:
        number = int(str(body["messages"]).split("Is ")[1].split(" ")[0])
        return (
            completion("Yes") if number % 10 == 9 else reply(None, refusal="no") if number % 2 else (500, {})
        )

    bench.server.behave = behave
    assert bench.run("--gen", "attempts=2", "--max-errors", "90%") == 0
    counts = bench.result["counts"]
    assert bench.result["failures"] == {"server": 10, "refused": 8} and counts["refused"] == 8
    session = load_run(bench.result["run"]).manifest["sessions"][-1]
    assert session["workers"]["sent"] == 30 and session["workers"]["again"] == 10
    assert "10 requests sent again" in bench.err


def test_fifty_refusals_are_no_broken_set_up(bench: Bench) -> None:
    from toy import make_benchmark

    bench.task = make_benchmark(bench.output.parent / "more", samples=60)
    bench.server.behave = lambda body, attempt: reply(None, refusal="no")
    assert bench.run() == 4 and bench.result["counts"]["refused"] == 60
    bench.server.behave = lambda body, attempt: (400, {"error": "no such field"})
    assert bench.run("--no-resume", "--batch-size", "1") == 3 and "50 requests in a row" in bench.err


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ([{"type": "text", "text": "Ye"}, {"type": "text", "text": "s"}], "Yes", ""),
        ([{"type": "output_text", "text": "Yes"}], "Yes", ""),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "Yes"},
            ],
            "Yes",
            "hm",
        ),
        ([], None, ""),
    ],
)
def test_an_answer_in_parts_is_an_answer(
    content: object, text: str | None, reasoning: str, bench: Bench
) -> None:
    bench.server.behave = lambda body, attempt: reply(content)
    assert bench.run("--limit", "1") == 0
    (stored,) = load_run(bench.result["run"]).responses().values()
    assert (stored.response.text, stored.response.reasoning) == (text or "", reasoning)
    assert len(bench.server.bodies) == 1


def test_a_large_body_that_is_turned_away_is_told_its_size(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_LARGE", 100)
    bench.server.behave = lambda body, attempt: (413, {"error": "too large"})
    assert bench.run("--limit", "1") == 4
    (failed,) = load_run(bench.result["run"]).records()
    assert failed.error is not None and "--gen jpeg_quality=90" in failed.error.message
    bench.server.behave = lambda body, attempt: (404, {"error": "no"})
    assert bench.run("--no-resume") == 3 and "--gen jpeg_quality=90" in bench.err
    bench.server.behave = lambda body, attempt: completion("Yes") if "Is 3 it" not in str(body) else (404, {})
    assert bench.run("--no-resume", "--batch-size", "1") == 4
    assert bench.result["counts"]["answered"] == 19  # the address was right for the others


def test_answers_are_drawn_independently(bench: Bench) -> None:
    """Each question by a seed of its own, the same in the same run; of repeats each answer."""
    drawn = ("--gen", "temperature=0.7", "--no-resume")

    def seeds(*flags: str) -> list[int]:
        bench.server.bodies.clear()
        assert bench.run(*flags) == 0, bench.err
        return sorted(body["seed"] for body in bench.server.bodies)

    first = seeds(*drawn, "--seed", "3")
    assert len(set(first)) == len(first) == bench.result["counts"]["expected"]
    assert max(first) < 2**31
    assert seeds(*drawn, "--seed", "3") == first != seeds(*drawn, "--seed", "4")
    assert len(set(seeds("--seed", "3"))) == 1  # nothing is drawn
    twice = seeds(*drawn, "--repeats", "2")
    assert len(set(twice)) == len(twice) == 2 * len(first)
    assert bench.result["repeats"]["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Authorization", "Bearer lettersonly", ["Bearer lettersonly", "lettersonly"]),
        ("X-Api-Key", "lettersonly", ["lettersonly"]),
        ("X-Team", "evaluation", []),
        ("X-Team", "evaluation-7", ["evaluation-7"]),
    ],
)
def test_the_value_of_a_header_is_written_only_if_it_is_a_plain_word(
    name: str, value: str, words: list[str]
) -> None:
    assert set(_secret_words(name, value)) == set(words)
