"""The form of a request to an OpenAI-compatible server: names of fields, what is left out, what is added.

The same for served models (`--gen`) and judges (`--judge-gen`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evalkit.contracts import Json
from evalkit.errors import UsageError
from evalkit.key_values import choice

#: Settings of generation that a request carries, by the protocol's names.
FIELDS = ("max_tokens", "temperature", "top_p", "seed", "stop")
#: Keys of `RequestForm.parse`.
KEYS = ("token_field", "omit", "extra_body", "extra_headers")

_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
#: What `extra_body` may not set: evalkit sends it, and reads one whole reply.
_OURS = (*FIELDS, "max_completion_tokens", "model", "messages", "stream", "n")
_OF_THE_TRANSPORT = ("host", "content-length", "content-type", "transfer-encoding", "connection")
#: Models that reason before they answer and refuse `max_tokens` and every temperature but their own.
_REASONING = re.compile(r"(?:.*/)?(?:o[1-9]\d*|gpt-5(?:\.\d+)?)(?:-(?!chat).*)?", re.IGNORECASE)
_PRESET = "gpt-5 and o-series"
#: What stands for a secret in a run folder.
HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class RequestForm:
    """How the body and the headers of a request are made.

    Attributes:
        token_field: the field for the longest answer. omit: those of `FIELDS` that are not sent; the
            server's own settings hold in their place.
        extra_body: more fields. extra_headers: more headers; their values are written nowhere.
        preset: which known models the form is of, where their name chose it.
    """

    token_field: str = "max_tokens"
    omit: tuple[str, ...] = ()
    extra_body: Mapping[str, Json] = field(default_factory=dict)
    extra_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    preset: str = ""

    @classmethod
    def parse(cls, model: str, given: Mapping[str, str], flag: str = "--gen") -> RequestForm:
        """From KEY=VALUE, over what is known of the model by its name.

        Raises:
            UsageError: a value that cannot be; one of a header is not repeated.
        """
        reasons = _REASONING.fullmatch(model) is not None
        omit: tuple[str, ...] = ("temperature", "top_p", "stop") if reasons else ()
        if "omit" in given:
            omit = _omitted(given["omit"], flag)
        wanted = given.get("token_field", _TOKEN_FIELDS[reasons])
        return cls(
            choice(f"{flag} token_field", wanted, _TOKEN_FIELDS),
            omit,
            _extra_body(given.get("extra_body"), omit, flag),
            _extra_headers(given.get("extra_headers"), flag),
            _PRESET if reasons else "",
        )

    def body(self, model: str, messages: Sequence[Json], settings: Mapping[str, Json]) -> dict[str, Json]:
        """What is sent. `settings` has values of `FIELDS`."""
        body: dict[str, Json] = {"model": model, "messages": messages}
        for name, value in settings.items():
            if name not in self.omit:
                body[self.token_field if name == "max_tokens" else name] = value
        return {**body, **self.extra_body}

    def to_json(self) -> dict[str, Json]:
        """What is not the protocol's usual, for the manifest; of headers the names alone."""
        content: dict[str, Json] = {}
        if self.preset:
            content = {"preset": self.preset, "token_field": self.token_field}
        if self.omit:
            content["omit"] = list(self.omit)
        if self.extra_body:
            content["extra_body"] = dict(self.extra_body)
        if self.extra_headers:
            content["extra_headers"] = sorted(self.extra_headers)
        return content

    def fix(self, said: str, flag: str) -> str:
        """What to add to an error of a server that does not know a field; empty where it is another."""
        if self.token_field == "max_tokens" and "max_completion_tokens" in said:
            return f"; give {flag} token_field=max_completion_tokens"
        if not re.search(r"unsupported|not support|unknown|unrecogni|extra inputs", said, re.IGNORECASE):
            return ""
        names = [name for name in FIELDS if name not in self.omit and re.search(rf"\b{name}\b", said)]
        return f"; {flag} omit={','.join((*self.omit, *names))} leaves it out" if names else ""


def without_secrets(items: Sequence[str]) -> tuple[str, ...]:
    """KEY=VALUE items as run folders may hold them: the values of headers are hidden, `$NAME` is none."""
    return tuple(map(_without_secret, items))


def _without_secret(item: str) -> str:
    name, _, text = item.partition("=")
    if name.strip().replace("-", "_") != "extra_headers":
        return item
    try:
        headers = json.loads(text)
        kept = {key: value if _is_variable(value) else HIDDEN for key, value in headers.items()}
    except (ValueError, AttributeError, RecursionError):
        return f"{name}={HIDDEN}"
    return f"{name}={json.dumps(kept)}"


def _is_variable(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\$[A-Za-z_]\w*", value) is not None


def _omitted(text: str, flag: str) -> tuple[str, ...]:
    names = re.sub(r"[\[\]\"']", "", text).split(",")  # a list from Python or TOML comes as JSON
    others = {"max_completion_tokens": "max_tokens", "max_new_tokens": "max_tokens"}
    chosen = tuple(others.get(name, name) for part in names if (name := part.strip()))
    for name in chosen:
        if name not in FIELDS:
            raise UsageError(f"{flag} omit={name}: there are {', '.join(FIELDS)}")
    return tuple(dict.fromkeys(chosen))


def _extra_body(text: str | None, omit: Sequence[str], flag: str) -> dict[str, Json]:
    fields = _object(text, f"{flag} extra_body", 'extra_body={"top_k": 1}')
    for name in fields:
        if name in _OURS and name not in omit:
            known = name in FIELDS or name == "max_completion_tokens"
            own = "max_new_tokens" if name.startswith("max_") else name
            fix = f"set it by {flag} {own}=…" if known else "leave it out"
            raise UsageError(f"{flag} extra_body: {name} is evalkit's own field; {fix}")
    return fields


def _extra_headers(text: str | None, flag: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in _object(text, f"{flag} extra_headers", 'extra_headers={"X-Team": "$TEAM"}').items():
        where = f"{flag} extra_headers: {name}"
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise UsageError(f"{flag} extra_headers: a name that no header has")
        if name.lower() in _OF_THE_TRANSPORT:
            raise UsageError(f"{where} is up to the connection; leave it out")
        if not isinstance(value, str):
            raise UsageError(f"{where}: its value must be a text")
        if _is_variable(value):
            if not (found := os.environ.get(value[1:], "").strip()):
                raise UsageError(f"{where}: the environment variable {value[1:]} is not set")
            value = found
        if value == HIDDEN:
            raise UsageError(
                f"{where}: its value is kept in no run folder; give it anew, or name a variable "
                f'({{"{name}": "$VARIABLE"}}), which is kept'
            )
        if not (value.isascii() and value.isprintable()):
            raise UsageError(f"{where}: its value holds characters that no header has")
        headers[name] = value
    return headers


def _object(text: str | None, where: str, example: str) -> dict[str, Json]:
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UsageError(f"{where}: not a JSON object; write {example}, in single quotes in a shell")
    return content
