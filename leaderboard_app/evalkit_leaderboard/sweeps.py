"""What `evalkit train sweep` wrote: scores of every point, and what it says of each against the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import RunFolderError
from evalkit.store.atomic import read_json

RESULT = "sweep.json"
#: The setting whose values are repeats of a point, not points.
_SEED = "seed"

#: What a point is against the first, which is the base.
KINDS = ("base", "improved", "regressed", "no evidence", "not tested")

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """A task's metric at one point of a sweep.

    Attributes:
        x: value of the setting that was varied, where it is one and a number.
        ci95, difference_ci95: 95% intervals. runs: value of each seed.
        difference: against the first point. p: Holm's, over all points and tasks.
        verdict: what the sweep says of the difference, or why it says nothing.
    """

    label: str
    x: float | None
    value: float | None
    ci95: Interval | None
    runs: tuple[float | None, ...]
    difference: float | None
    difference_ci95: Interval | None
    p: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Scores:
    """A task's metric at every point."""

    task: str
    metric: str
    unit: str
    n: int
    points: tuple[SweepPoint, ...]

    @property
    def name(self) -> str:
        """`drivelm@val: final_score`."""
        return f"{self.task}: {self.metric}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep.

    Attributes:
        setting: what was varied, in words. base: label of the point that the others are set against.
        notes: what readers must know, failures first.
    """

    setting: str
    base: str
    scores: tuple[Scores, ...]
    notes: tuple[str, ...]


def read_sweep(path: Path) -> Sweep:
    """Read a sweep's result.

    Raises:
        RunFolderError: it is missing or broken, or not as `evalkit train sweep` writes it.
    """
    try:
        return _sweep(read_json(path))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunFolderError(
            f"{path}: not as `evalkit train sweep` writes it ({said}); give the command again"
        ) from None


def _sweep(content: Mapping[str, Any]) -> Sweep:
    keys = [_text(key) for key in content["varied"] if key != _SEED]
    values = {_text(point["label"]): point["values"] for point in content["points"]}
    numeric = (
        keys[0] if len(keys) == 1 and all(_is_number(own.get(keys[0])) for own in values.values()) else None
    )
    trainings = [training for point in content["points"] for training in point["trainings"]]
    failures = [_text(training["failure"]) for training in trainings if training["failure"] is not None]
    return Sweep(
        ", ".join(keys) or _SEED,
        _text(content["base"]),
        tuple(_scores(scores, values, numeric) for scores in content["scores"]),
        (*failures, *map(_text, content["notes"])),
    )


def _scores(
    content: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]], numeric: str | None
) -> Scores:
    points = tuple(_point(point, values, numeric) for point in content["points"])
    task = f"{_text(content['task'])}@{_text(content['split'])}"
    return Scores(task, _text(content["metric"]), _text(content["unit"]), int(_number(content["n"])), points)


def _point(
    content: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]], numeric: str | None
) -> SweepPoint:
    label = _text(content["label"])
    verdict = content["verdict"] or content["reason"] or ""
    return SweepPoint(
        label,
        None if numeric is None else _number(values[label][numeric]),
        _optional(content["value"]),
        _interval(content["ci95"]),
        tuple(_optional(run) for run in content["runs"]),
        _optional(content["difference"]),
        _interval(content["difference_ci95"]),
        _optional(content["p_adjusted"]),
        _text(verdict).replace("_", " "),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> float:
    if not _is_number(value):
        raise TypeError(f"{value!r:.60} is no number")
    return float(value)


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)


def _interval(value: Any) -> Interval | None:
    if value is None:
        return None
    low, high = map(_number, value)
    return low, high


def header(sweep: Sweep) -> tuple[str, ...]:
    """Titles of `cells`."""
    return "point", "value, 95% interval", f"against {sweep.base}", "p (Holm)", "verdict"


def cells(point: SweepPoint) -> list[str]:
    """A row as `sweep.md` has it."""
    seeds = f" ({len(point.runs)} seeds)" if len(point.runs) > 1 else ""
    value = "-" if point.value is None else f"{point.value:.4g}"
    change = (
        "" if point.difference is None else f"{point.difference:+.4g}{_shown(point.difference_ci95, '+')}"
    )
    p = "" if point.p is None else "< 0.001" if point.p < 0.001 else f"{point.p:.3f}"
    return [point.label, f"{value}{_shown(point.ci95)}{seeds}", change, p, point.verdict]


def _shown(ends: Interval | None, sign: str = "") -> str:
    return "" if ends is None else f" [{', '.join(f'{end:{sign}.4g}' for end in ends)}]"


def notes(sweep: Sweep, scores: Scores) -> list[str]:
    """What is said below the table."""
    return [
        f"{scores.n:,} samples; p values are Holm's over all points and tasks of the sweep.",
        *sweep.notes,
    ]


def drawn(scores: Scores) -> Sequence[SweepPoint]:
    """The points that a plot has a mark for."""
    return [point for point in scores.points if point.value is not None]


def kind_of(scores: Scores, point: SweepPoint) -> str:
    """What the sweep says of a point, one of `KINDS`."""
    if point == scores.points[0]:
        return "base"
    return point.verdict if point.verdict in KINDS else "not tested"
