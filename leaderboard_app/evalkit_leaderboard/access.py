"""What screen readers need that Streamlit leaves out: icons are images, not words of a button's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

_NAME = "evalkit-access"
#: An icon is a word of its font ("filter_list"), which would be read out.
_SCRIPT = """
export default function () {
  if (document.ekIcons) return;
  const hide = () => {
    for (const icon of document.querySelectorAll("[data-testid=stIconMaterial]:not([aria-hidden])"))
      icon.setAttribute("aria-hidden", "true");
  };
  document.ekIcons = new MutationObserver(hide);
  document.ekIcons.observe(document.body, { childList: true, subtree: true });
  hide();
}
"""


@st.cache_resource(show_spinner=False)
def _component() -> Callable[..., Any]:
    return st.components.v2.component(_NAME, js=_SCRIPT)


def icons_are_hidden() -> None:
    """Hide icons of controls from screen readers, also those that come later."""
    _component()(key=_NAME, height=1)
