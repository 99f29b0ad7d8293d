"""Altair charts; every text in them is drawn, never interpreted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import pandas as pd

from evalkit.text import one_line
from evalkit_leaderboard import theme
from evalkit_leaderboard.exports import MEASURED, PUBLISHED
from evalkit_leaderboard.matrix import Column, Row
from evalkit_leaderboard.numbers import magnitude
from evalkit_leaderboard.sweeps import KINDS, Scores, drawn, kind_of

Chart = alt.LayerChart | alt.FacetChart
Align = Literal["left", "right"]

#: An axis that names every row.
_NAMES = alt.Axis(title=None, labelLimit=220, labelOverlap=False)
#: Pixels of height of the plot of sizes and of a line of text in it; a letter in parts of a laptop's width.
_HEIGHT, _LINE, _LETTER = 380, 14, 0.006
#: With more points than these, only those on the Pareto front have their names beside them.
_NAMED = 40


@dataclass(frozen=True, slots=True)
class Point:
    """A row in the plot of score against size."""

    label: str
    published: bool
    parameters: int
    value: float


def _dressed(chart: Chart, description: str) -> Chart:
    """Labels in colours that can be read on the page's ground, and what screen readers say of it."""
    colours = theme.palette()
    texts: dict[str, str | int] = {"labelColor": colours.text, "titleColor": colours.muted}
    texts |= {"labelFontSize": 12, "titleFontSize": 12}
    lines = {"gridColor": colours.line, "domainColor": colours.line, "tickColor": colours.line}
    dressed: Chart = chart.properties(description=description).configure(
        axis={**texts, **lines}, legend=texts
    )
    return dressed


def size_point(row: Row, column: Column | None) -> Point | None:
    """The row's point (column None: the average), or None where it has no ranked one."""
    if column is None:
        fitting = row.average is not None and (row.published or row.average.whole)
        value = row.average.value if row.average is not None and fitting else None
    else:
        cell = row.cells.get(column)
        value = cell.value if cell is not None and cell.ranked else None
    if value is None or not row.parameters:
        return None
    return Point(one_line(row.label, 60), row.published, row.parameters, value)


def pareto(points: Sequence[Point], higher_is_better: bool) -> list[Point]:
    """Points that no smaller or equal one beats, by size."""
    sign = 1.0 if higher_is_better else -1.0
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.parameters, -sign * point.value)):
        if not front or sign * point.value > sign * front[-1].value:
            front.append(point)
    return front


def sizes(points: Sequence[Point], title: str, higher_is_better: bool) -> Chart:
    """Score against parameters on a logarithmic axis, with the Pareto front."""
    colours = theme.palette()
    frame = pd.DataFrame(
        {
            "model": point.label,
            "kind": PUBLISHED if point.published else MEASURED,
            "parameters": point.parameters,
            "size": magnitude(point.parameters),
            "score": point.value,
        }
        for point in points
    )
    best = pareto(points, higher_is_better)
    front = pd.DataFrame({"parameters": point.parameters, "score": point.value} for point in best)
    x = alt.X(
        "parameters:Q",
        scale=alt.Scale(type="log", padding=25),
        axis=alt.Axis(
            title="parameters", format="~s", labelExpr="replace(datum.label, 'G', 'B')", tickCount=6
        ),
    )
    y = alt.Y("score:Q", scale=alt.Scale(zero=False, padding=20), axis=alt.Axis(title=one_line(title, 60)))
    base = alt.Chart(frame).encode(x=x, y=y)
    dots = base.mark_point(size=110, filled=True, opacity=0.95).encode(
        color=alt.Color(
            "kind:N",
            scale=alt.Scale(domain=[MEASURED, PUBLISHED], range=[colours.series[0], colours.series[1]]),
            legend=alt.Legend(title=None, orient="top", columns=2, labelLimit=300),
        ),
        shape=alt.Shape("kind:N", scale=alt.Scale(domain=[MEASURED, PUBLISHED], range=["circle", "diamond"])),
        tooltip=["model:N", "kind:N", "size:N", "score:Q"],
    )
    named = points if len(points) <= _NAMED else best
    names = [
        base.transform_filter(alt.FieldOneOfPredicate("model", labels))
        .mark_text(align=align, dx=dx, dy=-9, fontSize=11, color=colours.text)
        .encode(text="model:N")
        for (align, dx), labels in labels_beside(named).items()
        if labels
    ]
    line = (
        alt.Chart(front)
        .mark_line(interpolate="step-after", strokeDash=[5, 4])
        .encode(x=x, y=y, color=alt.value(colours.muted))
    )
    words = f"{one_line(title, 60)} against parameters of {len(points)} models; the table has the values"
    return _dressed(alt.layer(line, dots, *names).properties(height=_HEIGHT), words)


def labels_beside(points: Sequence[Point]) -> dict[tuple[Align, int], list[str]]:
    """Labels by the side of their point: the right, or the left where that is free and this is not."""
    sides: tuple[tuple[Align, int], ...] = (("left", 5), ("right", -5))
    found: dict[tuple[Align, int], list[str]] = {side: [] for side in sides}
    logs = [math.log10(point.parameters) for point in points]
    values = [point.value for point in points]
    width = (max(logs) - min(logs)) or 1.0
    height = (max(values) - min(values)) or 1.0
    taken: list[tuple[float, float, float]] = []
    for point, log in sorted(zip(points, logs, strict=True), key=lambda pair: -pair[0].value):
        x, y = (log - min(logs)) / width, (point.value - min(values)) / height * _HEIGHT
        length = _LETTER * len(point.label)
        spans = [(x, x + length), (x - length, x)]
        free = [
            side
            for side, (start, end) in zip(sides, spans, strict=True)
            if end < 1.05 and start > -0.05 and not any(_meet(start, end, y, other) for other in taken)
        ]
        side = free[0] if free else sides[0]
        found[side].append(point.label)
        taken.append((*spans[sides.index(side)], y))
    return found


def _meet(start: float, end: float, y: float, other: tuple[float, float, float]) -> bool:
    return start < other[1] and other[0] < end and abs(y - other[2]) < _LINE


def story(points: Sequence[Point], yardstick: str) -> str:
    """What share of the yardstick's average the best small model keeps, and at what share of its size."""
    large = next((point for point in points if point.label == yardstick), None)
    if large is None:
        return ""
    small = [point for point in points if point.parameters <= 0.1 * large.parameters]
    if not small:
        return ""
    best = max(small, key=lambda point: point.value)
    return (
        f"{best.label} ({PUBLISHED if best.published else MEASURED}) has "
        f"{100 * best.parameters / large.parameters:.1f}% of the parameters of {yardstick} and "
        f"{100 * best.value / large.value:.1f}% of its Avg. Score. The dashed line is the Pareto front."
    )


def intervals(rows: Sequence[Mapping[str, Any]], unit: str) -> Chart:
    """Values with their intervals; rows have label, kind, value, low, high."""
    colours = theme.palette()
    frame = pd.DataFrame(list(rows), columns=["label", "kind", "value", "low", "high"])
    y = alt.Y("label:N", sort=list(frame["label"]), axis=_NAMES)
    kinds = [MEASURED, PUBLISHED]
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=kinds, range=[colours.series[0], colours.series[1]]),
        legend=alt.Legend(title=None, orient="top", columns=2, labelLimit=300),
    )
    base = alt.Chart(frame).encode(y=y, color=colour)
    rules = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=unit, axis=alt.Axis(tickCount=8)), x2="high:Q"
    )
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=alt.X("value:Q", title=unit, scale=alt.Scale(zero=False)),
        shape=alt.Shape("kind:N", scale=alt.Scale(domain=kinds, range=["circle", "diamond"])),
        tooltip=["label:N", "kind:N", "value:Q", "low:Q", "high:Q"],
    )
    words = f"Values of {len(frame)} models with their 95% intervals, {unit}; the table has them"
    return _dressed(alt.layer(rules, dots).properties(height=110 + 26 * len(frame)), words)


def coverage(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Shares of intervals that hold the value, beside the 95% that they promise; rows as of `intervals`."""
    colours = theme.palette()
    frame = pd.DataFrame(list(rows), columns=["label", "value", "low", "high"])
    y = alt.Y("label:N", sort=list(frame["label"]), axis=_NAMES)
    title = "intervals that hold the value, %"
    scale = alt.Scale(domain=[min(85.0, *frame["low"]), 100.0], nice=False)
    x = alt.X("low:Q", title=title, scale=scale, axis=alt.Axis(tickCount=8))
    base = alt.Chart(frame).encode(y=y, color=alt.value(colours.series[0]))
    promised = (
        alt.Chart(pd.DataFrame({"x": [95.0]}))
        .mark_rule(strokeDash=[4, 3], strokeWidth=2)
        .encode(x="x:Q", color=alt.value(colours.muted))
    )
    rules = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q")
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(
        x="value:Q", tooltip=["label:N", "value:Q", "low:Q", "high:Q"]
    )
    words = f"Coverage of the 95% intervals of {len(frame)} runs; the table has the values"
    return _dressed(alt.layer(promised, rules, dots).properties(height=90 + 28 * len(frame)), words)


def forest(rows: Sequence[Mapping[str, Any]], unit: str) -> Chart:
    """Paired differences with intervals around zero; rows have label, verdict, value, low, high."""
    colours = theme.palette()
    frame = pd.DataFrame(list(rows), columns=["label", "verdict", "value", "low", "high"])
    domain = ["improved", "regressed", "no evidence"]
    colour = alt.Color(
        "verdict:N",
        scale=alt.Scale(domain=domain, range=[colours.good, colours.bad, colours.muted]),
        legend=alt.Legend(title=None, orient="top", columns=3, labelLimit=300),
    )
    y = alt.Y("label:N", sort=list(frame["label"]), axis=_NAMES)
    base = alt.Chart(frame).encode(y=y, color=colour)
    zero = (
        alt.Chart(pd.DataFrame({"x": [0.0]}))
        .mark_rule(strokeDash=[4, 3])
        .encode(x="x:Q", color=alt.value(colours.muted))
    )
    title = f"new − base, {unit}"
    rules = base.mark_rule(strokeWidth=2.5).encode(
        x=alt.X("low:Q", title=title, axis=alt.Axis(tickCount=8)), x2="high:Q"
    )
    shape = alt.Shape(
        "verdict:N", scale=alt.Scale(domain=domain, range=["triangle-up", "triangle-down", "circle"])
    )
    dots = base.mark_point(filled=True, size=110, opacity=1).encode(
        x=alt.X("value:Q", title=title),
        shape=shape,
        tooltip=["label:N", "verdict:N", "value:Q", "low:Q", "high:Q"],
    )
    words = f"Paired differences of {len(frame)} metrics with intervals, {unit}; the table has them"
    return _dressed(alt.layer(zero, rules, dots).properties(height=110 + 30 * len(frame)), words)


def curves(frame: pd.DataFrame, x: str, y: str, *, points: bool = True, dates: bool = False) -> Chart:
    """Lines, one a series, with a band where there are intervals.

    Args:
        frame: columns series, step, value, and low and high where there are any.
        x, y: titles of the axes. dates: whether steps are times.
    """
    colours = theme.palette()
    names = list(dict.fromkeys(frame["series"]))
    colour = alt.Color(
        "series:N",
        scale=alt.Scale(domain=names, range=list(colours.series)),
        legend=alt.Legend(
            title=None,
            orient="top",
            direction="vertical",
            labelLimit=420,
            symbolType="stroke",
            symbolSize=500,
            symbolOpacity=1,
        ),
    )
    axis, step = alt.Axis(title=x, tickCount=8), "step:T" if dates else "step:Q"
    base = alt.Chart(frame).encode(x=alt.X(step, axis=axis), color=colour)
    title = one_line(y, 60)
    value = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    layers: list[alt.Chart] = []
    if "low" in frame:
        band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
        layers.append(band)
    dash = alt.StrokeDash("series:N", scale=alt.Scale(domain=names), legend=None)
    layers.append(base.mark_line(strokeWidth=2).encode(y=value, strokeDash=dash))
    if points:
        tooltip = ["series:N", step, "value:Q"]
        layers.append(base.mark_point(filled=True, size=60, opacity=1).encode(y=value, tooltip=tooltip))
    words = f"{title} by {x} of {len(names)} series; the table below has values"
    return _dressed(alt.layer(*layers).properties(height=320), words)


def sweep(scores: Scores, setting: str) -> Chart:
    """A metric with its interval at each point of a sweep; small marks are single seeds.

    The x axis has the values of the setting where they are numbers, else the points' names.
    """
    colours = theme.palette()
    points = drawn(scores)
    numbers = all(point.x is not None for point in points)
    frame = pd.DataFrame(
        {
            "point": one_line(point.label, 60),
            "x": point.x,
            "value": point.value,
            "low": point.value if point.ci95 is None else point.ci95[0],
            "high": point.value if point.ci95 is None else point.ci95[1],
            "verdict": kind_of(scores, point),
        }
        for point in points
    )
    seeds = pd.DataFrame(
        [
            {"point": one_line(point.label, 60), "x": point.x, "seed": run}
            for point in points
            for run in point.runs
            if run is not None and len(point.runs) > 1
        ],
        columns=["point", "x", "seed"],
    )
    scale = alt.Scale(zero=False, padding=30)
    x = (
        alt.X("x:Q", title=one_line(setting, 60), scale=scale, axis=alt.Axis(tickCount=8))
        if numbers
        else alt.X(
            "point:N", title=one_line(setting, 60), sort=None, axis=alt.Axis(labelAngle=0, labelLimit=160)
        )
    )
    title = one_line(f"{scores.metric} ({scores.unit})", 60)
    base = alt.Chart(frame).encode(
        x=x,
        color=alt.Color(
            "verdict:N",
            scale=alt.Scale(
                domain=list(KINDS),
                range=[colours.text, colours.good, colours.bad, colours.muted, colours.muted],
            ),
            legend=alt.Legend(title=None, orient="top", columns=5),
        ),
    )
    rules = base.mark_rule(strokeWidth=2.5).encode(
        y=alt.Y("low:Q", title=title, scale=alt.Scale(zero=False)), y2="high:Q"
    )
    shape = alt.Shape(
        "verdict:N",
        scale=alt.Scale(
            domain=list(KINDS), range=["square", "triangle-up", "triangle-down", "circle", "cross"]
        ),
    )
    dots = base.mark_point(filled=True, size=110, opacity=1).encode(
        y=alt.Y("value:Q", title=title),
        shape=shape,
        tooltip=["point:N", "verdict:N", "value:Q", "low:Q", "high:Q"],
    )
    single = alt.Chart(seeds).mark_tick(color=colours.muted, thickness=2, size=14).encode(x=x, y="seed:Q")
    words = f"{title} with 95% intervals at {len(frame)} points of a sweep over {setting}; the table has them"
    return _dressed(alt.layer(rules, single, dots).properties(height=320), words)
