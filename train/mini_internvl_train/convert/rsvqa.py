"""RSVQA: questions on a remote-sensing image, answered in a word or number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evalkit_tasks.remote_sensing.rsvqa import RsvqaLr
from mini_internvl_train.convert.lines import Converted, task_lines


class _LowResolution(RsvqaLr):
    """With the training split, which is never scored."""

    layout = RsvqaLr.layout.with_prefix("train", "LR_split_train")


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """One data set."""
    lines = task_lines(_LowResolution(), split, root, lambda sample: str(sample.target))
    yield Converted("rsvqa_lr", root, lines)
