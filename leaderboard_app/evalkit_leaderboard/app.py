"""The Streamlit script: `streamlit run app.py -- --runs DIR`; `evalkit leaderboard` starts it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from evalkit.contracts import MAX_PIXELS
from evalkit.data.decoding import set_max_pixels
from evalkit_leaderboard import access, components, state, theme
from evalkit_leaderboard.context import Context, open_context, watch
from evalkit_leaderboard.views import compare, overview, runs, samples, task, training

log = logging.getLogger(__name__)

Render = Callable[[Context], None]

#: Address, title and content of every page, the first being the default.
PAGES: tuple[tuple[str, str, Render], ...] = (
    ("overview", "Overview", overview.render),
    ("task", "Task", task.render),
    ("compare", "Compare", compare.render),
    ("samples", "Samples", samples.render),
    ("training", "Training", training.render),
    ("runs", "Runs", runs.render),
)


def guarded(render: Render, runs_folders: Sequence[Path], training_folder: Path) -> None:
    """Show a page; whatever goes wrong is one line, and the rest of the app goes on."""
    try:
        context = open_context(runs_folders, training_folder)
        with state.said():
            render(context)
    except Exception as error:
        log.exception("a page failed")
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        components.box(f"This page cannot be shown ({cause}). The terminal has the details.", warn=True)
        return
    watch(context)


def main(runs_folders: Sequence[Path], training_folder: Path) -> None:
    """The whole app."""
    st.set_page_config("evalkit leaderboard", "📊", layout="wide", initial_sidebar_state="collapsed")
    st.html(theme.styles(theme.palette()))

    pages = [
        st.Page(
            partial(guarded, render, runs_folders, training_folder),
            title=title,
            url_path=address,
            default=render is overview.render,
        )
        for address, title, render in PAGES
    ]
    chosen = st.navigation(pages, position="top")
    chosen.run()
    access.icons_are_hidden()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, action="append", required=True)
    parser.add_argument("--training", type=Path, default=Path("checkpoints"))
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS)
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    given = _arguments()
    set_max_pixels(given.max_pixels)
    main(given.runs, given.training)
