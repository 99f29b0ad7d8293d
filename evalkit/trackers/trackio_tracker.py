"""Trackio: a local dashboard; `TRACKIO_PROJECT`, `TRACKIO_DIR` and `TRACKIO_SPACE_ID` are respected."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.contracts import Json
from evalkit.trackers.base import TrackedRun


class TrackioTracker:
    """A run of Trackio, which keeps it on this machine unless a Space is named."""

    def start(self, run: TrackedRun) -> None:
        """See `Tracker.start`. Raises ValueError where it would have to send and may not."""
        import trackio

        space = os.environ.get("TRACKIO_SPACE_ID")
        if run.offline and space:
            raise ValueError(f"the Space {space} is not here, and --offline is given")
        self._run: Any = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "evalkit"),
            name=run.id,
            config=dict(run.config),
            space_id=space,
            resume="allow",
        )

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """See `Tracker.log`."""
        self._run.log(dict(values), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> None:
        """See `Tracker.table`."""
        import pandas as pd
        import trackio

        self._run.log({name: trackio.Table(dataframe=pd.DataFrame(rows, columns=list(columns)))})

    def finish(self) -> None:
        """See `Tracker.finish`. The run's own `finish` would be called once more at exit."""
        import trackio

        trackio.finish()
