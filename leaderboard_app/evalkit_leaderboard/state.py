"""What the reader chose, kept in the address so that a view can be shared.

A widget takes its first value from the address and writes each later one there. What the address names and
the app does not offer never becomes something else: it is said, and the part of the page that would show it
waits.

Widgets that are folded away (`folded`) are drawn when the reader opens them; until then the address alone
says what is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
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


class NotHere(Exception):
    """The address names what is not offered here; nothing takes its place."""


_FOLDED: ContextVar[bool] = ContextVar("folded", default=False)


@contextmanager
def folded(label: str, icon: str = "", key: str = "", opened: bool | None = None) -> Iterator[bool]:
    """A button that opens what is drawn in the block; yields whether it is open.

    Args:
        key: names it; the label, where it does not change. opened: shown in the page, at first so.
    """
    key = f"open-{key or label}"
    box = (
        st.popover(label, icon=icon, key=key, on_change="rerun")
        if opened is None
        else st.expander(label, expanded=opened, key=key, on_change="rerun")
    )
    before = _FOLDED.set(not box.open)
    try:
        with box:
            yield bool(box.open)
    finally:
        _FOLDED.reset(before)


def _drawn(widget: Callable[..., Any], label: str, key: str, value: Any, *more: Any, **settings: Any) -> Any:
    """What the reader chooses with a widget that first shows `value`; that value where it is folded away."""
    if _FOLDED.get():
        return value
    st.session_state[key] = value
    return widget(label, *more, key=key, **settings)


@contextmanager
def said() -> Iterator[None]:
    """Say what is not here in place of the part of a page that would show it; the rest goes on."""
    try:
        yield
    except NotHere as gone:
        components.box(str(gone), warn=True)


def choose(
    name: str,
    label: str,
    choices: Sequence[str],
    default: str,
    shown: Callable[[str], str] = str,
    why: Callable[[str], str] | None = None,
    below: tuple[str, ...] = (),
    **settings: Any,
) -> str:
    """A select box of plain texts.

    Args:
        why: of what an address names (runs, tasks, splits): what is said of one that is not here. Such a
            choice stands in the address always, others only where they are not the default.
        below: names in the address that belong to the choice and go with it when the reader chooses another.

    Raises:
        NotHere: the address names none of the choices.
    """
    key, known = _key(name), _addressable(choices)
    wanted = _wanted(name, known, default)
    value = _drawn(
        st.selectbox,
        label,
        key,
        wanted if wanted in known else None,
        list(known),
        index=0 if wanted in known else None,  # with None the reader could choose nothing
        format_func=_format(known, shown),
        placeholder="choose another",
        on_change=forget,
        args=below,
        **settings,
    )
    _write(name, [wanted], ["" if why else _plain(default)])
    if value is None:
        raise NotHere(why(wanted) if why else _not_offered(label, wanted))
    return known[value]


def _wanted(name: str, known: Mapping[str, str], default: str) -> str:
    """What the widget holds, else what the address names, else the default.

    A choice that has gone stands in the address as well; another page's left-over does not.
    """
    held = st.session_state.get(_key(name))
    return str(held if held in known else (_given(name) or [_plain(default)])[0])


def _not_offered(label: str, wanted: str) -> str:
    return f"{label}: {wanted} is not offered here; choose another"


def forget(*names: str) -> None:
    """Take names out of the address and from their widgets, when another choice ends them.

    A name that ends in a dot stands for all that begin with it.
    """
    for name in names:
        whole = [one for one in st.query_params if one.startswith(name)] if name.endswith(".") else [name]
        for one in whole:
            st.session_state.pop(_key(one), None)
            if one in st.query_params:
                del st.query_params[one]


def choose_several(
    name: str,
    label: str,
    choices: Sequence[str],
    default: Sequence[str] = (),
    shown: Callable[[str], str] = str,
    why: Callable[[str], str] | None = None,
    below: tuple[str, ...] = (),
    **settings: Any,
) -> list[str]:
    """A multiple choice of plain texts; arguments are those of `choose`.

    Raises:
        NotHere: the address names one or more that are none of the choices.
    """
    key, known = _key(name), _addressable(choices)
    usual = [_plain(value) for value in default]
    held = st.session_state.get(key)
    wanted = _given(name) or usual if held is None or (why and not held) else [str(value) for value in held]
    gone = [value for value in dict.fromkeys([*_given(name), *wanted]) if value not in known]
    values = _drawn(
        st.multiselect,
        label,
        key,
        [value for value in wanted if value in known],
        list(known),
        format_func=_format(known, shown),
        on_change=_forget_choice,
        args=(name, *below),
        **settings,
    )
    _write(name, list(dict.fromkeys([*_given(name), *wanted])) if gone else values, [] if why else usual)
    if gone:
        raise NotHere("; ".join(why(value) if why else _not_offered(label, value) for value in gone))
    return [known[value] for value in values]


def _forget_choice(name: str, *below: str) -> None:
    """Take a name out of the address alone, whose widget has another value; and what belongs to it."""
    if name in st.query_params:
        del st.query_params[name]
    forget(*below)


def pick(
    name: str,
    label: str,
    choices: Sequence[str],
    default: str,
    shown: Callable[[str], str] = str,
    below: tuple[str, ...] = (),
    **settings: Any,
) -> str:
    """A row of buttons; one is always chosen. Arguments are those of `choose`.

    Raises:
        NotHere: the address names none of the choices.
    """
    key, known = _key(name), _addressable(choices)
    wanted = _wanted(name, known, default)
    value = _drawn(
        st.segmented_control,
        label,
        key,
        wanted if wanted in known else None,
        list(known),
        format_func=_label(known, shown),
        on_change=_pressed,
        args=(name, _plain(default), *below),
        **settings,
    )
    _write(name, [wanted], [_plain(default)])
    if value is None:
        raise NotHere(_not_offered(label, wanted))
    return known[value]


def _label(known: Mapping[str, str], shown: Callable[[str], str]) -> Callable[[str], str]:
    return lambda value: unmarked(shown(known.get(value, value)))


def unmarked(text: str) -> str:
    """A button's words; they are Markdown to Streamlit, so that their signs are shown as they are."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~<>:$&-])", r"\\\1", one_line(_plain(text), _WIDTH))


def _pressed(name: str, default: str, *below: str) -> None:
    """Pressing the button that is chosen already would leave none chosen: that means the default."""
    if st.session_state.get(_key(name)) is None:
        st.session_state[_key(name)] = default
    forget(*below)


def switch(
    name: str, label: str, default: bool = False, below: tuple[str, ...] = (), **settings: Any
) -> bool:
    """A switch.

    Raises:
        NotHere: the address has neither 1 nor 0.
    """
    key, words = _key(name), (_given(name) or [str(int(default))])[0]
    first = bool(st.session_state.get(key, words == "1"))
    value = bool(
        _drawn(st.toggle, label, key, first, on_change=_forget_choice, args=(name, *below), **settings)
    )
    if words not in ("0", "1"):
        raise NotHere(f"{label}: {name}={words} in the address is neither 1 nor 0")
    _write(name, [str(int(value))], [str(int(default))])
    return value


def search(name: str, label: str, below: tuple[str, ...] = (), **settings: Any) -> str:
    """A line of text; `below` as of `choose`."""
    key = _key(name)
    if key not in st.session_state:
        st.session_state[key] = (_given(name) or [""])[0][:200]
    value = str(
        st.text_input(label, key=key, max_chars=200, on_change=forget, args=below, **settings) or ""
    ).strip()
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


def press_sort(name: str, again: bool) -> None:
    """Sort by a column whose header was pressed; where it is sorted by that already, the other way round."""
    reverse = _key("reverse")
    turned = again and not st.session_state.get(reverse, given("reverse") == "1")
    remember("sort", name)
    st.session_state[reverse] = turned


def current(name: str, default: str) -> str:
    """What a choice is, before its widget is made; whether it is offered is not known here."""
    held = st.session_state.get(_key(name))
    return str(held if held is not None else (_given(name) or [default])[0])
