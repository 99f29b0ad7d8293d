"""Which splits of a task could be run right now, without the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalkit.task import Task


def folder_of(task: Task, split: str, data_root: Path | None) -> Path | None:
    """Where the split's files are, or None."""
    from evalkit.data.locate import locate
    from evalkit.errors import EvalkitError

    try:
        return locate(task, split, data_root, offline=True)
    except EvalkitError:
        return None


def splits_at_hand(task: Task, data_root: Path | None) -> dict[str, Path]:
    """Folders of the published splits that are there."""
    found = {split: folder_of(task, split, data_root) for split in task.splits}
    return {split: folder for split, folder in found.items() if folder is not None}
