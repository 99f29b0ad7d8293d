"""Colours of both themes, told apart with any colour vision (Okabe and Ito 2008), and the app's styles."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

#: Categories of charts, in this order; each has a light and a dark form of the same hue.
LIGHT_SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#A66A00", "#3B8FC4", "#6B6B6B")
DARK_SERIES = ("#56B4E9", "#E69F00", "#2EC4A0", "#E39AC3", "#F0E442", "#D57A42", "#A5A5A5")


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one theme.

    Attributes:
        good, bad: an improvement and a regression; target, prediction: what is drawn on images.
        series: of charts.
    """

    background: str
    raised: str
    text: str
    muted: str
    line: str
    accent: str
    best: str
    published: str
    good: str
    bad: str
    series: tuple[str, ...]


LIGHT = Palette(
    background="#FFFFFF",
    raised="#F4F6F9",
    text="#1B2430",
    muted="#5B6776",
    line="#DCE1E8",
    accent="#0072B2",
    best="#DCEEF9",
    published="#FBF6EA",
    good="#00609A",
    bad="#A54300",
    series=LIGHT_SERIES,
)
DARK = Palette(
    background="#10151C",
    raised="#1A212B",
    text="#E6EAF0",
    muted="#9AA7B7",
    line="#2D3744",
    accent="#56B4E9",
    best="#16384F",
    published="#262115",
    good="#56B4E9",
    bad="#F0A05A",
    series=DARK_SERIES,
)

#: What is drawn on images, on whatever they show: each line has a dark rim.
TARGET_COLOUR, PREDICTION_COLOUR = "#56D3A8", "#FFB000"


def palette() -> Palette:
    """Colours of the theme that the reader has on."""
    import streamlit as st

    return DARK if st.context.theme.type == "dark" else LIGHT


def options() -> dict[str, str]:
    """Streamlit's options for both themes."""
    found = {
        "theme.baseRadius": "0.4rem",
        "theme.headingFontWeights": "[650,600,600,600,600,600]",
        "theme.headingFontSizes": '["1.7rem","1.2rem","1.1rem","1rem","1rem","1rem"]',
    }
    themes: tuple[tuple[Literal["light", "dark"], Palette], ...] = (("light", LIGHT), ("dark", DARK))
    for name, colours in themes:
        found |= {
            f"theme.{name}.primaryColor": colours.accent,
            f"theme.{name}.backgroundColor": colours.background,
            f"theme.{name}.secondaryBackgroundColor": colours.raised,
            f"theme.{name}.textColor": colours.text,
            f"theme.{name}.borderColor": colours.line,
            f"theme.{name}.linkColor": colours.accent,
            f"theme.{name}.chartCategoricalColors": json.dumps(colours.series),
        }
    return found


def styles(colours: Palette) -> str:
    """The style sheet of the app's own tables and boxes."""
    return f"""<style>
.stMainBlockContainer {{ padding: 3.6rem 2rem 4rem; max-width: 1680px; }}
.stMultiSelect span[title] {{ color: {colours.background} !important; }}
.ek-scroll {{ overflow: auto; max-height: 75vh; border: 1px solid {colours.line}; border-radius: .4rem; }}
.ek {{ border-collapse: separate; border-spacing: 0; width: 100%; font-size: .86rem; line-height: 1.25;
  font-variant-numeric: tabular-nums; color: {colours.text}; margin: 0; }}
.ek th, .ek td {{ padding: .42rem .65rem; border: 0; border-bottom: 1px solid {colours.line};
  text-align: right; vertical-align: top; background: {colours.background}; white-space: nowrap; }}
.ek tr:last-child td, .ek tr:last-child th {{ border-bottom: 0; }}
.ek thead th {{ position: sticky; top: 0; z-index: 2; background: {colours.raised}; font-weight: 600;
  vertical-align: bottom; }}
.ek th.ek-name {{ position: sticky; left: 0; z-index: 1; text-align: left; font-weight: 550;
  white-space: normal; overflow-wrap: anywhere; min-width: 13.5rem; max-width: 18rem;
  border-right: 1px solid {colours.line}; }}
.ek thead th.ek-name {{ z-index: 3; }}
.ek .ek-left {{ text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }}
.ek tr.ek-published th, .ek tr.ek-published td {{ background: {colours.published}; }}
.ek tr.ek-published th.ek-name {{ font-style: italic; }}
.ek tr.ek-apart th.ek-name {{ white-space: normal; max-width: none; border-top: 2px solid {colours.text}; }}
.ek td.ek-best {{ background: {colours.best} !important; font-weight: 700; }}
.ek td.ek-unranked .ek-value {{ color: {colours.muted}; font-style: italic; }}
.ek-sub {{ display: block; color: {colours.muted}; font-size: .74rem; font-weight: 400;
  font-style: normal; }}
.ek-wrap {{ white-space: normal; max-width: 7.6rem; margin-left: auto; }}
.ek-mark {{ font-style: italic; color: {colours.bad}; }}
.ek thead th.ek-head {{ white-space: normal; min-width: 3.6rem; }}
.ek .ek-sort {{ font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer; text-align: inherit; }}
.ek .ek-sort:hover, .ek .ek-sort:focus-visible {{ color: {colours.accent}; text-decoration: underline; }}
.ek th[aria-sort="descending"] .ek-sort::after {{ content: " ↓" / ""; }}
.ek th[aria-sort="ascending"] .ek-sort::after {{ content: " ↑" / ""; }}
.ek-good {{ color: {colours.good}; }} .ek-bad {{ color: {colours.bad}; }}
.ek a {{ color: inherit; text-decoration: none; }}
.ek a:hover, .ek a:focus {{ color: {colours.accent}; text-decoration: underline; }}
.ek-box {{ border: 1px solid {colours.line}; border-left: 4px solid {colours.accent}; border-radius: .4rem;
  padding: .7rem .9rem; background: {colours.raised}; color: {colours.text}; overflow-wrap: anywhere;
  font-size: .92rem; }}
.ek-box.ek-warn {{ border-left-color: {colours.bad}; }}
.ek-box pre, .ek-box code {{ font-size: .82rem; white-space: pre-wrap; overflow-wrap: anywhere;
  margin: .4rem 0 0; background: transparent; color: {colours.text}; padding: 0; }}
.ek-quotes {{ display: flex; flex-wrap: wrap; gap: .55rem .8rem; color: {colours.text}; font-size: .92rem; }}
.ek-quotes figure {{ flex: 1 1 100%; min-width: 0; margin: 0; }}
.ek-quotes figure.ek-short {{ flex: 1 1 7.5rem; }}
.ek-quotes figcaption, .ek-quotes div {{ color: {colours.muted}; font-size: .78rem; margin-bottom: .15rem; }}
.ek-quotes pre {{ margin: 0; padding: .45rem .65rem; border: 1px solid {colours.line}; border-radius: .4rem;
  background: {colours.raised}; color: {colours.text}; font-size: .84rem; line-height: 1.45;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 24rem; overflow: auto; }}
.ek-quotes pre.ek-empty {{ color: {colours.muted}; font-style: italic; }}
.ek-line {{ display: inline-block; width: 1.5rem; margin: 0 .35rem .2rem .9rem; border-top: 3px solid;
  vertical-align: middle; }}
.ek-line.ek-dashed {{ border-top-style: dashed; }}
.ek-note a {{ color: {colours.accent}; }}
.ek-note {{ color: {colours.muted}; font-size: .82rem; overflow-wrap: anywhere; }}
.ek-facts {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem .9rem; font-size: .86rem;
  padding: 0 !important; margin: 0;
  color: {colours.text}; }}
.ek-facts dt {{ color: {colours.muted}; font-weight: 400; }}
.ek-facts dd {{ margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }}
.ek-image {{ overflow: auto; max-height: 70vh; border: 1px solid {colours.line}; border-radius: .4rem;
  background: {colours.raised}; text-align: center; }}
.ek-image img {{ display: inline-block; vertical-align: top; max-width: none; }}
@media (max-width: 640px) {{
  .stMainBlockContainer {{ padding: 3.6rem .8rem 3rem; }}
  .ek th.ek-name {{ min-width: 7.5rem; max-width: 8.5rem; }}
  .ek {{ font-size: .8rem; }}
  .ek th, .ek td {{ padding: .4rem .45rem; }}
  .ek-wide {{ display: none; }}
  .ek-facts {{ grid-template-columns: 1fr; }}
}}
</style>"""
