"""JSON without ambiguity: a key that occurs twice and a number that is not finite are refused.

Python's own reader takes the last of two equal keys, reads `1e999` as infinity, and accepts `NaN`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

_SHOWN = 40
#: A longer whole number is beyond the range of floats.
_DIGITS = 308


class AmbiguousJson(ValueError):
    """JSON text whose value is not certain; the message says what is wrong, without the place."""


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        AmbiguousJson: a key that occurs twice in an object, `NaN`, `Infinity`, a number beyond the range of
            floats, or one of more digits than Python converts.
        json.JSONDecodeError: not JSON. UnicodeDecodeError: bytes that are not UTF-8. RecursionError: nested
            too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    return _DECODER.decode(text)


def decoder() -> json.JSONDecoder:
    """A decoder with the rules of `loads`, for texts read piece by piece."""
    return json.JSONDecoder(
        object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_no_number
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        name = twice([name for name, _ in pairs]) or ""
        first, value = pairs[0]
        raise AmbiguousJson(
            f"key {name!r} occurs twice in the object that begins with {first!r}: {repr(value)[:_SHOWN]}"
        )
    return made


def twice(names: Sequence[str]) -> str | None:
    """The first name that occurs a second time, or None; empty names are not compared."""
    seen = set[str]()
    for name in names:
        if name in seen:
            return name
        if name:
            seen.add(name)
    return None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise AmbiguousJson(f"the number {text[:_SHOWN]} is not finite")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise AmbiguousJson(f"a number of {len(text)} digits ({text[:12]}…)")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise AmbiguousJson(f"{text} is not a number of JSON")


_DECODER = decoder()
