"""What the reader chose, kept in the address so that a view can be shared.

A widget takes its first value from the address and writes each later one there. How something is shown may be
left out without a word where the app does not offer it; what names a run, a sample or a task never becomes
another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from evalkit.text import one_line
from evalkit_leaderboard import components

#: Characters of a choice that are shown.
_WIDTH = 160


def _key(name: str) -> str:
    return f"q-{name}"


def _given(name: str) -> list[str]:
    return st.query_params.get_all(name)


def given(name: str) -> str:
    """The first value of a name in the address, or an empty text."""
    return (_given(name) or [""])[0]


def _write(name: str, values: Sequence[str], default: Sequence[str]) -> None:
    if list(values) == list(default):
        if name in st.query_params:
            del st.query_params[name]
    elif st.query_params.get_all(name) != list(values):
        st.query_params[name] = list(values)


def _plain(text: str) -> str:
    """The text in valid UTF-8, which an address and a widget need."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _addressable(choices: Sequence[str]) -> dict[str, str]:
    """Choices by the text that stands for them in the address."""
    return {_plain(choice): choice for choice in choices}


def _format(known: Mapping[str, str], shown: Callable[[str], str]) -> Callable[[str], str]:
    return lambda value: one_line(shown(known.get(value, value)), _WIDTH)


def choose(
    name: str,
    label: str,
    choices: Sequence[str],
    default: str,
    shown: Callable[[str], str] = str,
    **settings: Any,
) -> str:
    """A select box of plain texts."""
    key, known = _key(name), _addressable(choices)
    if st.session_state.get(key) not in known:
        given = next((value for value in _given(name) if value in known), _plain(default))
        st.session_state[key] = given
    value = str(st.selectbox(label, list(known), key=key, format_func=_format(known, shown), **settings))
    _write(name, [value], [_plain(default)])
    return known[value]


def choose_named(
    name: str,
    label: str,
    choices: Sequence[str],
    usual: str,
    shown: Callable[[str], str],
    why: Callable[[str], str],
    below: tuple[str, ...] = (),
) -> str | None:
    """A select box of what an address names: runs, tasks, splits. Its choice always stands in the address.

    Args:
        why: what is said of a name that is not among the choices. below: names in the address that belong to
            the choice and go with it when the reader chooses another.

    Returns:
        None where what was named is not here; that has been said, and nothing takes its place.
    """
    key, known = _key(name), _addressable(choices)
    held = st.session_state.get(key)
    # A choice that has gone stands in the address as well; another page's left-over does not.
    wanted = str(held if held in known else (_given(name) or [_plain(usual)])[0])
    st.session_state[key] = wanted if wanted in known else None
    value = st.selectbox(
        label,
        list(known),
        index=None,
        key=key,
        format_func=_format(known, shown),
        placeholder="choose another",
        on_change=forget,
        args=below,
    )
    _write(name, [wanted], [""])
    if value is None:
        components.box(why(wanted), warn=True)
        return None
    return known[value]


def forget(*names: str) -> None:
    """Take names out of the address and from their widgets, when another choice ends them."""
    for name in names:
        st.session_state.pop(_key(name), None)
        if name in st.query_params:
            del st.query_params[name]


def choose_several(
    name: str,
    label: str,
    choices: Sequence[str],
    default: Sequence[str] = (),
    shown: Callable[[str], str] = str,
    **settings: Any,
) -> list[str]:
    """A multiple choice of plain texts."""
    key, known = _key(name), _addressable(choices)
    usual = [_plain(value) for value in default]
    if key not in st.session_state:
        given = [value for value in _given(name) if value in known]
        st.session_state[key] = given or [value for value in usual if value in known]
    else:
        kept = [value for value in st.session_state[key] if value in known]
        if kept != st.session_state[key]:
            st.session_state[key] = kept
    values = st.multiselect(label, list(known), key=key, format_func=_format(known, shown), **settings)
    _write(name, values, usual)
    return [known[value] for value in values]


def choose_several_named(
    name: str,
    label: str,
    choices: Sequence[str],
    usual: str,
    shown: Callable[[str], str],
    why: Callable[[str], str],
) -> list[str] | None:
    """A multiple choice of what an address names, as `choose_named` is a single one.

    Returns:
        None where one that was named is not here; that has been said, and nothing takes its place.
    """
    key, known = _key(name), _addressable(choices)
    held = st.session_state.get(key)
    wanted = [str(value) for value in held] if held else (_given(name) or [_plain(usual)])
    gone = [value for value in dict.fromkeys([*_given(name), *wanted]) if value not in known]
    st.session_state[key] = [value for value in wanted if value in known]
    values = st.multiselect(
        label, list(known), key=key, format_func=_format(known, shown), on_change=forget_names, args=(name,)
    )
    _write(name, [*values, *gone], [])
    for value in gone:
        components.box(why(value), warn=True)
    return None if gone else [known[value] for value in values]


def forget_names(name: str) -> None:
    """Take a name out of the address alone: its widget has another value."""
    if name in st.query_params:
        del st.query_params[name]


def pick(name: str, label: str, choices: Sequence[str], default: str, **settings: Any) -> str:
    """A row of buttons with the app's own words; one is always chosen."""
    key = _key(name)
    if st.session_state.get(key) not in choices:
        st.session_state[key] = next((value for value in _given(name) if value in choices), default)
    value = st.segmented_control(label, choices, key=key, **settings) or default
    _write(name, [value], [default])
    return str(value)


def switch(name: str, label: str, default: bool = False, **settings: Any) -> bool:
    """A switch."""
    key = _key(name)
    if key not in st.session_state:
        given = _given(name)
        st.session_state[key] = given[0] == "1" if given and given[0] in ("0", "1") else default
    value = bool(st.toggle(label, key=key, **settings))
    _write(name, [str(int(value))], [str(int(default))])
    return value


def search(name: str, label: str, **settings: Any) -> str:
    """A line of text."""
    key = _key(name)
    if key not in st.session_state:
        st.session_state[key] = (_given(name) or [""])[0][:200]
    value = str(st.text_input(label, key=key, max_chars=200, **settings) or "").strip()
    _write(name, [value], [""])
    return value


def number(name: str, default: int, low: int, high: int) -> int:
    """A whole number of the address that no widget shows, within bounds."""
    try:
        value = int((_given(name) or [str(default)])[0])
    except ValueError:
        value = default
    return min(max(value, low), high)


def set_number(name: str, value: int, default: int) -> None:
    """Write such a number."""
    _write(name, [str(value)], [str(default)])


def remember(name: str, value: str) -> None:
    """Write a choice that was made otherwise than by its widget, before the widget is made."""
    st.session_state[_key(name)] = value


def press_sort(name: str) -> None:
    """Sort by a column whose header was pressed; by the one that it is sorted by, the other way round."""
    if given("sort") == name or st.session_state.get(_key("sort")) == name:
        turned = not st.session_state.get(_key("reverse"), False)
    else:
        turned = False
    remember("sort", name)
    st.session_state[_key("reverse")] = turned
