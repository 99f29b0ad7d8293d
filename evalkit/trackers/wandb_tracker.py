"""Weights & Biases: the project of `WANDB_PROJECT`; `WANDB_MODE` and `WANDB_DIR` are respected."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.contracts import Json
from evalkit.trackers.base import TrackedRun


class WandbTracker:
    """A run of Weights & Biases; its own files go below the run folder unless `WANDB_DIR` says otherwise."""

    def start(self, run: TrackedRun) -> None:
        """See `Tracker.start`."""
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "evalkit"),
            id=re.sub(r"[^A-Za-z0-9_-]", "-", run.id)[-64:],
            name=run.name,
            config=dict(run.config),
            tags=list(run.tags),
            dir=os.environ.get("WANDB_DIR", str(run.folder)),
            mode="offline" if run.offline and "WANDB_MODE" not in os.environ else None,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True),
        )

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """See `Tracker.log`."""
        self._run.log(dict(values), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> None:
        """See `Tracker.table`."""
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def finish(self) -> None:
        """See `Tracker.finish`."""
        self._run.finish()
