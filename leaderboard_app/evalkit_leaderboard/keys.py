"""Arrow keys that move from sample to sample, whatever has the focus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

_NAME = "evalkit-keys"
#: In a text field the arrows move its caret, in a list and a grid its choice; Enter leaves the field.
_SCRIPT = """
export default function () {
  const own = (target) => {
    if (!target.closest) return false;
    if (target.matches("input[role=combobox]")) return target.getAttribute("aria-expanded") === "true";
    if (target.matches("input, textarea")) return !["checkbox", "radio"].includes(target.type);
    return target.closest("[data-testid=stDataFrame], [role=listbox], [role=dialog]") !== null;
  };
  const pressed = (event) => {
    const target = event.target;
    if (event.key === "Enter" && target.matches && target.matches("input[type=text]:not([role=combobox])"))
      setTimeout(() => target.blur());
    const name = { ArrowLeft: "previous", ArrowRight: "next" }[event.key];
    if (!name || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || own(target)) return;
    const button = document.querySelector(`.st-key-${name} button`);
    if (!button) return;
    event.preventDefault();
    event.stopPropagation();
    if (!button.disabled) button.click();
  };
  const forget = () => document.removeEventListener("keydown", document.ekKeys, true);
  forget();  // this runs again at each change, and only the last one hears
  document.ekKeys = pressed;
  document.addEventListener("keydown", pressed, true);
  return forget;
}
"""


@st.cache_resource(show_spinner=False)
def _component() -> Callable[..., Any]:
    return st.components.v2.component(_NAME, js=_SCRIPT)


def listen() -> None:
    """Let the keys ← and → press the buttons `previous` and `next` of the page."""
    _component()(key=_NAME, height=1)
