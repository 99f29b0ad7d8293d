"""Packs as tensors: several samples in one row, each seeing only itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mini_internvl_train.encoding import IGNORED, Encoded
from mini_internvl_train.loss import token_weight
from mini_internvl_train.recipe import Weighting


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of packs.

    Attributes:
        input_ids, labels, position_ids: int64 `[rows, length]`; padding stands on the right.
        weights: float `[rows, length]`.
        segment_lengths: tokens of each row's samples, in order; what is left of the row is padding.
        tiles: uint8 `[tiles, 3, size, size]` of all rows in order, or None.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    weights: Tensor
    segment_lengths: tuple[tuple[int, ...], ...]
    tiles: Tensor | None

    @property
    def real_tokens(self) -> int:
        """Tokens that are not padding."""
        return sum(map(sum, self.segment_lengths))

    def silent(self) -> Batch:
        """The same batch without loss: what a rank runs that has no pack left in a step."""
        return replace(self, weights=torch.zeros_like(self.weights))

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(
            self.input_ids.to(device),
            self.labels.to(device),
            self.position_ids.to(device),
            self.weights.to(device),
            self.segment_lengths,
            None if self.tiles is None else self.tiles.to(device),
        )


def collate(
    packs: Sequence[Sequence[Encoded]], tiles: Tensor | None, weighting: Weighting, pad_id: int
) -> Batch:
    """Rows from packs.

    Args:
        packs: each pack's samples, in order.
        tiles: tiles of all samples of all packs, in order.
        weighting: of the loss.
        pad_id: fills rows on the right; carries neither loss nor attention.
    """
    length = max(sum(len(sample.input_ids) for sample in pack) for pack in packs)
    shape = (len(packs), length)
    ids = torch.full(shape, pad_id)
    labels = torch.full(shape, IGNORED)
    positions = torch.zeros(shape, dtype=torch.long)
    weights = torch.zeros(shape)
    for row, pack in enumerate(packs):
        start = 0
        for sample in pack:
            place = slice(start, start + len(sample.input_ids))
            ids[row, place] = torch.tensor(sample.input_ids)
            labels[row, place] = torch.tensor(sample.labels)
            labels[row, start] = IGNORED  # nothing of the neighbour before predicts a sample's first token
            positions[row, place] = torch.arange(len(sample.input_ids))
            weights[row, place] = token_weight(sample.trained, weighting)
            start = place.stop
    segments = tuple(tuple(len(sample.input_ids) for sample in pack) for pack in packs)
    return Batch(ids, labels, positions, weights, segments, tiles)
