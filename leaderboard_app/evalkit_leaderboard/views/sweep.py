"""A sweep on the page Training: its values on the x axis, and the verdict that the sweep gives each point."""

from __future__ import annotations

import streamlit as st

from evalkit.errors import RunFolderError
from evalkit_leaderboard import charts, components, logs, state, sweeps, trends
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.context import Context


def render(context: Context) -> None:
    """The part of the page; nothing but a word where there is no sweep."""
    st.header("Sweeps", anchor=False)
    found = logs.named(sweeps.RESULT, context.training, *context.index.roots)
    if not found:
        components.note(
            f"No sweep ({sweeps.RESULT}) under {context.training} or {context.index.where}. "
            "`evalkit train sweep RECIPE --vary KEY=V,V --eval-task TASK` writes one."
        )
        return
    left, right = st.columns(2)
    with left:
        name = state.choose(
            "sweep",
            "Sweep",
            list(found),
            next(iter(found)),
            trends.plain,
            lambda name: f"No sweep {name} is here: it was moved or deleted.",
            below=("scores",),
        )
    try:
        sweep = sweeps.read_sweep(found[name])
    except (RunFolderError, OSError) as error:
        components.box(str(error), warn=True)
        return
    by_name = {scores.name: scores for scores in sweep.scores}
    if not by_name:
        components.notes(["Nothing was evaluated in this sweep.", *sweep.notes])
        return
    with right:
        chosen = state.choose("scores", "Task and metric", list(by_name), next(iter(by_name)), trends.plain)
    _show(sweep, by_name[chosen])


def _show(sweep: sweeps.Sweep, scores: sweeps.Scores) -> None:
    if sweeps.drawn(scores):
        st.altair_chart(charts.sweep(scores, sweep.setting), width="stretch")
    titles = sweeps.header(sweep)
    header = [HtmlCell(titles[0], "ek-name"), *(HtmlCell(escape(title, 60)) for title in titles[1:])]
    rows = [
        ("", [HtmlCell(escape(name, 60), "ek-name"), *(HtmlCell(escape(cell, 200)) for cell in rest)])
        for name, *rest in map(sweeps.cells, scores.points)
    ]
    components.table(header, rows, f"sweep over {sweep.setting}")
    components.notes(sweeps.notes(sweep, scores))
