"""What is said of a name that nobody knows: the nearest of those that are known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from evalkit.errors import UsageError


def nearest(name: str, known: Iterable[str]) -> str:
    """` (nearest: a, b)` for an error text, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" (nearest: {', '.join(close)})" if close else ""


def unknown_setting(flag: str, name: str, known: Iterable[str], who: str) -> UsageError:
    """What is said of a setting that `who` does not have; `known` are those that it has."""
    names = list(known)
    return UsageError(f"{flag} {name}: no such setting{nearest(name, names)}; {who} has {', '.join(names)}")
