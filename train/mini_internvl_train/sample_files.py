"""Which files of images changed since a checkpoint, and whether a finished step learned from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mini_internvl_train.checkpoints import FILES, Resumed, read_weights
from mini_internvl_train.errors import ResumeError
from mini_internvl_train.packing import Length, PackOrder

if TYPE_CHECKING:
    from mini_internvl_train.samples import TrainingSet


class PlannedLines:
    """Lines that a training was planned with, and their lengths.

    Args:
        folder: of the checkpoint.

    Raises:
        ResumeError: it does not tell them.
    """

    def __init__(self, folder: Path) -> None:
        self._rows = read_weights(folder / FILES)["lines"]
        self._keys = self._rows[:, 0] * _LINES + self._rows[:, 1]

    def find(self, place: int, number: int) -> Length | None:
        """Length of a line, by the place of its data set and its number; None if it was left out."""
        key = place * _LINES + number
        row = int(torch.searchsorted(self._keys, key))
        if row == len(self._keys) or int(self._keys[row]) != key:
            return None
        return Length(*self._rows[row, 2:].tolist())


_LINES = 1 << 40
"""More lines than a data set has."""


def file_tensors(samples: TrainingSet, left_out: Sequence[int]) -> Mapping[str, Tensor]:
    """What a checkpoint keeps: line, length and file sizes of each sample; those damaged so far."""
    rows = [
        (*samples.line_of(index), length.tokens, length.tiles, length.trained, length.regime)
        for index, length in enumerate(samples.lengths)
    ]
    return {
        "lines": torch.tensor(rows, dtype=torch.int64).reshape(-1, 6),
        "sizes": torch.tensor(samples.files, dtype=torch.int64),
        "left_out": torch.tensor(left_out, dtype=torch.int64),
    }


def changed_files(resumed: Resumed, samples: TrainingSet, order: PackOrder) -> tuple[list[str], list[int]]:
    """Changes that may be, as text, and the samples damaged so far.

    A file may change until a step has learned from it: a damaged one can be repaired. One that is damaged
    now is left out of the steps to come, which alters none that is done.

    Raises:
        ResumeError: a finished step learned from a file that is another one now.
    """
    stored = read_weights(resumed.folder / FILES)
    left_out = set(stored["left_out"].tolist())
    now = torch.tensor(samples.files, dtype=torch.int64)
    learned_sets = len(stored["sizes"])
    if len(now) < learned_sets:  # validation's own samples come last and may be others
        learned_sets = len(now)
    changed = torch.nonzero(now[:learned_sets] != stored["sizes"][:learned_sets]).flatten().tolist()
    if changed:
        steps = (order.step(step) for step in range(resumed.state.step))
        learned = {index for packs in steps for pack in packs for index in pack.samples} - left_out
        if wrong := [index for index in changed if index in learned]:
            where = samples.sample(wrong[0]).conversation
            raise ResumeError(
                f"{resumed.folder}: the training data has changed ({samples.set_of(wrong[0])} is not the "
                f"same: the image of {where.id} ({where.where}) has another size than when a step learned "
                f"from it): give another output folder, or remove {resumed.folder.parent}"
            )
    counts = Counter(samples.set_of(index) for index in changed)
    said = [
        f"files of {count} samples of {name}, from which no step learned" for name, count in counts.items()
    ]
    return said, sorted(left_out | samples.damaged.keys())
