"""JSON arrays read element by element from a text stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from evalkit.data import strict_json

_SPACE = re.compile(r"[ \t\r\n]*")
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
#: What may go on a number; an empty text is in it.
_NUMBER = "0123456789.eE+-"
CHUNK = 1 << 20


class JsonStream:
    """A position in a JSON text of which only a window is in memory.

    All methods raise ValueError where the text is not JSON of the expected form, or ambiguous (strict_json).
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._tried = False
        self._decoder = strict_json.decoder()
        self._names: set[object] = set()

    def enter(self, key: str) -> bool:
        """Move into an object up to the value of `key`; False where the object has none."""
        self._expect("{")
        return self._members(key)

    def leave(self, inside: bool) -> None:
        """Read from the end of the array to the end of the text, after which nothing may follow.

        Args:
            inside: after `enter`; the object's other members are passed over.
        """
        self._expect("]")
        if inside:
            self._skip_comma("}")
            self._members(None)
            self._expect("}")
        if found := self._peek():
            raise ValueError(f"{found!r} after the end")

    def _members(self, wanted: str | None) -> bool:
        """Pass over members up to the value of the one wanted."""
        while self._peek() != "}":
            name = self._value()
            if name in self._names:
                raise strict_json.AmbiguousJson(f"key {name!r} occurs twice")
            self._names.add(name)
            self._expect(":")
            if name == wanted:
                return True
            self._value()
            self._skip_comma("}")
        return False

    def array(self) -> Iterator[Any]:
        """Yield the elements of the array that begins here."""
        self._expect("[")
        while self._peek() != "]":
            yield from self._window() or [self._value()]
            self._skip_comma("]")

    def _window(self) -> list[Any]:
        """All elements up to the last `}` in memory at once, which is fast; none where no element ends there.

        A cut inside a text or an object leaves it open, so it does not parse. Tried once for each window.
        """
        end = self._text.rfind("}", self._at) + 1
        if self._tried or end <= self._at:
            return []
        self._tried = True
        try:
            elements: list[Any] = self._decoder.decode(f"[{self._text[self._at : end]}]")
        except json.JSONDecodeError:
            return []
        self._at = end
        return elements

    def _fill(self) -> bool:
        """Read on, at least doubling what is unread; False at the end of the text."""
        more = self._file.read(max(CHUNK, len(self._text) - self._at))
        self._text = self._text[self._at :] + more
        self._at = 0
        self._tried = False
        return bool(more)

    def _peek(self) -> str:
        """The next character that is not blank; empty at the end of the text."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def _expect(self, character: str) -> None:
        found = self._peek()
        if found != character:
            raise ValueError(f"{character!r} expected, found {found!r}" if found else "truncated")
        self._at += 1

    def _skip_comma(self, closing: str) -> None:
        comma = _COMMA.match(self._text, self._at)
        if comma is not None and comma.end() < len(self._text):
            self._at = comma.end()
        elif self._peek() != closing:
            self._expect(",")

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._fill():
                    raise ValueError("truncated" if error.pos >= len(self._text) else error.msg) from None
                continue
            # A number at the window's edge may go on beyond it.
            if self._text[end : end + 1] not in _NUMBER or not self._fill():
                self._at = end
                return value
