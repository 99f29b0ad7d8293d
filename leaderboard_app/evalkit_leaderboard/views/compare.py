"""Compare: two runs of one task and split, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from evalkit.comparison import Comparison, Flip, MetricResult, TaskComparison
from evalkit.comparison import compare as compare_runs
from evalkit.comparison.compare import group_rows
from evalkit.reports import wording
from evalkit.text import one_line
from evalkit_leaderboard import charts, components, state
from evalkit_leaderboard.components import HtmlCell, Quote, escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.marks import asked
from evalkit_leaderboard.naming import run_names
from evalkit_leaderboard.numbers import shown, signed
from evalkit_leaderboard.runs import Run, or_reason, stamp

#: Units that are one another's hundredfold, drawn on one axis in points.
_POINTS = {"percent": 1.0, "fraction": 100.0}
_ALLOWED = (
    "dtype",
    "evalkit",
    "prompt",
    "gen",
    "tiles",
    "request",
    "subset",
    "data",
    "n",
    "judge",
    "nonstandard",
)


def render(context: Context) -> None:
    """The page."""
    st.title("Compare", anchor=False)
    scored = {key: run for key, run in context.runs.items() if run.scored and run.metrics}
    pairs = _pairs(scored)
    if not pairs:
        components.box(
            "A comparison takes two scored runs of one task and split. Run a second model or checkpoint:",
            "evalkit run -m MODEL --checkpoint FOLDER -t TASK --split SPLIT",
        )
        return
    target = state.choose_named(
        "target", "Task and split", list(pairs), _usual_target(context, pairs), str, _no_pair, ("base", "new")
    )
    if target is None:
        return
    keys = pairs[target]
    names = run_names({key: scored[key] for key in keys})
    usual_base, usual_new = _usual_pair(keys, scored)
    left, right = st.columns(2)
    with left:
        base = state.choose_named(
            "base", "Base", keys, usual_base, names.__getitem__, partial(_why_not, context, target, "")
        )
    others = [key for key in keys if key != base]
    with right:
        usual = usual_new if usual_new in others else others[0]
        new = state.choose_named(
            "new", "New", others, usual, names.__getitem__, partial(_why_not, context, target, base)
        )
    if base is None or new is None:
        return
    allow = state.choose_several(
        "allow", "Fields of the signature that may differ", _ALLOWED, placeholder="none; choose knowingly"
    )
    with st.spinner("Comparing sample by sample"):
        outcome = _compare(scored[base], scored[new], tuple(allow))
    if isinstance(outcome, str):
        reason = outcome.replace(scored[base].path, "the base").replace(scored[new].path, "the new run")
        components.box(f"Not comparable: {reason}", warn=True)
        return
    _show(outcome, names[base], names[new], new)


def _usual_target(context: Context, pairs: Mapping[str, list[str]]) -> str:
    """Where the address names a run, that run's; else the first."""
    named = [context.runs[key] for name in ("base", "new") if (key := state.given(name)) in context.runs]
    targets = [f"{run.task}@{run.split}" for run in named]
    return next((target for target in targets if target in pairs), next(iter(pairs)))


def _no_pair(target: str) -> str:
    return f"{target}: there are no two scored runs of that task and split to compare."


def _why_not(context: Context, target: str, base: str | None, key: str) -> str:
    run = context.runs.get(key)
    if key == base:
        return f"Run {key} is the base itself."
    if run is not None and run.scored and run.metrics:
        return f"Run {key} is of {run.task}@{run.split}, not of {target}."
    return context.why_not(key)


def _pairs(runs: Mapping[str, Run]) -> dict[str, list[str]]:
    """Keys by task and split where there are two or more, newest first."""
    found: dict[str, list[str]] = {}
    for key, run in sorted(runs.items(), key=lambda item: item[1].created, reverse=True):
        found.setdefault(f"{run.task}@{run.split}", []).append(key)
    return {target: keys for target, keys in sorted(found.items()) if len(keys) > 1}


def _usual_pair(keys: Sequence[str], runs: Mapping[str, Run]) -> tuple[str, str]:
    """Base and new: the newest run that has an earlier one which asked and scored the same, and that one."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for key in keys:
        alike.setdefault(asked(runs[key]), []).append(key)
    new, base = next((same[:2] for same in alike.values() if len(same) > 1), keys[:2])
    return base, new


def _compare(base: Run, new: Run, allow: tuple[str, ...]) -> Comparison | str:
    return _cached(base.path, new.path, allow, stamp(base.path) + stamp(new.path))


@st.cache_resource(show_spinner=False, max_entries=12)
def _cached(base: str, new: str, allow: tuple[str, ...], stamps: str) -> Comparison | str:
    """The comparison, or why there is none."""
    return or_reason(lambda: compare_runs(base, new, allow=allow))


def _show(comparison: Comparison, base: str, new: str, run: str) -> None:
    results = [r for task in comparison.tasks for r in wording.shown(comparison, task)]
    words = [
        f"{verdict.capitalize()}: {', '.join(names)}"
        for verdict in ("regressed", "improved")
        if (names := [r.name for r in results if r.verdict == verdict])
    ]
    verdict = ". ".join(words) or "No evidence of a difference in any metric"
    warn = any(result.verdict == "regressed" for result in results)
    components.box(f"{verdict}. Base: {base}. New: {new}.", warn=warn)
    of_metrics = tuple(f"{result.key} {result.name}: " for result in results)  # the table has these
    components.notes(reason for reason in comparison.reasons if not reason.startswith(of_metrics))
    _forest(results)
    _metric_table(results)
    for task in comparison.tasks:
        components.note(f"{wording.counts(task)}; level {comparison.alpha:g}, Holm over the metrics judged")
        _flips(task, run)
        _groups(task)


def _forest(results: Sequence[MetricResult]) -> None:
    st.subheader("Paired differences", anchor=False)
    units: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        row = _forest_row(result)
        if row is not None:
            unit = result.difference.metric.unit
            units.setdefault("points of 100" if unit in _POINTS else unit, []).append(row)
    if not units:
        components.note("No difference could be computed; the table says why.")
    for unit, rows in units.items():
        st.altair_chart(charts.forest(rows, unit), width="stretch")


def _forest_row(result: MetricResult) -> dict[str, Any] | None:
    difference = result.difference
    value, reach = difference.difference, difference.ci95
    if value is None or not math.isfinite(value):
        return None
    scale = _POINTS.get(difference.metric.unit, 1.0)
    low, high = reach or (value, value)
    return {
        "label": f"{result.name}{'' if difference.metric.higher_is_better else ' (lower is better)'}",
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


def _flips(task: TaskComparison, run: str) -> None:
    st.subheader("What changed", anchor=False)
    sides = {wording.flip_title(task, True): task.flips.right_to_wrong}
    sides[wording.flip_title(task, False)] = task.flips.wrong_to_right
    if not any(sides.values()):
        components.note("No sample changed.")
        return
    titles = [title for title, flips in sides.items() if flips]
    title = state.pick("flips", "Samples", titles, titles[0])
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
        _flip(flips[place], run)


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


def _flip(flip: Flip, run: str) -> None:
    words = f"Sample {escape(flip.base.id, 80)}: {escape(flip.metric, 60)} {flip.before:g} to {flip.after:g}"
    opened = components.link("samples", "Open it with its images →", run=run, sample=flip.answers[0].id)
    st.html(f'<div class="ek-note">{words} · {opened}</div>')
    if flip.hidden:
        components.note(
            "The rotation that changed has no answer on one side; the base row's answers stand here."
        )
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
