"""Thresholds of single metrics: `METRIC=x`, or `TASK:METRIC=x` if the name alone is ambiguous."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from evalkit import registry
from evalkit.comparison.runs import Key
from evalkit.errors import UsageError


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Largest drops by metric pattern (`METRIC`, `TASK:METRIC`, `TASK@SPLIT:METRIC`; globs), in its unit.

    Attributes:
        max_drop: a significant drop larger than this fails.
        margin: fails unless a drop larger than this is excluded.
    """

    max_drop: Mapping[str, float] = field(default_factory=dict)
    margin: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.max_drop or self.margin)

    def of(self, key: Key, metric: str) -> tuple[float | None, float | None]:
        """max_drop and margin of a metric; the last matching pattern counts."""
        return _find(self.max_drop, key, metric), _find(self.margin, key, metric)

    def check(self, known: Iterable[tuple[Key, str]]) -> None:
        """Raises UsageError for a pattern that names no metric of the comparison."""
        pairs = list(known)
        for flag, patterns in (("--max-drop", self.max_drop), ("--margin", self.margin)):
            for pattern in patterns:
                if not any(_matches(pattern, key, metric) for key, metric in pairs):
                    names = dict.fromkeys(metric for _, metric in pairs)
                    hint = registry.nearest(pattern, [*names, *(f"{key.task}:{m}" for key, m in pairs)])
                    raise UsageError(
                        f"{flag} {pattern}: no such metric here{hint}; there are {', '.join(names)}"
                    )


def _matches(pattern: str, key: Key, metric: str) -> bool:
    names = (metric, f"{key.task}:{metric}", f"{key}:{metric}")
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _find(patterns: Mapping[str, float], key: Key, metric: str) -> float | None:
    found = [value for pattern, value in patterns.items() if _matches(pattern, key, metric)]
    return found[-1] if found else None


def parse(items: Iterable[str], flag: str) -> dict[str, float]:
    """`METRIC=x` items, also comma-separated.

    Raises:
        UsageError: no `=`, or x is not a number of 0 or more.
    """
    found: dict[str, float] = {}
    for item in (part.strip() for text in items for part in text.split(",") if part.strip()):
        name, equals, text = item.rpartition("=")
        if not equals or not name.strip():
            raise UsageError(f"{flag} {item}: write METRIC=NUMBER, e.g. {flag} accuracy=0.5")
        found[name.strip()] = number(text, f"{flag} {item}")
    return found


def number(value: object, where: str) -> float:
    """A threshold. Raises UsageError unless it is a finite number of 0 or more."""
    try:
        result = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        result = math.nan
    if not (math.isfinite(result) and result >= 0):
        raise UsageError(f"{where}: write a number of 0 or more, in the metric's unit")
    return result
