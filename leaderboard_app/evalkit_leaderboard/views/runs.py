"""Runs: what every folder holds, how far running ones are, where each value comes from."""

from __future__ import annotations

import json
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from evalkit.errors import RunFolderError
from evalkit.text import one_line, visible
from evalkit_leaderboard import components, records, state
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.logs import Counter
from evalkit_leaderboard.naming import when
from evalkit_leaderboard.numbers import magnitude, memory
from evalkit_leaderboard.runs import Run

#: Seconds between two looks at running runs.
_EVERY = 2.0
#: Seconds over which a speed is taken.
_WINDOW = 60.0
#: Rows listed; the search narrows them.
_MOST = 1000
_ANY = "any"
#: Another filter starts at its first run.
_ANEW: dict[str, Any] = {"below": ("run",)}


def render(context: Context) -> None:
    """The page."""
    st.title("Runs", anchor=False)
    runs = context.runs
    if not runs:
        components.box(
            f"No run under {context.index.where} yet. Make a first one, it needs no data:",
            "evalkit run -m mini-internvl-tiny -t drivelm --split miniature",
        )
        return
    _running(runs)
    left, middle, right = st.columns([2, 1, 1])
    with left:
        text = state.search("search", "Search", placeholder="model, task, folder", **_ANEW).lower()
    with middle:
        states = [_ANY, *sorted({run.status for run in runs.values()})]
        status = state.choose("status", "Status", states, _ANY, **_ANEW)
    with right:
        tasks = [_ANY, *sorted({run.task for run in runs.values() if run.task})]
        task = state.choose("task", "Task", tasks, _ANY, **_ANEW)
    kept = [
        key
        for key, run in sorted(runs.items(), key=lambda item: _urgency(item[1]), reverse=True)
        if text in f"{run.model}\n{run.task}@{run.split}\n{run.path}".lower()
        and status in (_ANY, run.status)
        and task in (_ANY, run.task)
    ]
    if not kept:
        components.box("No run fits. Widen the search or the filters above.")
        return
    _list(context, kept[:_MOST])
    if len(kept) > _MOST:
        components.note(f"the newest {_MOST:,} of {len(kept):,} runs; search to see others")
    key = state.choose(
        "run",
        "Run folder",
        kept,
        kept[0],
        lambda k: _folder(context, runs[k]),
        lambda k: f"Run {k} does not fit the filters above." if k in runs else context.why_not(k),
    )
    _provenance(runs[key], key)


def _urgency(run: Run) -> tuple[int, str]:
    """Running runs first, then those that nothing can be read of, then the newest."""
    return {"running": 2, "broken": 1}.get(run.status, 0), run.created


@st.cache_resource(show_spinner=False)
def _counter() -> Counter:
    return Counter()


@st.cache_resource(show_spinner=False)
def _looks() -> defaultdict[str, deque[tuple[float, int]]]:
    """Times and counts of the looks of the last minute, by folder."""
    return defaultdict(deque)


def _running(runs: Mapping[str, Run]) -> None:
    running = [run for run in runs.values() if run.status == "running"]
    if running:
        _progress([(run.path, run.model, run.task, run.counts.get("expected", 0)) for run in running[:20]])


@st.fragment(run_every=_EVERY)
def _progress(running: list[tuple[str, str, str, int]]) -> None:
    """Bars of running runs, which move."""
    for path, model, task, expected in running:
        done = _counter().responses(Path(path))
        speed = _speed(_looks()[path], time.monotonic(), done)
        words = f"{one_line(model, 60)} on {one_line(task, 40)}: {done:,} of {expected:,} responses"
        if speed > 0:
            left = max(0.0, (expected - done) / speed)
            words += f", {speed:.3g} samples/s, {_left(left)} left"
        components.note(words)
        st.progress(min(1.0, done / expected) if expected else 0.0)


def _left(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def _speed(looks: deque[tuple[float, int]], now: float, done: int) -> float:
    """Responses a second over the last minute; 0 before there are any."""
    looks.append((now, done))
    while looks[0][0] < now - _WINDOW:
        looks.popleft()
    then, before = looks[0]
    return (done - before) / (now - then) if now > then else 0.0


def _folder(context: Context, run: Run) -> str:
    return one_line(context.index.place_of(run.path), 140)


def _list(context: Context, keys: list[str]) -> None:
    rows = []
    for key in keys:
        run = context.runs[key]
        counts = run.counts
        rows.append(
            (
                run.status,
                one_line(run.model, 80) or _folder(context, run),
                f"{run.task}@{run.split}" if run.task else "",
                _answered(counts),
                counts.get("errors"),
                counts.get("unparsed"),
                counts.get("truncated"),
                run.speed,
                run.tokens_per_second,
                memory(run.memory),
                when(run),
                run.reason or ("a chosen part of the split" if run.limited else ""),
                _folder(context, run),
            )
        )
    names = [
        "status", "model", "task", "answered", "errors", "unparsed", "truncated", "samples/s", "tokens/s",
        "peak memory", "created", "reason", "folder",
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=names)
    numbers = {name: st.column_config.NumberColumn(name, format="%.3g") for name in ("samples/s", "tokens/s")}
    choice = st.dataframe(
        frame,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key="runs-list",
        column_config=numbers,
        placeholder="",
        height=min(460, 38 + 35 * len(rows)),
    )
    selected = choice.selection.rows if hasattr(choice, "selection") else []
    if selected and selected[0] < len(keys) and st.session_state.get("runs-chosen") != keys[selected[0]]:
        st.session_state["runs-chosen"] = keys[selected[0]]
        state.remember("run", keys[selected[0]])


def _answered(counts: Mapping[str, int]) -> str:
    """`64 of 66`; of a run that goes on, the bar tells how many."""
    if "expected" not in counts:
        return ""
    answered = f"{counts['answered']:,}" if "answered" in counts else "–"
    return f"{answered} of {counts['expected']:,}"


def _failures(run: Run) -> None:
    """What went wrong, by kind."""
    if not run.scored or not run.counts.get("errors"):
        return
    try:
        failures = records.table(run.folder).failures
    except RunFolderError as error:
        components.box(str(error), warn=True)
        return
    header = [HtmlCell("Error", "ek-name"), HtmlCell("samples"), HtmlCell("first message", "ek-left")]
    rows = [
        ("", [HtmlCell(escape(kind, 60), "ek-name"), HtmlCell(f"{n:,}"), HtmlCell(escape(text), "ek-left")])
        for kind, n, text in failures
    ]
    components.table(header, rows, "errors by kind")


def _provenance(run: Run, key: str) -> None:
    st.header("Where the values come from", anchor=False)
    if run.status == "broken":
        components.box(f"Broken: {run.reason}", warn=True)
        components.facts({"folder": run.path})
        return
    if run.scored:
        st.html(f'<div class="ek-note">{components.link("samples", "Open its samples →", run=key)}</div>')
    facts: dict[str, object] = {
        "folder": run.path,
        "status": f"{run.status}{' (limited)' if run.limited else ''}",
        "reason": run.reason,
        "model": run.model,
        "parameters": magnitude(run.parameters),
        "weights": run.weights,
        "task": f"{run.task}@{run.split}, protocol {run.protocol}",
        "signature": run.signature,
        "non-standard": ", ".join(f"{name}={value}" for name, value in run.nonstandard.items()),
        "notes": "\n".join(run.notes),
        "counts": ", ".join(f"{count:,} {name}" for name, count in run.counts.items()),
        "speed": f"{run.speed:.3g} samples/s, {run.tokens_per_second or 0:.3g} tokens/s" if run.speed else "",
        "peak memory": memory(run.memory),
        "device": f"{run.device} ({run.engine}, {run.dtype or 'dtype not known'})"
        if run.device
        else run.engine,
        "created": when(run),
    }
    components.facts(facts)
    _failures(run)
    with st.expander("manifest.json: versions, hashes, settings, hardware, sessions"):
        try:
            from evalkit.store import load_run

            text = json.dumps(load_run(run.path).manifest, indent=1, ensure_ascii=False)
        except (RunFolderError, ValueError) as error:
            components.box(str(error), warn=True)
            return
        st.code(visible(text[: components.LONGEST_TEXT]), language=None, wrap_lines=True, height=420)
        if len(text) > components.LONGEST_TEXT:
            components.note(f"the first {components.LONGEST_TEXT:,} of {len(text):,} characters")
