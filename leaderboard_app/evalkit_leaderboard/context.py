"""What every page works on: the index of runs, and the matrix made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from evalkit_leaderboard import matrix
from evalkit_leaderboard.index import Index
from evalkit_leaderboard.matrix import Matrix
from evalkit_leaderboard.runs import Run

#: Seconds between two looks for new runs while a page is open.
EVERY = 4.0


@dataclass(frozen=True)
class Context:
    """The folders that the app was started on, and the runs as of this page's making.

    Attributes:
        training: folder of training outputs.
    """

    index: Index
    training: Path
    runs: Mapping[str, Run]

    @property
    def matrix(self) -> Matrix:
        """Models by tasks."""
        return _matrix(str(self.index.root), self.index.version, self.index)


@st.cache_resource(show_spinner=False, max_entries=8)
def _open_index(root: Path) -> Index:
    return Index(root)


@st.cache_resource(show_spinner=False, max_entries=2)
def _matrix(root: str, version: int, _index: Index) -> Matrix:
    return matrix.build(_index.runs)


def open_context(runs: Path, training: Path) -> Context:
    """Look at the folders and take note of what is there now."""
    index = _open_index(runs.absolute())
    index.refresh()
    return Context(index, training, index.runs)


@st.fragment(run_every=EVERY)
def watch(index: Index) -> None:
    """Show the page again when runs have come, gone or changed."""
    seen = st.session_state.setdefault("watched", index.version)
    index.refresh()
    if index.version != seen:
        st.session_state["watched"] = index.version
        st.rerun(scope="app")
