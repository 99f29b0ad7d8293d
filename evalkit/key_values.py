"""KEY=VALUE settings as a user writes them: split, and read as numbers or choices within bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

from evalkit.contracts import Json
from evalkit.errors import UsageError

N = TypeVar("N", int, float)


def split_items(items: Sequence[str], flag: str = "--gen") -> dict[str, str]:
    """KEY=VALUE items as a mapping, the last of a key.

    Raises:
        UsageError: no `=`.
    """
    found: dict[str, str] = {}
    for item in items:
        name, equals, text = item.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            shown = "extra_headers" if "header" in item.lower() else item  # it may hold a secret
            raise UsageError(f"{flag} {shown}: write KEY=VALUE")
        found[name] = text
    return found


def as_items(value: Mapping[str, Json] | Sequence[str]) -> tuple[str, ...]:
    """A mapping as KEY=VALUE items, as on the command line: mappings and lists in it become JSON."""
    if isinstance(value, Mapping):
        return tuple(f"{name}={_text(setting)}" for name, setting in value.items())
    return tuple(value)


def _text(setting: Json) -> str:
    return json.dumps(setting) if isinstance(setting, (Mapping, list, tuple)) else str(setting)


def number(name: str, text: str, kind: type[N], least: N, most: N) -> N:
    """The number; `name` is what it was given to, as `--gen timeout`.

    Raises:
        UsageError: none, or out of bounds.
    """
    try:
        value = kind(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise UsageError(f"{name}={text}: write a number from {least:g} to {most:g}")
    return value


def choice(name: str, text: str, known: Sequence[str]) -> str:
    """The text, which must be one of those known. Raises UsageError otherwise."""
    if text not in known:
        raise UsageError(f"{name}={text}: write {' or '.join(known)}")
    return text
