"""Headers of a table that sort it: what the browser does when one is pressed, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from evalkit_leaderboard import state

_NAME = "evalkit-headers"
#: Hears presses of the table's headers; brings the column that is sorted by into view.
_SCRIPT = """
export default function ({ data, setTriggerValue }) {
  const pressed = (event) => {
    const button = event.target.closest ? event.target.closest("button[data-sort]") : null;
    if (!button) return;
    const again = button.closest("th[aria-sort]") !== null;
    setTriggerValue("sort", { name: button.dataset.sort, again, at: event.timeStamp });
  };
  const forget = () => document.removeEventListener("click", document.ekPressed, true);
  forget();  // this runs again at each change, and only the last one hears
  document.ekPressed = pressed;
  document.addEventListener("click", pressed, true);
  const show = () => {
    const head = document.querySelector("table.ek th[aria-sort]");
    const frame = head && head.closest(".ek-scroll");
    if (!frame || document.ekSorted === data.sort) return;
    document.ekSorted = data.sort;
    const name = frame.querySelector("th.ek-name").offsetWidth;
    const from = head.offsetLeft, to = from + head.offsetWidth;
    if (from < frame.scrollLeft + name || to > frame.scrollLeft + frame.clientWidth)
      frame.scrollLeft = from - name;
  };
  setTimeout(show, 60);
  return forget;
}
"""


@st.cache_resource(show_spinner=False)
def _component() -> Callable[..., Any]:
    return st.components.v2.component(_NAME, js=_SCRIPT)


def _sort() -> None:
    """By the column that was pressed; by the same one once more, the other way round."""
    pressed = getattr(st.session_state.get(_NAME), "sort", None)
    if isinstance(pressed, Mapping) and isinstance(name := pressed.get("name"), str):
        state.press_sort(name, pressed.get("again") is True)


def listen(sorted_by: str) -> None:
    """Let the headers of the table above sort it; `sorted_by` is brought into view."""
    _component()(key=_NAME, data={"sort": sorted_by}, height=1, on_sort_change=_sort)
