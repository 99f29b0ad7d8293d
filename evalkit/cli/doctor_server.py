"""`evalkit doctor --base-url URL`: asks a server what it can do, and says what will differ."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from evalkit.key_values import split_items
from evalkit.request_form import RequestForm
from evalkit.text import one_line

if TYPE_CHECKING:
    from evalkit.openai_client import ChatApi
    from evalkit.openai_reply import Completion

OK, MISSING, BROKEN = "ok", "missing", "broken"


class Finding(NamedTuple):
    """One line: what was checked, its state, what was found, and the fix if there is one to make."""

    what: str
    state: str
    found: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """For `--json`, where the fix is called `mend`."""
        return {"what": self.what, "state": self.state, "found": self.found, "mend": self.fix}


#: The variable of a served model's key.
KEY_VARIABLES = ("OPENAI_API_KEY",)
_TIMEOUT = 120.0
_QUESTION = "Count from one to ten in words."


def server_findings(url: str, model: str | None) -> Iterator[Finding]:
    """Check a server with about ten short requests.

    Args:
        model: its name there, with or without `openai:`; None takes the first that the server lists.

    Raises:
        UsageError: the address or the key cannot be.
    """
    from evalkit.errors import ServerError, UsageError
    from evalkit.openai_client import ChatApi, find_key

    try:
        api = ChatApi(url, find_key(KEY_VARIABLES), _TIMEOUT)
    except ServerError as error:
        raise UsageError(f"--base-url: {error}") from None
    listed = _try(api.models)
    if isinstance(listed, str):
        yield Finding(
            "models", MISSING, f"no list ({listed})", "" if model else "give its name: --model NAME"
        )
    elif listed:
        yield Finding("models", OK, ", ".join(listed[:5]) + (", …" if len(listed) > 5 else ""))
    else:
        yield Finding("models", MISSING, "the list is empty", "" if model else "give its name: --model NAME")
    name = (
        model.removeprefix("openai:") if model else listed[0] if isinstance(listed, list) and listed else None
    )
    if name is None:
        yield Finding(
            "chat", BROKEN, "not checked: no model name", "evalkit doctor --base-url URL --model NAME"
        )
        return
    yield from _Visit(api, name).findings()


def _try(ask: Callable[[], Any], attempts: int = 2) -> Any:
    """What `ask` returns, or what went wrong as a line."""
    from evalkit.openai_reply import HopelessError, RefusedError, TryAgainError

    trouble = ""
    for _ in range(attempts):
        try:
            return ask()
        except (HopelessError, RefusedError) as error:  # noqa: PERF203
            return str(error)
        except TryAgainError as error:
            trouble = str(error)
    return trouble


class _Visit:
    """Questions to one model of a server."""

    def __init__(self, api: ChatApi, model: str) -> None:
        self._api = api
        self._model = model
        self._form = RequestForm.parse(model, {})

    def findings(self) -> Iterator[Finding]:
        """One finding for each thing that evalkit may ask of a server."""
        plain = self._ask(_QUESTION, 24)
        given = ""
        if isinstance(plain, str) and (given := self._form.fix(plain, "--gen").partition("--gen ")[2]):
            given = given.split()[0]
            self._form = RequestForm.parse(self._model, split_items([given]))
            plain = self._ask(_QUESTION, 24)
        if isinstance(plain, str):
            yield Finding("chat", BROKEN, plain, "check --base-url, --model and OPENAI_API_KEY")
            return
        fix = f"evalkit run … --gen {given}" if given else ""
        yield Finding("chat", OK, f"answers: {one_line(plain.text, 40)!r}", fix)
        yield self._usage(plain)
        yield self._images("image", 1)
        yield self._images("several images", 2)
        yield self._stop(plain)
        yield self._greedy(plain)
        yield self._seed()
        yield self._logprobs()
        yield Finding(
            "differs", OK, "the server applies its own template and tiling: signatures say inputs:server"
        )
        yield Finding(
            "differs", OK, "--max-tiles, beam search and a minimum length cannot be sent, and are refused"
        )

    def _ask(self, content: Any, tokens: int, **more: Any) -> Completion | str:
        """A completion, or what went wrong as a line."""
        answer: Completion | str = _try(lambda: self._api.complete(self._body(content, tokens, more)))
        return answer

    def _body(self, content: Any, tokens: int, more: Mapping[str, Any]) -> dict[str, Any]:
        said = [{"role": "user", "content": content}]
        settings = {"temperature": 0.0, "max_tokens": tokens, **more}
        return self._form.body(self._model, said, settings)

    def _usage(self, plain: Completion) -> Finding:
        if plain.prompt_tokens is None or plain.new_tokens is None:
            return Finding("usage", MISSING, "not reported: token budgets count each request at its maximum")
        return Finding("usage", OK, f"{plain.prompt_tokens} prompt and {plain.new_tokens} new tokens")

    def _images(self, what: str, count: int) -> Finding:
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _image(shade)}} for shade in range(count)
        ]
        answer = self._ask([*parts, {"type": "text", "text": "What is shown?"}], 8)
        if isinstance(answer, str):
            return Finding(what, MISSING, answer, "tasks with images will fail; is it an image-text model?")
        tokens = f", {answer.prompt_tokens} prompt tokens" if answer.prompt_tokens is not None else ""
        return Finding(what, OK, f"accepted as a data URL (PNG){tokens}")

    def _stop(self, plain: Completion) -> Finding:
        mark = plain.text[2:4] or "ten"
        fix = "evalkit run … --gen send_stop=no; answers are still cut at the stop texts"
        answer = self._ask(_QUESTION, 24, stop=[mark])
        if isinstance(answer, str):
            return Finding("stop", MISSING, answer, fix)
        if mark in answer.text:
            return Finding("stop", MISSING, "accepted and not honoured", fix)
        if mark not in plain.text:
            return Finding("stop", OK, "accepted; the answer is too short to show whether it is honoured")
        return Finding("stop", OK, "honoured")

    def _greedy(self, plain: Completion) -> Finding:
        again = self._ask(_QUESTION, 24)
        if isinstance(again, str):
            return Finding("greedy", MISSING, again)
        if again.text == plain.text:
            return Finding("greedy", OK, "the same question twice gave the same answer")
        return Finding("greedy", MISSING, "the same question twice gave two answers: runs will differ")

    def _seed(self) -> Finding:
        drawn = [self._ask(_QUESTION, 12, temperature=1.0, seed=7) for _ in range(2)]
        trouble = next((answer for answer in drawn if isinstance(answer, str)), None)
        if trouble is not None:
            return Finding("seed", MISSING, trouble)
        texts = {answer.text for answer in drawn if not isinstance(answer, str)}
        if len(texts) == 1:
            return Finding("seed", OK, "the same seed twice gave the same answer")
        return Finding(
            "seed", MISSING, "the same seed twice gave two answers: sampled runs cannot be repeated"
        )

    def _logprobs(self) -> Finding:
        body = self._body(_QUESTION, 4, {"logprobs": True})
        found = _try(lambda: self._api.raw(body))
        if isinstance(found, str):
            return Finding("logprobs", MISSING, found, "evalkit needs none")
        try:
            there = bool(found["choices"][0]["logprobs"])
        except (LookupError, TypeError):
            there = False
        return Finding(
            "logprobs",
            OK if there else MISSING,
            "reported" if there else "not reported",
            "evalkit needs none",
        )


def _image(shade: int) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.linear_gradient("L").rotate(90 * shade).resize((56, 56)).convert("RGB").save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
