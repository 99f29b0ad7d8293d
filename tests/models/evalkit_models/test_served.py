"""Served models against a local server that fails, stalls, talks nonsense and answers."""

from __future__ import annotations

import base64
import dataclasses
import email.utils
import gzip
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import Answer, Server, completion
from PIL import Image
from served_bench import Bench

from evalkit import registry
from evalkit.contracts import Generation, Message, ModelOptions, Request, Response
from evalkit.data.images import ImageBytes, ImageFile
from evalkit.errors import BudgetError, ServerError, UsageError
from evalkit.installation import install_command
from evalkit.request_form import KEYS
from evalkit.store import load_run
from evalkit_models import sending
from evalkit_models.served import FAMILY, KEY_VARIABLE, PATIENCE, ServedModel
from evalkit_models.server_settings import ServerSettings

USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    running.behave = lambda body, attempt: completion("Yes", usage=USAGE)
    yield running
    running.close()


@pytest.fixture(autouse=True)
def quick_and_keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr(sending, "BACKOFF", 0.001)


def model_of(server: Server, batch_size: int | None = None, **extra: str) -> ServedModel:
    options = ModelOptions(base_url=server.url, batch_size=batch_size, extra={"timeout": "5", **extra})
    model = FAMILY.load("openai:m", options)
    assert isinstance(model, ServedModel)
    return model


def picture(shade: int = 0, size: tuple[int, int] = (9, 7), mode: str = "RGB") -> ImageBytes:
    image = Image.linear_gradient("L").resize(size).convert(mode)
    image.putpixel((0, 0), tuple([shade] * len(image.getbands())) if len(image.getbands()) > 1 else shade)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return ImageBytes(buffer.getvalue(), f"picture {shade}")


def ask(text: str, *images: Any, name: str = "a", **generation: Any) -> Request:
    return Request(name, (Message("user", text),), images, Generation(**generation))


def many(count: int, **generation: Any) -> list[Request]:
    return [ask(f"question {i}", name=str(i), **generation) for i in range(count)]


def answers(model: ServedModel, *requests: Request) -> dict[str, Response]:
    found = list(model.generate(requests))
    assert sorted(name for name, _ in found) == sorted(request.id for request in requests)
    return dict(found)


def pixels(part: dict[str, Any]) -> Image.Image:
    head, _, data = part["image_url"]["url"].partition(",")
    assert part["type"] == "image_url" and head.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(data)))


# What is sent ---------------------------------------------------------------------------------------------


def test_text_settings_and_usage(server: Server) -> None:
    (response,) = answers(model_of(server), ask("Why?", max_new_tokens=33, seed=4, stop=("\n",))).values()
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Why?"}],
            "max_tokens": 33,
            "temperature": 0.0,
            "seed": 4,
            "stop": ["\n"],
        }
    ]
    assert server.path == "/v1/chat/completions"
    assert (response.text, response.finish) == ("Yes", "stop")
    assert (response.prompt_tokens, response.new_tokens) == (20, 5) and response.seconds > 0


def test_sampling_and_named_fields(server: Server) -> None:
    model = model_of(server, token_limit="max_completion_tokens", send_stop="no")
    answers(model, ask("Why?", temperature=0.5, top_p=0.9, stop=("x",)))
    (body,) = server.bodies
    assert (body["temperature"], body["top_p"]) == (0.5, 0.9)
    assert body["max_completion_tokens"] == 100 and "max_tokens" not in body and "stop" not in body


def test_a_run_goes_on_with_other_spellings_and_patience(server: Server) -> None:
    """What changes an answer stands in the settings, which the run's identity holds."""
    free = set(model_of(server).info.free_options)
    own = {field.name for field in dataclasses.fields(ServerSettings)} - {"form"}
    assert free == (own - {"jpeg_quality"}) | {"token_limit", *KEYS}
    told = model_of(server, jpeg_quality="70").info.settings
    assert told != model_of(server).info.settings


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_pictures_arrive_as_they_are(mode: str, server: Server) -> None:
    from mini_internvl import open_image

    sent = picture(40, mode=mode)
    answers(model_of(server), ask("What?", sent))
    image, text = server.bodies[0]["messages"][0]["content"]
    assert pixels(image).format == "PNG" and text == {"type": "text", "text": "What?"}
    assert pixels(image).convert("RGB").tobytes() == open_image(sent.open()).tobytes()


def test_pictures_stand_where_the_text_has_them(server: Server) -> None:
    first, second = picture(1, (3, 3)), picture(2, (5, 5))
    turns = (
        Message("system", "Be brief."),
        Message("user", "<image>\nWhat is this?"),
        Message("assistant", "A cat."),
        Message("user", "And <image> this?"),
    )
    answers(model_of(server), Request("a", turns, (first, second)))
    system, one, reply, two = server.bodies[0]["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert reply == {"role": "assistant", "content": "A cat."}
    assert one["content"][1] == {"type": "text", "text": "What is this?"}
    assert [part["type"] for part in two["content"]] == ["text", "image_url", "text"]
    assert [two["content"][0]["text"], two["content"][2]["text"]] == ["And ", " this?"]
    assert pixels(one["content"][0]).size == (3, 3) and pixels(two["content"][1]).size == (5, 5)


def test_several_pictures_without_marks_are_numbered_in_front(server: Server) -> None:
    answers(model_of(server), ask("Which?", picture(1), picture(2)))
    parts = server.bodies[0]["messages"][0]["content"]
    texts = [part.get("text") for part in parts]
    assert texts == ["Image-1: ", None, "\nImage-2: ", None, "\nWhich?"]


def test_jpeg_by_name(server: Server) -> None:
    model = model_of(server, jpeg_quality="80")
    answers(model, ask("What?", picture(3)))
    assert pixels(server.bodies[0]["messages"][0]["content"][0]).format == "JPEG"
    assert model.info.settings["pictures"] == "jpeg:80"


def test_a_picture_is_encoded_once_for_all_its_questions(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = ImageBytes.open
    monkeypatch.setattr(ImageBytes, "open", lambda self: (opened.append(self.name), real(self))[1])
    shared = picture(7)
    asked = [dataclasses.replace(ask(f"q{i}", shared, name=str(i)), group=0) for i in range(6)]
    answers(model_of(server), *asked)
    assert opened == ["picture 7"] and len(server.bodies) == 6


def test_what_cannot_be_asked_is_its_own_error(server: Server, tmp_path: Path) -> None:
    found = answers(
        model_of(server),
        ask("q", ImageFile(str(tmp_path / "absent.png")), name="absent"),
        ask("<image><image>", picture(1), name="marks"),
        ask("fine", name="fine"),
    )
    assert found["absent"].error is not None and found["absent"].error.kind == "image"
    assert found["marks"].error is not None and found["marks"].error.kind == "prompt"
    assert found["fine"].text == "Yes" and len(server.bodies) == 1


def test_what_the_protocol_cannot_carry_is_refused(server: Server) -> None:
    for setting in ({"num_beams": 5}, {"min_new_tokens": 3}):
        with pytest.raises(UsageError, match=next(iter(setting))):
            list(model_of(server).generate([ask("q", **setting)]))
    assert server.bodies == []


# What comes back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "text", "finish"),
    [
        (completion("a", "length"), "a", "length"),
        *((completion("a", name), "a", "stop") for name in ("eos", "eos_token", "stop_sequence")),
        (completion("a", "max_tokens"), "a", "length"),
        (completion("", "stop"), "", "stop"),
        (completion("a", None), "a", None),
        (completion("a", None, {"prompt_tokens": 1, "completion_tokens": 100}), "a", "length"),
        (completion("yes\nno", "length"), "yes", "stop"),
        (completion("a", "stop", {"prompt_tokens": "many", "completion_tokens": -3}), "a", "stop"),
        (completion("a", "stop", "no usage"), "a", "stop"),
    ],
    ids=repr,
)
def test_replies_are_read(reply: Answer, text: str, finish: str | None, server: Server) -> None:
    server.behave = lambda body, attempt: reply
    (response,) = answers(model_of(server), ask("q", stop=("\n",))).values()
    assert (response.text, response.finish, response.error) == (text, finish, None)


TROUBLES: list[Answer] = [
    (500, {"error": "internal"}),
    (503, b"busy"),
    (429, {"error": "slow down"}),
    None,
    b"nonsense that is not HTTP\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
    (200, b"<html>gateway</html>"),
    (200, b"\xff\xfe"),
    (200, b""),
    (200, {}),
    (200, []),
    (200, {"choices": []}),
    (200, {"choices": {}}),
    (200, {"choices": [{}]}),
    (200, {"choices": [{"message": None}]}),
    completion(None),
    completion(7),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=repr)
def test_what_may_pass_is_asked_again(trouble: Answer, server: Server) -> None:
    server.behave = lambda body, attempt: completion("Yes") if attempt == 3 else trouble
    found = answers(model_of(server), *many(3))
    assert [response.text for response in found.values()] == ["Yes"] * 3
    assert len(server.bodies) == 9


@pytest.mark.parametrize("trouble", TROUBLES, ids=repr)
def test_trouble_for_ever_is_an_error_and_never_an_empty_answer(trouble: Answer, server: Server) -> None:
    server.behave = lambda body, attempt: (
        trouble if "question 1" in str(body["messages"]) else completion("Yes")
    )
    found = answers(model_of(server, attempts="2"), *many(3))
    assert found["1"].error is not None and found["1"].error.kind == "server" and found["1"].error.message
    assert [found["0"].text, found["2"].text] == ["Yes", "Yes"]


def test_a_refused_request_fails_alone_and_at_once(server: Server) -> None:
    server.behave = lambda body, attempt: (
        (400, {"error": "context too long"}) if "1" in str(body["messages"]) else completion("Yes")
    )
    found = answers(model_of(server), *many(3))
    assert found["1"].error is not None and found["1"].error.kind == "refused"
    assert "context too long" in found["1"].error.message and len(server.bodies) == 3


def test_a_server_that_stalls_is_given_up(server: Server) -> None:
    server.behave = lambda body, attempt: (time.sleep(1.5 if attempt == 1 else 0), completion("Yes"))[1]
    found = answers(model_of(server, timeout="0.3"), *many(2))
    assert [response.text for response in found.values()] == ["Yes"] * 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_wish_to_wait_holds_for_everybody(form: str, server: Server) -> None:
    asked: list[float] = []
    wish = 0.4 if form == "seconds" else 1.0

    def behave(body: dict[str, Any], attempt: int) -> Answer:
        asked.append(time.monotonic())
        if len(asked) > 1:
            server.extra = {}
            return completion("Yes")
        server.extra = {"Retry-After": str(wish)}
        if form == "date":
            server.extra = {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)}
        return 429, {}

    server.behave = behave
    answers(model_of(server, batch_size=1), *many(3))
    assert asked[1] - asked[0] >= wish and len(asked) == 4


def test_requests_are_under_way_together(server: Server) -> None:
    server.behave = lambda body, attempt: (time.sleep(0.05), completion("Yes"))[1]
    answers(model_of(server, batch_size=6), *many(24))
    assert 3 <= server.most_together <= 6


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_a_wrong_address_key_or_name_stops_at_once(status: int, server: Server) -> None:
    server.behave = lambda body, attempt: (status, {"error": "no"})
    with pytest.raises(ServerError, match=f"HTTP {status}.*--base-url.*{KEY_VARIABLE}"):
        list(model_of(server, batch_size=1).generate(many(5)))
    assert len(server.bodies) == 1


def test_a_server_that_dies_stops_the_run(server: Server) -> None:
    server.behave = lambda body, attempt: completion("Yes") if "question 0" in str(body) else (500, {})
    with pytest.raises(ServerError, match=f"{PATIENCE} requests in a row failed, last: HTTP 500"):
        list(model_of(server, batch_size=1, attempts="1").generate(many(200)))
    assert len(server.bodies) <= PATIENCE + 2


# Budgets --------------------------------------------------------------------------------------------------


def until_the_budget_ends(model: ServedModel, requests: list[Request], said: str) -> int:
    """Answers given before."""
    count = 0
    with pytest.raises(BudgetError, match=said):
        for count, _ in enumerate(model.generate(requests), 1):  # noqa: B007
            pass
    return count


def test_no_request_beyond_the_budget(server: Server) -> None:
    said = "budget of 7 requests is used up"
    assert until_the_budget_ends(model_of(server, max_requests="7"), many(20), said) == 7
    assert len(server.bodies) == 7


def test_repeated_requests_count(server: Server) -> None:
    server.behave = lambda body, attempt: (500, {}) if attempt < 3 else completion("Yes")
    assert until_the_budget_ends(model_of(server, batch_size=1, max_requests="7"), many(20), "7") == 2
    assert len(server.bodies) == 7


def test_no_token_beyond_the_budget(server: Server) -> None:
    model = model_of(server, max_total_tokens="1000")
    answered = until_the_budget_ends(model, many(200, max_new_tokens=50), "1,000 tokens would be overrun")
    assert 800 < 25 * len(server.bodies) <= 1000 and answered == len(server.bodies)


def test_a_server_that_hides_its_usage_is_counted_at_the_most(server: Server) -> None:
    server.behave = lambda body, attempt: completion("Yes")
    with pytest.raises(BudgetError):
        list(model_of(server, max_total_tokens="1000").generate(many(200, max_new_tokens=100)))
    assert len(server.bodies) <= 10


# From the command line ------------------------------------------------------------------------------------


@pytest.fixture
def bench(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Bench:
    monkeypatch.setattr(registry, "families", lambda: (FAMILY,))
    monkeypatch.setattr(registry, "_included", {})
    return Bench(tmp_path, server, capsys)


def test_a_run_says_that_the_input_is_the_server_s(bench: Bench) -> None:
    assert bench.run() == 0
    assert "|dtype:none|" in bench.result["signature"] and "|inputs:server|" in bench.result["signature"]
    assert bench.result["notes"] == ["served: template and tiling are the server's own"]
    manifest = load_run(bench.result["run"]).manifest
    assert manifest["model"]["inputs"] == "server" and manifest["model"]["engine"] == "server"
    assert manifest["model"]["settings"]["base_url"] == bench.server.url
    assert bench.run("--max-tiles", "4") == 2 and "--max-tiles" in bench.err


def test_a_budget_stops_the_run_and_the_same_command_goes_on(bench: Bench) -> None:
    assert bench.run("--gen", "max_requests=8") == 130
    assert bench.result["status"] == "partial" and bench.result["counts"]["answered"] == 8
    assert "8 of 20 samples are stored" in bench.err
    folder = bench.result["run"]
    assert bench.run("--gen", "max_requests=8") == 130 and bench.result["run"] == folder
    assert bench.run("--gen", "max_requests=9", "--gen", "timeout=7") == 0
    assert bench.result["run"] == folder and bench.result["status"] == "complete"
    assert len(bench.server.bodies) == 20


def test_what_fails_for_good_is_counted(bench: Bench) -> None:
    bench.server.behave = lambda body, attempt: (
        (200, {"choices": []}) if "Is 3 it" in str(body) else completion("Yes")
    )
    assert bench.run("--gen", "attempts=2") == 4
    assert bench.result["counts"]["errors"] == 1 and bench.result["counts"]["answered"] == 19
    bench.server.behave = lambda body, attempt: completion("Yes")
    assert bench.run() == 0 and len(bench.server.bodies) == 22


SECRET = "sk-very/secret+word"


def echo(bench: Bench) -> None:
    """The server puts whatever authenticates the request into everything that it says."""
    statuses = iter([500, 429, 400, 200, 200, 200])

    def behave(body: dict[str, Any], attempt: int) -> Answer:
        said = bench.server.headers[-1].get("Authorization", "")
        plain = base64.b64decode(said[6:]).decode() if said.startswith("Basic ") else said
        status = next(statuses, 200)
        text = f"{said} {plain} {plain.partition(':')[2]}"
        return completion(text) if status == 200 else (status, {"error": " " * 100 + text})

    bench.server.behave = behave


def test_the_key_is_nowhere(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    echo(bench)
    assert bench.run("-v", "--batch-size", "1") == 4
    assert bench.server.headers[-1]["Authorization"] == f"Bearer {SECRET}"
    assert "***" in bench.everything() and SECRET not in bench.everything()
    bench.server.behave = lambda body, attempt: (401, {"error": f"no such key {SECRET}"})
    assert bench.run("-v", "--no-resume") == 3
    assert "HTTP 401" in bench.err and SECRET not in bench.everything()


def test_a_password_in_the_address_is_sent_and_nowhere_else(bench: Bench) -> None:
    echo(bench)
    url = bench.server.url.replace("http://", "http://me:pa%2Fss-word@")
    assert bench.run("-v", "--batch-size", "1", url=url) == 4
    token = base64.b64encode(b"me:pa/ss-word").decode()
    assert bench.server.headers[-1]["Authorization"] == f"Basic {token}"
    written = bench.everything()
    assert "***" in written
    assert not [word for word in ("pa/ss-word", "pa%2Fss-word", "ss-word", token) if word in written]
    bench.server.close()
    assert bench.run("-v", "--no-resume", url=url) == 3
    assert "cannot be reached" in bench.err and "ss-word" not in bench.everything()
    assert bench.run(url=url.replace("http:", "ftp:")) == 2 and "ss-word" not in bench.everything()
    assert bench.run(url=f"{url}?key={SECRET}") == 2 and SECRET not in bench.everything()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gen", "jpeg_quality=101"], "jpeg_quality=101: write a number from 1 to 100"),
        (["--gen", "timeout=nan"], "timeout=nan"),
        (["--gen", "wrokers=3"], "wrokers: no such setting; a served model has jpeg_quality"),
        (["--gen", "send_stop=perhaps"], "write yes or no"),
        (["--dtype", "float16"], "--dtype has no meaning"),
        (["--no-prefix-caching"], "--no-prefix-caching has no meaning"),
        (["--no-sharing"], "--no-prefix-caching has no meaning"),
        (["--devices", "2"], "--engine and --devices have no meaning"),
        (["--checkpoint", "x"], "--checkpoint has no meaning"),
    ],
)
def test_settings_that_cannot_be(arguments: list[str], said: str, bench: Bench) -> None:
    assert bench.run(*arguments) == 2 and said in bench.err
    assert bench.server.bodies == []


def test_a_name_the_server_does_not_list_is_warned_of(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.listed = ["mm", "other"]
    model_of(server)
    assert "does not list this model (nearest: mm" in caplog.text
    for listed in ((404, {}), (500, {}), (200, "nonsense"), None):
        server.listed = listed
        model_of(server)
    server.listed = (401, {"error": "who are you"})
    with pytest.raises(ServerError, match="HTTP 401"):
        model_of(server)


def test_a_base_url_is_needed() -> None:
    with pytest.raises(UsageError, match="needs --base-url"):
        FAMILY.load("openai:m", ModelOptions())
    with pytest.raises(UsageError, match="give the model's name"):
        FAMILY.load("openai:", ModelOptions(base_url="http://localhost/v1"))
    with pytest.raises(UsageError, match="--compile has no meaning"):
        FAMILY.load("openai:m", ModelOptions(base_url="http://localhost/v1", compile=True))


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_that_the_server_tells_apart_is_kept(server: Server, field: str) -> None:
    def behave(body: dict[str, Any], attempt: int) -> tuple[int, object]:
        status, content = completion("yes")
        content["choices"][0]["message"][field] = "because"  # type: ignore[index]
        return status, content

    server.behave = behave
    (response,) = answers(model_of(server), ask("Why?")).values()
    assert (response.text, response.reasoning) == ("yes", "because")


# What the openai package must not do ----------------------------------------------------------------------


def test_nothing_is_sent_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "of-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/of-the-environment")
    answers(model_of(server), ask("q"))
    plain = {"host", "accept", "accept-encoding", "connection", "user-agent"}
    assert [{name.lower() for name in headers} for headers in server.headers] == [
        plain,
        plain | {"content-length", "content-type"},
    ]
    assert "of-the-environment" not in str(server.headers)
    assert {n.lower(): v for n, v in server.headers[-1].items()}["content-type"] == "application/json"


def test_cookies_are_not_kept(server: Server) -> None:
    server.extra = {"Set-Cookie": "session=1; Path=/"}
    answers(model_of(server), *many(3))
    assert not [headers for headers in server.headers if "Cookie" in headers]


def test_proxies_of_the_environment_are_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    options = ModelOptions(base_url="http://nowhere.invalid/v1", extra={"timeout": "5"})
    model = FAMILY.load("openai:m", options)
    assert dict(model.generate([ask("q")]))["a"].text == "Yes"
    assert server.path == "http://nowhere.invalid/v1/chat/completions"


def raw(status: str, body: bytes, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (raw("200 OK", b'"' + b" " * (1 << 23)), "TimeoutError: a reply of more than 4194304 bytes"),
        (raw("200 OK", gzip.compress(b" " * (1 << 26)), Content_Encoding="gzip"), "not JSON: "),
        (raw("500 Broken", b"x" * (1 << 23)), "HTTP 500 Broken: xxx"),
        (raw("500 Broken", b"torn", Content_Length="1000"), "HTTP 500 Broken: torn"),
    ],
    ids=["long", "packed", "long refusal", "torn refusal"],
)
def test_a_body_is_read_within_bounds(reply: bytes, said: str, server: Server) -> None:
    server.behave = lambda body, attempt: reply
    (response,) = answers(model_of(server, attempts="1"), ask("q")).values()
    assert response.error is not None and response.error.message.startswith(said)


@pytest.mark.parametrize(
    ("status", "said"),
    [("200 OK", "TimeoutError: the reply came too slowly"), ("500 Broken", "HTTP 500 Broken")],
)
def test_a_body_that_trickles_is_given_up(status: str, said: str, server: Server) -> None:
    def trickle(request: Any, answer: Answer) -> None:
        request.wfile.write(raw(status, b"", Content_Length="1000"))
        for _ in range(200):
            request.wfile.write(b" ")
            request.wfile.flush()
            time.sleep(0.05)

    model = model_of(server, attempts="1", timeout="0.3")
    server._answer = trickle  # type: ignore[method-assign]
    started = time.monotonic()
    (response,) = answers(model, ask("q")).values()
    assert response.error is not None and response.error.message.startswith(said)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX-Long: "])
def test_headers_that_trickle_are_given_up(start: bytes, server: Server) -> None:
    def trickle(request: Any, answer: Answer) -> None:
        request.wfile.write(start)
        for _ in range(200):
            request.wfile.write(b"a" if start else b"\r\n"[:1])
            request.wfile.flush()
            time.sleep(0.05)

    model = model_of(server, attempts="1", timeout="0.5")
    server._answer = trickle  # type: ignore[method-assign]
    started = time.monotonic()
    (response,) = answers(model, ask("q")).values()
    assert response.error is not None and time.monotonic() - started < 5


def test_half_a_character_is_sent_as_json_writes_it(server: Server) -> None:
    answers(model_of(server), ask("a\ud800b"))
    assert server.bodies[0]["messages"][0]["content"] == "a\ud800b"


def test_without_the_package_it_says_how_to_install_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    assert bench.run() == 2
    needs = f"--base-url: this needs the package openai: {install_command('api')}"
    assert bench.err == f"evalkit: error: {needs}\n"
