"""The options of a comparison: each is one entry here, and stands nowhere else.

Made from the entries: flags of `evalkit compare`, `check`, `plan` and `history` with their help and
environment variables, keywords of `evalkit.compare`, keys of a policy file, and a table in docs/comparing.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evalkit.errors import UsageError
from evalkit.pipeline.options import comma_list, option, options_of

Undecided = Literal["pass", "fail"]
#: `METRIC=x` texts, or numbers by metric.
Limits = Mapping[str, float] | Sequence[str]

#: Resamples of a comparison; a small level over many tasks takes more.
RESAMPLES = 10_000


def limits(items: Iterable[str], flag: str) -> dict[str, float]:
    """`METRIC=x` items, also comma-separated.

    Raises:
        UsageError: no `=`, or x is not a number of 0 or more.
    """
    found: dict[str, float] = {}
    for item in (part.strip() for text in items for part in text.split(",") if part.strip()):
        name, equals, text = item.rpartition("=")
        if not equals or not name.strip():
            raise UsageError(f"{flag} {item}: write METRIC=NUMBER, e.g. {flag} accuracy=0.5")
        found[name.strip()] = limit(text, f"{flag} {item}")
    return found


def limit(value: object, where: str) -> float:
    """A threshold. Raises UsageError unless it is a finite number of 0 or more."""
    try:
        result = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not (math.isfinite(result) and result >= 0):
        raise UsageError(f"{where}: write a number of 0 or more, in the metric's unit")
    return result


def _limits(flag: str) -> Callable[[Limits], dict[str, float]]:
    """Reads thresholds. Raises UsageError."""

    def read(value: Limits) -> dict[str, float]:
        if isinstance(value, Mapping):
            return {metric: limit(bound, f"{flag} {metric}") for metric, bound in value.items()}
        return limits(value, flag)

    return read


def as_level(value: float) -> float:
    """A significance level. Raises UsageError: it is none."""
    if isinstance(value, bool) or not 0 < value < 1:
        raise UsageError(f"--alpha {value:g}: write a level between 0 and 1, e.g. 0.05")
    return value


def _names(value: str | Iterable[str]) -> tuple[str, ...]:
    return comma_list([value] if isinstance(value, str) else list(value))


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """What a comparison demands, and of what it may make light."""

    max_drop: Limits = option(
        "call", (), "Fail if METRIC drops significantly and by more than X, in its unit; repeatable.",
        metavar="METRIC=X", parse=_limits("--max-drop"),
    )  # fmt: skip
    margin: Limits = option(
        "call", (), "Fail unless a drop of METRIC by more than X is excluded; repeatable.",
        metavar="METRIC=X", parse=_limits("--margin"),
    )  # fmt: skip
    alpha: float = option(
        "call",
        0.05,
        "Significance level, over all metrics that are judged.",
        metavar="LEVEL",
        parse=as_level,
    )
    allow: Sequence[str] = option(
        "call", (), "A field of the signature that may differ; repeatable.", metavar="FIELD", parse=_names
    )
    speed: bool = option("call", False, "Judge the model's time per sample too.")
    undecided: Undecided | None = option("call", None, "What exit status 5, undecided, becomes: 0 or 1.")
    seed: int = option("call", 0, "Seed of the resampling.", metavar="N")
    resamples: int = option("call", RESAMPLES, "Resamples of the test, at least 100.", metavar="N")

    @property
    def largest_drops(self) -> dict[str, float]:
        """`max_drop` as numbers by metric. Raises UsageError."""
        return _limits("--max-drop")(self.max_drop)

    @property
    def margins(self) -> dict[str, float]:
        """`margin` as numbers by metric. Raises UsageError."""
        return _limits("--margin")(self.margin)

    @property
    def allowed(self) -> tuple[str, ...]:
        """`allow` as names."""
        return _names(self.allow)

    def check(self) -> None:
        """Raises UsageError for values that cannot be."""
        for name, entry in options_of(type(self)).items():
            value = getattr(self, name)
            if entry.option.parse is not None:
                entry.option.parse(value)
            if entry.choices and value not in (None, *entry.choices):
                raise UsageError(f"{entry.flag} {value}: there are {', '.join(entry.choices)}")
        if self.resamples < 100:
            raise UsageError(f"--resamples {self.resamples}: give at least 100")
