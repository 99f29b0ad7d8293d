"""Everything of one comparison: differences with their intervals, verdicts, changed samples, tags."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import streamlit as st

from evalkit.comparison import Comparison, Flip, Key, MetricResult, TaskComparison
from evalkit.comparison.compare import group_rows
from evalkit.reports import wording
from evalkit.text import one_line
from evalkit_leaderboard import charts, components, state
from evalkit_leaderboard.components import HtmlCell, Quote, escape
from evalkit_leaderboard.numbers import shown, signed

#: Units that are one another's hundredfold, drawn on one axis in points where they cannot leave 0 to 100.
_POINTS = {"percent": 1.0, "fraction": 100.0}


class Links(NamedTuple):
    """Keys of both runs of a task."""

    base: str
    new: str


def show(
    comparison: Comparison, heads: Mapping[Key, MetricResult | None], links: Mapping[Key, Links]
) -> None:
    """The comparison's metrics; of several tasks, the headlines in one plot and one task in full.

    Args:
        heads: each task's headline. links: what its samples are opened by.
    """
    tasks = {str(task.key): task for task in comparison.tasks}
    several = len(tasks) > 1
    named = [result for result in heads.values() if result is not None]
    if several:
        _forest(named, several)
    name = next(iter(tasks))
    if several:
        name = state.choose("task", "Task in full", list(tasks), name, below=("flips",))
    task = tasks[name]
    results = wording.shown(comparison, task)
    if not several:
        _forest(results, several)
    _metric_table(results)
    of_metrics = tuple(f"{result.key} {result.name}: " for result in results)  # the table has these
    components.notes(reason for reason in comparison.reasons if not reason.startswith(of_metrics))
    components.note(f"{wording.counts(task)}; level {comparison.alpha:g}, Holm over the metrics judged")
    _flips(task, links[task.key])
    _groups(task)


def _forest(results: Sequence[MetricResult], several: bool) -> None:
    st.header("Paired differences", anchor=False)
    units: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        row = _forest_row(result, several)
        if row is not None:
            units.setdefault(_axis(result), []).append(row)
    if not units:
        components.note("No difference could be computed; the table says why.")
    for unit, rows in units.items():
        st.altair_chart(charts.forest(rows, unit), width="stretch")
    if units:
        components.note("The table has the same numbers; each unit has an axis of its own.")


def _axis(result: MetricResult) -> str:
    """Unit of the axis; what may leave 0 to 100 (CIDEr) has one of its own, or it would flatten the rest."""
    metric = result.difference.metric
    bounded = all(map(math.isfinite, metric.bounds))
    if metric.unit in _POINTS:
        return "points of 100" if bounded else f"{metric.unit}, without an upper end"
    return metric.unit


def _forest_row(result: MetricResult, several: bool) -> dict[str, Any] | None:
    difference = result.difference
    value, reach = difference.difference, difference.ci95
    if value is None or not math.isfinite(value):
        return None
    scale = _POINTS.get(difference.metric.unit, 1.0) if _axis(result) == "points of 100" else 1.0
    low, high = reach or (value, value)
    name = f"{result.key} {result.name}" if several else result.name
    return {
        "label": f"{name}{'' if difference.metric.higher_is_better else ' (lower is better)'}",
        "verdict": result.verdict.replace("_", " "),
        "value": scale * value,
        "low": scale * low,
        "high": scale * high,
    }


def _metric_table(results: Sequence[MetricResult]) -> None:
    header = [HtmlCell("Metric", "ek-name"), *(HtmlCell(name) for name in wording.HEADER[1:-1])]
    header.append(HtmlCell("verdict", "ek-left"))
    rows: list[tuple[str, Sequence[HtmlCell]]] = []
    for result in results:
        name, *middle, verdict = wording.cells(result)
        kind = {"improved": "ek-good", "regressed": "ek-bad"}.get(result.verdict, "")
        cells = [HtmlCell(escape(name), "ek-name"), *(HtmlCell(escape(cell)) for cell in middle)]
        notes = "".join(f'<span class="ek-sub">{escape(n, 300)}</span>' for n in result.notes)
        cells.append(HtmlCell(f'<span class="{kind}">{escape(verdict)}</span>{notes}', "ek-left"))
        rows.append(("", cells))
    components.table(header, rows, "verdicts")


def _flips(task: TaskComparison, links: Links) -> None:
    st.header("What changed", anchor=False)
    sides = {"lost": task.flips.right_to_wrong, "won": task.flips.wrong_to_right}
    if not any(sides.values()):
        components.note("No sample changed.")
        return
    titles = {name: wording.flip_title(task, name == "lost") for name, flips in sides.items() if flips}
    title = state.pick("flips", "Samples", list(titles), next(iter(titles)), titles.__getitem__)
    flips = sides[title]
    choice = st.dataframe(
        _flip_frame(flips),
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"flips-{task.key}-{title}",
        height=min(420, 38 + 35 * len(flips)),
    )
    selected = choice.selection.rows if hasattr(choice, "selection") else []
    place = selected[0] if selected else 0
    if place < len(flips):
        _flip(flips[place], links)


def _flip_frame(flips: Sequence[Flip]) -> Any:
    import pandas as pd

    rows = [
        (
            one_line(wording.flip_id(flip), 80),
            flip.metric,
            flip.before,
            flip.after,
            one_line(str(flip.answers[0].target), 120),
            one_line(flip.answers[0].text[:500], 120),
            one_line(flip.answers[1].text[:500], 120),
        )
        for flip in flips
    ]
    return pd.DataFrame(
        rows, columns=["sample", "metric", "before", "after", "target", "base answers", "new answers"]
    )


def _flip(flip: Flip, links: Links) -> None:
    words = f"Sample {escape(flip.base.id, 80)}: {escape(flip.metric, 60)} {flip.before:g} to {flip.after:g}"
    shown_id = flip.answers[0].id
    query = {"run": links.new, "sample": shown_id, "other": links.base}
    opened = components.link("samples", "Open it with its images and both answers →", **query)
    st.html(f'<div class="ek-note">{words} · {opened}</div>')
    if flip.hidden:
        components.note("The rotation that changed has no answer on one side; these are the base row's.")
    for base, new in flip.rotations or (flip.answers,):
        if flip.rotations:
            components.note(f"Rotation {base.id}")
        components.quotes(
            Quote("Target", str(base.target)),
            Quote("Base answers", base.text),
            Quote("New answers", new.text),
        )


def _groups(task: TaskComparison) -> None:
    rows = group_rows(task)
    if not rows:
        return
    with st.expander(f"By tag ({len(rows)} rows)"):
        header = [HtmlCell("Tag", "ek-name")]
        header += [HtmlCell(name) for name in ("metric", "n", "base", "new", "change", "lost", "won")]
        body: list[tuple[str, Sequence[HtmlCell]]] = []
        for row in rows[:300]:
            name = f'{escape(row["value"], 80)}<span class="ek-sub">{escape(row["tag"], 40)}</span>'
            values = [shown(row["base"]), shown(row["new"]), signed(row["difference"])]
            counts = [str(row["right_to_wrong"]), str(row["wrong_to_right"])]
            cells = [str(row["metric"]), str(row["n"]), *values, *counts]
            body.append(("", [HtmlCell(name, "ek-name"), *(HtmlCell(escape(cell)) for cell in cells)]))
        components.table(header, body, "values by tag")
