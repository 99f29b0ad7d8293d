"""What every page works on: the index of runs, and the matrix made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from evalkit_leaderboard import matrix
from evalkit_leaderboard.comparing import Runs, side
from evalkit_leaderboard.index import Index
from evalkit_leaderboard.matrix import Matrix, Row
from evalkit_leaderboard.runs import Run
from evalkit_leaderboard.verdicts import Verdicts

#: Seconds between two looks for new runs while a page is open; what is younger than that, less a little, is
#: not looked for again, whatever is pressed.
EVERY, _FRESH = 4.0, 3.5
#: The same while comparisons are being made.
SOON = 1.0


@dataclass(frozen=True)
class Context:
    """The folders that the app was started on, and the runs as of this page's making.

    Attributes:
        training: folder of training outputs. version: of the index when the page was made;
        compared: that of the verdicts.
    """

    index: Index
    training: Path
    runs: Mapping[str, Run]
    version: int
    verdicts: Verdicts
    compared: int

    def side(self, row: Row) -> Runs:
        """The runs that the values of a row come from, by task and split."""
        return side(row, self.runs)

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

    @property
    def newest(self) -> Mapping[str, str]:
        """When the newest run of each row measured here began, by the row's key; the oldest first."""
        return _newest(self.index.where, self.version, self.matrix, self.runs)


@st.cache_resource(show_spinner=False, max_entries=2)
def _newest(roots: str, version: int, _matrix: Matrix, _runs: Mapping[str, Run]) -> Mapping[str, str]:
    rows = [row for row in _matrix.rows if not row.published]
    found = {row.key: max(run.created for run in side(row, _runs).values()) for row in rows}
    return dict(sorted(found.items(), key=lambda item: item[1]))


@st.cache_resource(show_spinner=False, max_entries=8)
def _open_index(roots: tuple[Path, ...]) -> Index:
    return Index(roots)


@st.cache_resource(show_spinner=False, max_entries=2)
def _matrix(roots: str, version: int, _runs: Mapping[str, Run]) -> Matrix:
    return matrix.build(_runs)


def open_context(runs: Sequence[Path], training: Path) -> Context:
    """Take note of what was there at the last look; `watch` looks again once the page is drawn."""
    index = _open_index(tuple(folder.absolute() for folder in runs))
    if not index.looked:
        index.refresh()
    version = index.version  # before the runs: a look in between then only costs one more
    verdicts = _verdicts()
    return Context(index, training, index.runs, version, verdicts, verdicts.version)


@st.cache_resource(show_spinner=False)
def _verdicts() -> Verdicts:
    return Verdicts()


def watch(context: Context) -> None:
    """Show the page again when runs have come, gone or changed since it was made, or were compared."""
    every = SOON if context.verdicts.pending else EVERY
    st.fragment(_look, run_every=every)(context)


def _look(context: Context) -> None:
    context.index.refresh(_FRESH)
    if context.index.version != context.version or context.verdicts.version != context.compared:
        st.rerun(scope="app")
