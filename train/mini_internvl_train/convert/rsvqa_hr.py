"""RSVQA of high resolution."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evalkit_tasks.remote_sensing.rsvqa import RsvqaHr
from mini_internvl_train.convert.lines import Converted, task_lines


class _HighResolution(RsvqaHr):
    """With the training split, which is never scored."""

    layout = RsvqaHr.layout.with_prefix("train", "USGS_split_train")


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """One data set."""
    lines = task_lines(_HighResolution(), split, root, lambda sample: str(sample.target))
    yield Converted("rsvqa_hr", root, lines)
