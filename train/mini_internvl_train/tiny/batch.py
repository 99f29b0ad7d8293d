"""Lessons as tensors: one row a lesson, its questions side by side behind the pictures they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mini_internvl.prompts import IMAGE_CONTEXT, IMAGE_END, IMAGE_START, find_template
from mini_internvl.tokenizers import Tokenizer
from mini_internvl_train.tiny.build import SYSTEM_MESSAGE
from mini_internvl_train.tiny.lessons import Lesson

TEMPLATE = find_template("Hermes-2")


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right.

    Attributes:
        ids, positions: int64 `[rows, length]`.
        mask: bool `[rows, 1, length, length]`; a question sees the prefix and itself, as in evaluation.
        where: int64 `[answer tokens, 2]`, the row and position that predicts each answer token.
        targets: int64 `[answer tokens]`. asks: int64 `[answer tokens]`, the question each belongs to.
        kinds: of the questions, in the order that `asks` counts.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    where: Tensor
    targets: Tensor
    asks: Tensor
    kinds: tuple[str, ...]

    def weights(self, power: float = 0.5) -> Tensor:
        """Weight of each answer token: one over its answer's length to a power (0.5: InternVL's `square`)."""
        lengths = torch.bincount(self.asks, minlength=len(self.kinds))
        return lengths[self.asks].float() ** -power


def collate(lessons: Sequence[Lesson], tokenizer: Tokenizer, tokens_per_tile: int) -> Batch:
    """The batch of some lessons."""
    rows: list[list[int]] = []
    blocks: list[list[int]] = []
    positions: list[list[int]] = []
    where: list[tuple[int, int]] = []
    targets: list[int] = []
    asks: list[int] = []
    kinds: list[str] = []
    for number, lesson in enumerate(lessons):
        row = tokenizer.encode(prefix(lesson, tokens_per_tile))
        block, position, start = [0] * len(row), list(range(len(row))), len(row)
        for place, ask in enumerate(lesson.asks, 1):
            asked = tokenizer.encode(f"{ask.text}{TEMPLATE.separator}{TEMPLATE.assistant}")
            answer = tokenizer.encode(f"{ask.answer}{TEMPLATE.separator}")
            first = len(row) + len(asked) - 1
            where += [(number, first + i) for i in range(len(answer))]
            targets += answer
            asks += [len(kinds)] * len(answer)
            kinds.append(ask.kind)
            row += asked + answer
            block += [place] * (len(asked) + len(answer))
            position += range(start, start + len(asked) + len(answer))
        rows.append(row)
        blocks.append(block)
        positions.append(position)
    length = max(map(len, rows))
    ids = _padded(rows, length, tokenizer.pad_id or 0)
    block_ids = _padded(blocks, length, -1)
    allowed = (block_ids[:, None, :] == 0) | (block_ids[:, None, :] == block_ids[:, :, None])
    allowed &= torch.ones(length, length, dtype=torch.bool).tril()
    allowed |= torch.eye(length, dtype=torch.bool)
    return Batch(
        ids,
        _padded(positions, length, 0),
        allowed[:, None],
        torch.tensor(where),
        torch.tensor(targets),
        torch.tensor(asks),
        tuple(kinds),
    )


def prefix(lesson: Lesson, tokens_per_tile: int) -> str:
    """Everything before the question."""
    text = f"{TEMPLATE.system}{SYSTEM_MESSAGE}{TEMPLATE.separator}{TEMPLATE.user}{lesson.opening}"
    for tiles in lesson.tiles:
        image = f"{IMAGE_START}{IMAGE_CONTEXT * (tokens_per_tile * tiles)}{IMAGE_END}"
        text = text.replace("<image>", image, 1)
    return text


def _padded(rows: Sequence[Sequence[int]], length: int, fill: int) -> Tensor:
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])
