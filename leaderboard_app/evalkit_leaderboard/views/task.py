"""Task: the paper's table of the benchmark with our rows, intervals, values by tag, the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from evalkit import registry
from evalkit.comparison.alike import refusal
from evalkit.errors import EvalkitError, RunFolderError
from evalkit.task import PARTS, Task
from evalkit.text import one_line
from evalkit_leaderboard import catalogue, charts, components, state
from evalkit_leaderboard.catalogue import TaskInfo
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.exports import MEASURED, PUBLISHED
from evalkit_leaderboard.marks import alike, is_ranked
from evalkit_leaderboard.matrix import Column, Matrix, Row
from evalkit_leaderboard.numbers import shown
from evalkit_leaderboard.runs import Run
from evalkit_leaderboard.views import paper_tables, trust
from evalkit_leaderboard.views.paper_tables import Measurement

#: Values of a tag that are shown.
_MOST_VALUES = 60
#: Rows drawn in the plot of intervals.
_MOST_ROWS = 40
#: What is chosen anew with another task or split.
_BELOW = ("metric", "tag", "tagmetric")


def render(context: Context) -> None:
    """The page."""
    st.title("Task", anchor=False)
    matrix = context.matrix
    measured = [row for row in matrix.rows if not row.published]
    with_runs = {column.task for row in measured for column in row.cells}
    names = sorted(matrix.infos, key=lambda name: name not in with_runs)
    if not names:
        components.box("No task is installed and no run is there.", "evalkit list tasks")
        return
    left, right = st.columns(2)
    with left:
        name = state.choose(
            "task", "Task", names, names[0], lambda n: _title(matrix.infos[n]), _unknown, ("split", *_BELOW)
        )
    info = matrix.infos[name]
    splits = list(
        dict.fromkeys(column.split for row in measured for column in row.cells if column.task == name)
    )
    choices = splits or list(info.splits[:1]) or ["test"]
    with right:
        split = state.choose(
            "split",
            "Split",
            choices,
            choices[0],
            why=lambda split: f"No run of {name} has values on split {split}.",
            below=_BELOW,
        )
    broken = sum(run.status == "broken" and run.task == name for run in context.runs.values())
    if broken:
        components.note(f"{broken:,} broken runs of {name} are left out; the page Runs says what is wrong.")
    keys = _keys(matrix, name, split)
    if not keys:
        components.box(
            f"No run of {name} yet. Its miniature needs no data:",
            f"evalkit run -m mini-internvl-tiny -t {name} --split miniature",
        )
    _paper_tables(context, info, split)
    with state.said():
        metric = _interval_plot(matrix, info, split)
        trust.render(context, keys, metric)
    with state.said():
        _groups(context, keys)
    _protocol(context, info, keys)


def _unknown(name: str) -> str:
    return f"No task {name}: it is not installed, and no run here is of it."


def _title(info: TaskInfo) -> str:
    return info.name if info.title == info.name else f"{info.title} ({info.name})"


def _keys(matrix: Matrix, name: str, split: str) -> dict[str, str]:
    """Key of the shown run by row label."""
    return {
        row.label: cell.run
        for row in matrix.rows
        if row.current
        for column, cell in row.cells.items()
        if cell.run and (column.task, column.split) == (name, split)
    }


def _paper_tables(context: Context, info: TaskInfo, split: str) -> None:
    """Every table of the paper that the task has columns in, with the models measured here on the split.

    Columns of other tasks have their runs on published splits, or on miniatures where that is the split.
    Values that are not ranked beside published ones stand in a table of their own.
    """
    among: list[tuple[str, Run]] = []
    apart: list[tuple[str, Run]] = []
    measured: dict[str, Measurement] = {}
    for row in context.matrix.rows:
        if not row.current or row.published:
            continue
        for column, cell in row.cells.items():
            run = context.runs.get(cell.run)
            fits = column.split == split if column.task == info.name else _alike(column.split, split)
            if run is None or not fits or run.path in measured:
                continue
            measured[run.path] = Measurement(cell.run, run, cell.marks)
            ranked = is_ranked(cell.marks) and run.split not in PARTS
            (among if ranked else apart).append((row.label, run))
    for suite in catalogue.tables_of(info.name):
        table = catalogue.paper_table(suite, among)
        if table is not None:
            st.header(table.title, anchor=False)
            paper_tables.show(table, measured)
            other = catalogue.paper_table(suite, apart)
            paper_tables.show_apart(other, measured)


def _alike(split: str, chosen: str) -> bool:
    return (split in PARTS) == (chosen in PARTS)


def _interval_plot(matrix: Matrix, info: TaskInfo, split: str) -> str:
    """Values with their intervals; the metric that was chosen, empty where there is none."""
    columns = [c for c in matrix.columns if (c.task, c.split) == (info.name, split)]
    metrics = [c.metric for c in columns if any(_point(row, c) for row in matrix.rows)]
    if not metrics:
        return ""
    st.header("Values and their 95% intervals", anchor=False)
    usual = info.headline if info.headline in metrics else metrics[0]
    metric = state.choose("metric", "Metric", metrics, usual)
    column = Column(info.name, split, metric)
    points = [point for row in matrix.rows if row.current and (point := _point(row, column))]
    sign = -1.0 if matrix.higher_is_better(column) else 1.0
    points.sort(key=lambda point: (point["apart"], sign * point["value"]))
    known = info.metrics.get(metric)
    st.altair_chart(charts.intervals(points[:_MOST_ROWS], known.unit if known else metric), width="stretch")
    words = ["Lower is better."] if sign > 0 else []
    if any(point["apart"] for point in points) and any(point["kind"] == PUBLISHED for point in points):
        words.append("Rows with a word in brackets, the last ones, are not comparable with published rows.")
    if len(points) > _MOST_ROWS:
        words.append(f"The best {_MOST_ROWS} of {len(points):,} rows.")
    components.notes(words)
    return metric


def _point(row: Row, column: Column) -> dict[str, Any] | None:
    cell = row.cells.get(column)
    if cell is None or cell.value is None:
        return None
    words = [mark.word for mark in cell.marks if not mark.ranked]
    return {
        "label": f"{row.label}{f' ({words[0]})' if words else ''}",
        "kind": PUBLISHED if row.published else MEASURED,
        "apart": bool(words),
        "value": cell.value,
        "low": cell.value if cell.low is None else cell.low,
        "high": cell.value if cell.high is None else cell.high,
    }


def _groups(context: Context, keys: Mapping[str, str]) -> None:
    """A table for each tag: values by models."""
    found: dict[str, Mapping[str, Any]] = {}
    for label, key in keys.items():
        try:
            groups = (_summary(context.runs[key]).get("groups")) or {}
        except RunFolderError as error:
            components.box(str(error), warn=True)
            continue
        if isinstance(groups, dict) and groups:
            found[label] = groups
    tags = list(dict.fromkeys(tag for groups in found.values() for tag in groups))
    if not tags:
        return
    st.header("By tag", anchor=False)
    left, right = st.columns(2)
    with left:
        tag = state.choose("tag", "Tag", tags, tags[0], below=("tagmetric",))
    values = list(dict.fromkeys(v for groups in found.values() for v in _inside(groups, tag)))
    cells = [_inside(groups, tag, value) for groups in found.values() for value in values]
    metrics = list(dict.fromkeys(metric for cell in cells for metric in cell))
    if not metrics:
        return
    with right:
        metric = state.choose("tagmetric", "Metric of the tag", metrics, metrics[0])
    header = [HtmlCell(escape(tag, 60), "ek-name")]
    header += [HtmlCell(escape(label, 40), title=label) for label in found]
    rows = []
    for value in values[:_MOST_VALUES]:
        line = [HtmlCell(escape(value, 80), "ek-name", value)]
        line += [_group_cell(_inside(groups, tag, value, metric)) for groups in found.values()]
        rows.append(("", line))
    components.table(header, rows, f"{metric} by {tag}")
    if len(values) > _MOST_VALUES:
        components.note(f"{_MOST_VALUES} of {len(values):,} values; `evalkit show RUN --json` has all")


def _inside(content: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """What lies under names one below the other; nothing where it has another form."""
    for name in names:
        below = content.get(name)
        if not isinstance(below, dict):
            return {}
        content = below
    return content


def _group_cell(content: Mapping[str, Any]) -> HtmlCell:
    value, n = content.get("value"), content.get("n")
    if not isinstance(value, (int, float)):
        return HtmlCell("–" if content else "", title=str(content.get("reason") or ""))
    return HtmlCell(f'{shown(float(value))}<span class="ek-sub">n {escape(n, 12)}</span>')


@st.cache_data(show_spinner=False, max_entries=200)
def _read_summary(path: str, stamp: str) -> dict[str, Any]:
    from evalkit.store import load_run

    return load_run(path).summary or {}


def _summary(run: Run) -> dict[str, Any]:
    from evalkit_leaderboard.runs import stamp

    return _read_summary(run.path, stamp(run.path))


def _protocol(context: Context, info: TaskInfo, keys: Mapping[str, str]) -> None:
    st.header("Protocol, data and prompt", anchor=False)
    try:
        task = registry.task(info.name)
    except EvalkitError:
        components.note(f"{info.name} is not installed here; its runs are shown as they are stored.")
    else:
        components.facts(_described(task))
    if keys:
        _may_be_compared(context, keys)


def _may_be_compared(context: Context, keys: Mapping[str, str]) -> None:
    """Signatures, and which runs Compare and the command line take: both ask the same function."""
    usual, *_ = alike({key: context.runs[key] for key in keys.values()})
    first = context.runs[usual[0]]
    rows: list[tuple[str, Sequence[HtmlCell]]] = []
    for label, key in list(keys.items())[:_MOST_ROWS]:
        run = context.runs[key]
        why = refusal(first.measured, run.measured)
        said = f"no: {why}" if why else f"yes, {len(usual)} runs"
        cells = [HtmlCell(escape(said, 400), "ek-left"), HtmlCell(escape(run.signature, 400), "ek-left")]
        rows.append(("", [HtmlCell(escape(label, 80), "ek-name", label), *cells]))
    titles = (f"May be compared with {escape(one_line(first.model, 40))}", "Signature")
    header = [HtmlCell("Model", "ek-name"), *(HtmlCell(title, "ek-left") for title in titles)]
    components.table(header, rows, "signatures")
    if len(keys) > _MOST_ROWS:
        components.note(f"{_MOST_ROWS} of {len(keys):,} models.")
    components.note("A comparison checks the requests and images of each sample besides.")


def _described(task: Task) -> dict[str, object]:
    policy, generation = task.image_policy, task.generation
    grid = f"exactly {policy.grid[0]} by {policy.grid[1]} tiles" if policy.grid else ""
    thumbnail = " and a thumbnail" if policy.thumbnail else ""
    sampling = "greedy" if generation.temperature == 0 else f"temperature {generation.temperature:g}"
    needed = task.data_source.files_of(task.splits[0])
    files = [f"{file.path} from {file.source} ({file.licence})" for file in needed]
    return {
        "Task": (type(task).__doc__ or "").strip().splitlines()[0] if type(task).__doc__ else task.title,
        "Protocol": f"{task.protocol} (of {', '.join(task.protocols)}), version {task.version}",
        "Splits": ", ".join(task.splits),
        "Published size": ", ".join(f"{split} {size:,}" for split, size in task.data_source.sizes.items()),
        "Prompt": task.template,
        "Generation": f"{sampling}, at most {generation.max_new_tokens} new tokens",
        "Images": grid or f"{policy.min_tiles} to {policy.max_tiles} tiles{thumbnail}",
        "Metrics": ", ".join(f"{metric.name} ({metric.unit})" for metric in task.metrics()),
        "Data": "\n".join(files),
    }
