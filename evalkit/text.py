"""Foreign text made safe to show: a model's answer may hold anything, terminal commands included."""

from __future__ import annotations

import re

# C0 and C1 controls but tab and newline, bidirectional overrides, zero-width marks, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with every character that could steer a terminal written as its escape; lines are kept."""
    return _UNSAFE.sub(lambda match: _escape(match.group()), text)


def one_line(text: str, width: int = 0) -> str:
    """`visible` on one line, cut to `width` characters (0: not cut)."""
    line = visible(text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", " "))
    return f"{line[: width - 1]}…" if 0 < width < len(line) else line


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
