"""Pieces of pages. Whatever comes from a run folder is escaped here: it is shown as text, never rendered."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import streamlit as st

from evalkit.text import one_line, visible
from evalkit_leaderboard.exports import MEASURED, PUBLISHED
from evalkit_leaderboard.marks import Mark

#: Characters of a text shown on a page; more stays in the run folder.
LONGEST_TEXT = 20_000
#: A text of no more characters leaves room for another one beside it.
_SHORT = 40


def escape(text: object, width: int = 0) -> str:
    """Any text as HTML that shows it, on one line, controls as escapes, cut to `width` characters."""
    plain = str(text)
    return html.escape(one_line(plain[: 4 * width] if width else plain, width))


def link(page: str, label: str, **query: str) -> str:
    """A link to a page of the app around HTML."""
    base = str(st.get_option("server.baseUrlPath") or "").strip("/")
    address = f"/{base}/{page}" if base else page
    return f'<a href="{quote(address)}?{html.escape(urlencode(query))}" target="_self">{label}</a>'


@dataclass(frozen=True, slots=True)
class HtmlCell:
    """A cell of a table: its HTML (made with `escape`), classes, a plain tooltip, and further attributes."""

    body: str
    classes: str = ""
    title: str = ""
    attributes: str = ""

    def render(self, tag: str = "td", attributes: str = "") -> str:
        """The element."""
        title = f' title="{escape(self.title, 600)}"' if self.title else ""
        classes = f' class="{self.classes}"' if self.classes else ""
        return f"<{tag}{classes}{title}{attributes}{self.attributes}>{self.body}</{tag}>"


def table(
    header: Sequence[HtmlCell], rows: Iterable[tuple[str, Sequence[HtmlCell]]], caption: str = ""
) -> None:
    """A table with a fixed header and first column; rows are (class, cells), the first cell names the row."""
    head = "".join(cell.render("th", ' scope="col"') for cell in header)
    body = "".join(_row(kind, cells) for kind, cells in rows)
    label = f' aria-label="{escape(caption)}"' if caption else ""
    st.html(
        f'<div class="ek-scroll" tabindex="0"><table class="ek"{label}><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(kind: str, cells: Sequence[HtmlCell]) -> str:
    whole = ' colspan="1000"' if len(cells) == 1 else ""  # browsers end it with the table
    name = cells[0].render("th", f' scope="row"{whole}')
    rest = "".join(cell.render() for cell in cells[1:])
    return f'<tr class="{kind}">{name}{rest}</tr>' if kind else f"<tr>{name}{rest}</tr>"


def words(marks: Iterable[Mark]) -> list[str]:
    """The words that a value needs, in a line below it; none where it needs none."""
    found = ", ".join(dict.fromkeys(mark.word for mark in marks if mark.word != "†"))
    return [f'<span class="ek-sub ek-mark">{escape(found, 60)}</span>'] if found else []


def kind(published: bool) -> str:
    """Whether a row is published or measured here; on a phone in one word where it is published."""
    if not published:
        return MEASURED
    word, rest = PUBLISHED.split(",", 1)
    return f'{word}<span class="ek-wide">,{rest}</span>'


def box(text: str, command: str = "", warn: bool = False) -> None:
    """A boxed sentence, with a command to type."""
    typed = f"<pre><code>{html.escape(visible(command))}</code></pre>" if command else ""
    role = ' role="alert"' if warn else ""
    st.html(f'<div class="ek-box{" ek-warn" if warn else ""}"{role}>{escape(text, 1500)}{typed}</div>')


def note(text: str) -> None:
    """A small sentence below something."""
    st.html(f'<div class="ek-note">{escape(text, 1500)}</div>')


def notes(texts: Iterable[str]) -> None:
    """Small sentences, one a line."""
    lines = "".join(f"<div>{escape(text, 1500)}</div>" for text in texts)
    if lines:
        st.html(f'<div class="ek-note">{lines}</div>')


def values(rows: Iterable[tuple[str, str, str]], x: str, y: str) -> None:
    """What a chart of curves shows, as a table below it: series, x and y."""
    with st.expander("The same as a table"):
        header = [HtmlCell("Series", "ek-name"), HtmlCell(escape(x)), HtmlCell(escape(y, 60))]
        shown = [
            ("", [HtmlCell(escape(name, 80), "ek-name"), HtmlCell(where), HtmlCell(value)])
            for name, where, value in rows
        ]
        table(header, shown, f"{y} by {x}")


def facts(items: Mapping[str, object]) -> None:
    """Names and what they are."""
    rows = "".join(
        f"<dt>{escape(name, 60)}</dt><dd>{html.escape(visible(str(value)[:2000]))}</dd>"
        for name, value in items.items()
        if value not in (None, "", (), [], {})
    )
    if rows:
        st.html(f'<dl class="ek-facts">{rows}</dl>')


@dataclass(frozen=True, slots=True)
class Quote:
    """A foreign text and its name.

    Attributes:
        length: of the whole text, where only its beginning was read.
    """

    label: str
    text: str
    length: int | None = None

    def render(self) -> str:
        """The raw text under its name, cut where it is very long."""
        # Line ends as references: the first one after <pre> would be swallowed.
        shown = html.escape(visible(self.text[:LONGEST_TEXT])).replace("\n", "&#10;")
        whole = len(self.text) if self.length is None else self.length
        cut = f"<div>the first {LONGEST_TEXT:,} of {whole:,} characters</div>" if whole > LONGEST_TEXT else ""
        short = len(self.text) <= _SHORT and "\n" not in self.text
        body = f"<pre>{shown}</pre>" if shown else '<pre class="ek-empty">(empty)</pre>'
        kind = ' class="ek-short"' if short else ""
        return f"<figure{kind}><figcaption>{escape(self.label, 120)}</figcaption>{body}{cut}</figure>"


def quotes(*items: Quote) -> None:
    """Foreign texts; short ones stand side by side."""
    st.html(f'<div class="ek-quotes">{"".join(item.render() for item in items)}</div>')
