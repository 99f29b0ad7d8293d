"""GMAI-MMBench: medical multiple choice; several right answers are their letters together.

The benchmark has no training split. Its validation rows in training form are for adapting to the form of the
questions; scores on rows that were learned mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evalkit_tasks.medical.gmai_mmbench import GmaiMmbench
from mini_internvl_train.convert.lines import Converted, task_lines


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """One data set; the table's images become files."""
    lines = task_lines(GmaiMmbench(), split, root, lambda sample: str(sample.target), folder)
    yield Converted("gmai_mmbench", folder, lines)
