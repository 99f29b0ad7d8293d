"""Can these intervals be trusted? A plot of how often such intervals hold the value they are about."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from evalkit_leaderboard import charts, components, reliability, state
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.reliability import Coverage
from evalkit_leaderboard.runs import MetricCell, stamp

#: Runs that are checked, each in about a second.
_MOST = 12
_SOURCE = (
    "Each run's clusters are taken as all there are, so that its value is the truth. "
    f"{reliability.WORLDS} worlds of as many clusters are drawn from them, and the interval is made in "
    "each: it should hold the truth in 95% of them. Lines are 95% intervals of that share. What a run has "
    "none of, such as a rare failure, no world has either: coverage in worlds of known truth is measured in "
    "docs/statistics.md."
)


def render(context: Context, keys: Mapping[str, str], metric: str) -> None:
    """The plot on request, of the runs shown (label to key)."""
    scored = {label: context.runs[key] for label, key in keys.items() if context.runs[key].scored}
    with_value = {label: run for label, run in scored.items() if _has_interval(run.metrics.get(metric))}
    if not with_value or not state.switch(
        "trust", f"Check these intervals of {metric}: do they hold what they promise?"
    ):
        return
    found: dict[str, Coverage | str] = {}
    with st.spinner("Drawing worlds"):
        for label, run in list(with_value.items())[:_MOST]:
            found[label] = reliability.of_run(run.folder, metric, stamp(run.path))
    known = {label: one for label, one in found.items() if isinstance(one, Coverage)}
    st.header("Reliability of the intervals", anchor=False)
    if known:
        rows = [
            {"label": label, "value": one.value, "low": one.low, "high": one.high}
            for label, one in known.items()
        ]
        st.altair_chart(charts.coverage(rows), width="stretch")
    titles = ("intervals that hold the value", "95% interval", "worlds", "clusters")
    header = [HtmlCell("Model", "ek-name"), *(HtmlCell(title) for title in titles)]
    body = [
        (
            "",
            [
                HtmlCell(escape(label, 80), "ek-name", label),
                HtmlCell(f"{one.value:.1f}%"),
                HtmlCell(f"[{one.low:.1f}, {one.high:.1f}]"),
                HtmlCell(f"{one.worlds:,}"),
                HtmlCell(f"{one.clusters:,}"),
            ],
        )
        for label, one in known.items()
    ]
    if body:
        components.table(header, body, f"reliability of the intervals of {metric}")
    components.notes([*(f"{label}: {one}" for label, one in found.items() if isinstance(one, str)), _SOURCE])
    if len(with_value) > _MOST:
        components.note(f"The first {_MOST} of {len(with_value):,} runs.")


def _has_interval(cell: MetricCell | None) -> bool:
    return cell is not None and cell.low is not None
