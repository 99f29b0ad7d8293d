"""What every page works on: the index of runs, and the matrix made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        training: folder of training outputs. version: of the index when the page was made.
    """

    index: Index
    training: Path
    runs: Mapping[str, Run]
    version: int

    def why_not(self, key: str) -> str:
        """What is said of the id of a run that a page cannot show."""
        run = self.runs.get(key)
        if run is None:
            return f"Run {key} is not under {self.index.where}. It was moved or deleted."
        name = f"Run {key} ({run.model or 'no model'} on {run.task}@{run.split})"
        return f"{name} is {run.status}: {run.reason or 'it has not been scored'}"

    @property
    def matrix(self) -> Matrix:
        """Models by tasks."""
        return _matrix(self.index.where, self.version, self.runs)


@st.cache_resource(show_spinner=False, max_entries=8)
def _open_index(roots: tuple[Path, ...]) -> Index:
    return Index(roots)


@st.cache_resource(show_spinner=False, max_entries=2)
def _matrix(roots: str, version: int, _runs: Mapping[str, Run]) -> Matrix:
    return matrix.build(_runs)


def open_context(runs: Sequence[Path], training: Path) -> Context:
    """Look at the folders and take note of what is there now."""
    index = _open_index(tuple(folder.absolute() for folder in runs))
    index.refresh()
    version = index.version  # before the runs: a look in between then only costs one more
    return Context(index, training, index.runs, version)


@st.fragment(run_every=EVERY)
def watch(index: Index, version: int) -> None:
    """Show the page again when runs have come, gone or changed since that version."""
    index.refresh()
    if index.version != version:
        st.rerun(scope="app")
