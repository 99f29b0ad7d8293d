"""TensorBoard: event files in the folder `tensorboard` of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from evalkit.contracts import Json
from evalkit.trackers.base import TrackedRun

#: Rows of a table that are shown: it is one text.
_ROWS = 1000


class TensorboardTracker:
    """Writes event files; `tensorboard --logdir RUNS` shows those of all runs below a folder."""

    def start(self, run: TrackedRun) -> None:
        """See `Tracker.start`."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(run.folder / "tensorboard")
        self._writer.add_text("config", f"```\n{json.dumps(run.config, indent=1, default=str)}\n```")

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """See `Tracker.log`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> None:
        """See `Tracker.table`; the first rows, as Markdown."""
        lines = [columns, ["---"] * len(columns), *rows[:_ROWS]]
        cells = (
            " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) for line in lines
        )
        self._writer.add_text(name, "\n".join(f"| {line} |" for line in cells))

    def finish(self) -> None:
        """See `Tracker.finish`."""
        self._writer.close()
