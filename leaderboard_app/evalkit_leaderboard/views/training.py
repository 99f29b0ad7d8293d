"""Training and history: scores over checkpoints, methods side by side, sweeps, loss curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st

from evalkit.comparison.history import History, history
from evalkit.store import load_run
from evalkit.text import one_line
from evalkit_leaderboard import charts, components, logs, settings, state, trends
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.numbers import interval, shown, signed
from evalkit_leaderboard.runs import Run, or_reason, stamp
from evalkit_leaderboard.views import sweep


def render(context: Context) -> None:
    """The page."""
    st.title("Training and history", anchor=False)
    for part in (_scores, sweep.render, _losses):
        with state.said():
            part(context)


def _scores(context: Context) -> None:
    st.header("Scores over checkpoints", anchor=False)
    found = trends.series(context.runs)
    if not found:
        components.box(
            "No model has two checkpoints with values on one task yet. Evaluate each checkpoint, or let "
            "training do it (`--eval-task`):",
            "evalkit run -m MODEL --checkpoint FOLDER/step-500 -t TASK",
        )
        return
    left, right = st.columns(2)
    with left:
        target = state.choose(
            "target",
            "Task and split",
            list(found),
            next(iter(found)),
            why=_no_series,
            below=("metric", "models", "base"),
        )
    lines = found[target]
    metrics, usual, headline = trends.metrics(context.matrix, target, lines)
    with right:
        metric = state.choose("metric", "Metric", metrics, usual)
    labels = trends.labels(list(lines))
    names = state.choose_several(
        "models", "Models and methods", list(lines), list(lines)[:5], lambda name: labels.get(name, name)
    )
    base = _base(context, target, lines)
    chosen = {name: lines[name] if base is None else [base, *lines[name]] for name in names}
    by_date = state.switch("dates", "Over dates: every run by the time it began, not by step")
    if by_date:
        chosen = {name: trends.dated(context.runs, target, name) for name in names}
    frame, by_step = trends.frame(chosen, metric, labels)
    if by_date:
        frame = trends.by_date(chosen, metric, labels)
    if frame.empty:
        components.box(f"No value of {metric} for these models.")
        return
    if headline in metrics and metric == usual != headline:
        components.note(f"{metric} stands in for {headline}, the headline: not every run has a value of it.")
    unit = next((r.metrics[metric].unit for runs in chosen.values() for r in runs if metric in r.metrics), "")
    axis = "date" if by_date else "training step" if by_step else "checkpoint"
    st.altair_chart(charts.curves(frame, axis, f"{metric} ({unit})", dates=by_date), width="stretch")
    components.values(trends.rows(frame), axis, f"{metric} ({unit})")
    components.note("Bands are 95% intervals of each value; what changed is tested below on paired samples.")
    first = "the first" if base is None else f"{trends.plain(base.model)}, step 0"
    if state.switch("changes", f"Test every checkpoint against {first} (evalkit history)"):
        for name, runs in chosen.items():
            _changes(name, runs, metric)


def _base(context: Context, target: str, lines: Mapping[str, Sequence[Run]]) -> Run | None:
    """What the training began from, as step 0: the model chosen, else the baseline, else one of its name."""
    rows, usual = trends.bases(context.matrix, context.runs, target, lines)
    baseline = settings.baseline(context.index.roots)
    chosen = state.choose(
        "base",
        "Base, as step 0",
        ["", *rows],
        baseline if baseline in rows else usual,
        lambda key: rows[key].model if key else "none",
        lambda key: f"No model {key} has a run of {target} to begin from: it was moved or deleted.",
    )
    return rows.get(chosen)


def _no_series(target: str) -> str:
    return f"{target}: no model has two checkpoints with values there."


def _changes(name: str, runs: Sequence[Run], metric: str) -> None:
    with st.spinner(f"{trends.plain(name)}: comparing sample by sample"):
        stamps = tuple(stamp(run.path) for run in runs)
        outcome = _history(tuple(run.path for run in runs), metric, stamps)
    if isinstance(outcome, str):
        components.box(f"{name}: {outcome}", warn=True)
        return
    unit = outcome.metric.unit
    titles = (metric, "95% interval", "change", "95% interval", "p (Holm)")
    header = [HtmlCell(escape(name, 80), "ek-name"), *(HtmlCell(escape(title)) for title in titles)]
    rows: list[tuple[str, Sequence[HtmlCell]]] = []
    for point in outcome.points:
        value, change = point.value, point.change
        reach = change.ci95 if change is not None else None
        low, high = value.ci95 or (None, None)
        mark = " significant" if point.significant else ""
        cells = [
            shown(value.value, unit),
            interval(low, high, unit),
            signed(change.difference, unit) if change is not None else "",
            f"[{signed(reach[0], unit)}, {signed(reach[1], unit)}]" if reach else "",
            "" if point.p_adjusted is None else f"{point.p_adjusted:.2g}{mark}",
        ]
        rows.append(
            ("", [HtmlCell(escape(point.label, 60), "ek-name"), *(HtmlCell(escape(cell)) for cell in cells)])
        )
    components.table(header, rows, f"history of {one_line(name, 60)}")
    if outcome.trend is not None:
        reach = outcome.trend.ci95
        words = f" [{reach[0]:+.3g}, {reach[1]:+.3g}]" if reach else ""
        per = "step" if outcome.by_step else "checkpoint"
        components.note(f"trend: {outcome.trend.slope:+.3g}{words} a {per}")
    first = outcome.first_change
    components.notes(
        [
            f"first significant change: {first.label if first is not None else 'none'}",
            *(f"left out: {reason}" for reason in outcome.left_out),
        ]
    )


@st.cache_resource(show_spinner=False, max_entries=20)
def _history(paths: tuple[str, ...], metric: str, stamps: tuple[str, ...]) -> History | str:
    """The series, or why there is none."""
    return or_reason(lambda: history([load_run(path) for path in paths], metric))


def _losses(context: Context) -> None:
    st.header("Training log", anchor=False)
    names = logs.named(logs.LOG, context.training, *context.index.roots)
    if not names:
        components.box(
            f"No training log ({logs.LOG}) under {context.training} or {context.index.where}. Training "
            "writes it into its output folder; `evalkit leaderboard --training FOLDER` looks elsewhere:",
            "evalkit train RECIPE",
        )
        return
    chosen = state.choose_several(
        "logs", "Training runs", list(names), list(names)[:3], trends.plain, below=("value",)
    )
    read = {name: log for name in chosen if (log := _read(names[name])) is not None}
    values, usual = trends.values(read)
    if not values:
        components.box("These logs hold no numbers by step yet.")
        return
    value = state.choose("value", "Value", values, usual, trends.plain)
    frame = trends.losses(read, value)
    st.altair_chart(charts.curves(frame, "training step", value, points=False), width="stretch")
    components.values(trends.rows(frame), "training step", value)
    components.notes(trends.length(name, log) for name, log in read.items())


def _read(path: Path) -> logs.TrainingLog | None:
    try:
        return logs.read_log(path)
    except OSError as error:
        components.box(f"{path}: cannot be read ({error.strerror})", warn=True)
        return None
