"""Training and history: scores over checkpoints, methods side by side, loss curves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from evalkit.comparison.history import History, history, usual_metric
from evalkit.store import load_run
from evalkit.text import one_line
from evalkit_leaderboard import charts, components, logs, settings, state
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.numbers import interval, shown, signed
from evalkit_leaderboard.runs import Run, or_reason, stamp

#: Runs whose values are shown; below: what the names of checkpoints begin with, where that says nothing more.
_VALIDATION = "validation_loss"
_WHOLE = ("complete", "excerpt", "partial")
_CHECKPOINT = re.compile(r"@(step|checkpoint|epoch|iter)$")


def render(context: Context) -> None:
    """The page."""
    st.title("Training and history", anchor=False)
    for part in (_scores, _losses):
        with state.said():
            part(context)


def _scores(context: Context) -> None:
    st.header("Scores over checkpoints", anchor=False)
    found = _series(context.runs)
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
    measured = [run for runs in lines.values() for run in runs]
    metrics = list(dict.fromkeys(name for run in measured for name in run.metrics))
    info = context.matrix.infos.get(target.partition("@")[0])
    headline = info.headline if info is not None else ""
    usual = usual_metric(metrics, headline, lambda name: all(_has(run, name) for run in measured))
    with right:
        metric = state.choose("metric", "Metric", metrics, usual)
    labels = _labels(list(lines))
    names = state.choose_several(
        "models", "Models and methods", list(lines), list(lines)[:5], lambda name: labels.get(name, name)
    )
    base = _base(context, target, lines)
    chosen = {name: lines[name] if base is None else [base, *lines[name]] for name in names}
    by_date = state.switch("dates", "Over dates: every run by the time it began, not by step")
    if by_date:
        chosen = {name: _dated(context.runs, target, name) for name in names}
    frame, by_step = _frame(chosen, metric, labels)
    if by_date:
        frame = _by_date(chosen, metric, labels)
    if frame.empty:
        components.box(f"No value of {metric} for these models.")
        return
    if headline in metrics and metric == usual != headline:
        components.note(f"{metric} stands in for {headline}, the headline: not every run has a value of it.")
    unit = next((r.metrics[metric].unit for runs in chosen.values() for r in runs if metric in r.metrics), "")
    axis = "date" if by_date else "training step" if by_step else "checkpoint"
    st.altair_chart(charts.curves(frame, axis, f"{metric} ({unit})", dates=by_date), width="stretch")
    components.values(frame, axis, f"{metric} ({unit})")
    components.note("Bands are 95% intervals of each value; what changed is tested below on paired samples.")
    first = "the first" if base is None else f"{_plain(base.model)}, step 0"
    if state.switch("changes", f"Test every checkpoint against {first} (evalkit history)"):
        for name, runs in chosen.items():
            _changes(name, runs, metric)


def _base(context: Context, target: str, lines: Mapping[str, Sequence[Run]]) -> Run | None:
    """What the training began from, as step 0: the model chosen, else the baseline, else one of its name."""
    inside = {run.path for runs in lines.values() for run in runs}
    rows = {
        row.key: run
        for row in context.matrix.rows
        if not row.published
        for key, run in context.side(row).items()
        if str(key) == target and run.path not in inside and run.status in _WHOLE
    }
    names = {name.partition("@")[0] for name in lines}
    usual = next((key for key, run in rows.items() if run.model in names), "")
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


def _has(run: Run, metric: str) -> bool:
    cell = run.metrics.get(metric)
    return cell is not None and cell.value is not None


def _plain(name: str) -> str:
    return one_line(name, 80)


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Series as they are shown: without `@step`, where that tells none apart."""
    short = {name: _plain(_CHECKPOINT.sub("", name)) for name in names}
    counts = Counter(short.values())
    return {name: label if counts[label] == 1 else _plain(name) for name, label in short.items()}


def _series(runs: Mapping[str, Run]) -> dict[str, dict[str, list[Run]]]:
    """By task and split, then by series: the newest run of each checkpoint, in order of steps."""
    found: dict[str, dict[str, dict[tuple[str, str], Run]]] = {}
    for run in sorted(runs.values(), key=lambda run: run.created):
        if run.metrics and run.status in _WHOLE:
            target = found.setdefault(f"{run.task}@{run.split}", {})
            target.setdefault(run.series, {})[run.model, run.weights] = run
    several = {
        target: {
            name: sorted(by_weights.values(), key=lambda run: (run.step is None, run.step or 0, run.created))
            for name, by_weights in lines.items()
            if len(by_weights) > 1
        }
        for target, lines in sorted(found.items())
    }
    return {target: lines for target, lines in several.items() if lines}


def _frame(
    lines: Mapping[str, Sequence[Run]], metric: str, labels: Mapping[str, str]
) -> tuple[pd.DataFrame, bool]:
    # The first may be the base, which has no step of its own.
    by_step = all(run.step is not None for runs in lines.values() for run in runs[1:])
    rows = []
    for name, runs in lines.items():
        for place, run in enumerate(runs):
            cell = run.metrics.get(metric)
            if cell is not None and cell.value is not None:
                step = (run.step or 0) if by_step else place
                low = cell.value if cell.low is None else cell.low
                high = cell.value if cell.high is None else cell.high
                rows.append((labels[name], step, cell.value, low, high))
    return pd.DataFrame(rows, columns=["series", "step", "value", "low", "high"]), by_step


def _dated(runs: Mapping[str, Run], target: str, series: str) -> list[Run]:
    """Every run of a series on a task and split, oldest first."""
    found = [run for run in runs.values() if run.series == series and f"{run.task}@{run.split}" == target]
    return sorted((run for run in found if run.status in _WHOLE), key=lambda run: run.created)


def _by_date(lines: Mapping[str, Sequence[Run]], metric: str, labels: Mapping[str, str]) -> pd.DataFrame:
    """As `_frame`, with the time that each run began; runs without one are left out."""
    rows = []
    for name, runs in lines.items():
        for run in runs:
            when, cell = pd.to_datetime(run.created, errors="coerce", utc=True), run.metrics.get(metric)
            if cell is not None and cell.value is not None and not pd.isna(when):
                low, high = (cell.value if end is None else end for end in (cell.low, cell.high))
                rows.append((labels[name], when, cell.value, low, high))
    return pd.DataFrame(rows, columns=["series", "step", "value", "low", "high"])


def _changes(name: str, runs: Sequence[Run], metric: str) -> None:
    with st.spinner(f"{_plain(name)}: comparing sample by sample"):
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
    found = logs.find_logs(context.training, *context.index.roots)
    if not found:
        components.box(
            f"No training log ({logs.LOG}) under {context.training} or {context.index.where}. Training "
            "writes it into its output folder; `evalkit leaderboard --training FOLDER` looks elsewhere:",
            "evalkit train RECIPE",
        )
        return
    names = {_log_name(path, context): path for path in found}
    chosen = state.choose_several(
        "logs", "Training runs", list(names), list(names)[:3], _plain, below=("value",)
    )
    read = {name: log for name in chosen if (log := _read(names[name])) is not None}
    values = list(dict.fromkeys(value for log in read.values() for value in log.values))
    if not values:
        components.box("These logs hold no numbers by step yet.")
        return
    usual = next((value for value in values if "loss" in value.lower()), values[0])
    value = state.choose("value", "Value", values, usual, _plain)
    curves = [_curve(name, log, value) for name, log in read.items()]
    if value == "loss":
        held_out = [(name, log) for name, log in read.items() if _VALIDATION in log.values]
        curves += [_curve(name, log, _VALIDATION, " · validation") for name, log in held_out]
    frame = pd.concat(curves)
    st.altair_chart(charts.curves(frame, "training step", value, points=False), width="stretch")
    components.values(frame, "training step", value)
    components.notes(_length(name, log) for name, log in read.items())


def _length(name: str, log: logs.TrainingLog) -> str:
    last = f"step {log.steps[-1]:g}" if log.steps else "no step yet"
    broken = f"; {log.broken} broken lines left out" if log.broken else ""
    return f"{_plain(name)}: {len(log.steps):,} lines, {last}{broken}"


def _log_name(path: Path, context: Context) -> str:
    for root in (context.training, *context.index.roots):
        if path.is_relative_to(root):
            return str(path.parent.relative_to(root)) if path.parent != root else root.name
    return str(path.parent)


def _read(path: Path) -> logs.TrainingLog | None:
    try:
        return logs.read_log(path)
    except OSError as error:
        components.box(f"{path}: cannot be read ({error.strerror})", warn=True)
        return None


def _curve(name: str, log: logs.TrainingLog, value: str, words: str = "") -> pd.DataFrame:
    """The value over steps, thinned to means of equal stretches where there are very many."""
    frame = pd.DataFrame({"step": log.steps, "value": log.values.get(value, [float("nan")] * len(log.steps))})
    frame = frame.dropna()
    if len(frame) > logs.POINTS:
        stretch = -(-len(frame) // logs.POINTS)
        frame = frame.groupby(pd.RangeIndex(len(frame)) // stretch).mean()
    return frame.assign(series=_plain(name) + words)
