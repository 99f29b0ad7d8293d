"""Lessons as tensors: one row a lesson, its questions side by side behind the images they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evalkit_tasks.miniatures.drawing import Box
from mini_internvl.prompts import IMAGE_CONTEXT, IMAGE_END, IMAGE_START, find_template
from mini_internvl.tokenizers import Tokenizer
from mini_internvl_train.lessons import Lesson
from tiny_model.labels import covered
from tiny_model.shapes import SYSTEM_MESSAGE

TEMPLATE = find_template("Hermes-2")


@dataclass(frozen=True)
class LookTargets:
    """Places of the text that speak of one thing, and the visual tokens that show it.

    Attributes:
        rows, positions: int64 `[places]`. target: bool `[places, length]`.
    """

    rows: Tensor
    positions: Tensor
    target: Tensor


@dataclass(frozen=True)
class LessonBatch:
    """Rows padded on the right.

    Attributes:
        ids, positions: int64 `[rows, length]`.
        mask: bool `[rows, 1, length, length]`; a question sees the prefix and itself, as in evaluation.
        where: int64 `[answer tokens, 2]`, the row and position that predicts each answer token.
        targets: int64 `[answer tokens]`. asks: int64 `[answer tokens]`, the question each belongs to.
        kinds: of the questions, in the order that `asks` counts.
        look_targets: what is to be looked at, by `names` and `answers`.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    where: Tensor
    targets: Tensor
    asks: Tensor
    kinds: tuple[str, ...]
    look_targets: Mapping[str, LookTargets]

    def weights(self, power: float = 0.5) -> Tensor:
        """Weight of each answer token: one over its answer's length to a power (0.5: InternVL's `square`)."""
        lengths = torch.bincount(self.asks, minlength=len(self.kinds))
        return lengths[self.asks].float() ** -power


def collate(lessons: Sequence[Lesson], tokenizer: Tokenizer, tokens_per_tile: int) -> LessonBatch:
    """The batch of some lessons."""
    rows: list[list[int]] = []
    blocks: list[list[int]] = []
    positions: list[list[int]] = []
    where: list[tuple[int, int]] = []
    targets: list[int] = []
    asks: list[int] = []
    kinds: list[str] = []
    look_targets: dict[str, list[tuple[int, int, list[int]]]] = {"names": [], "answers": []}
    image_token = tokenizer.token_id(IMAGE_CONTEXT)
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
            if ask.about is not None:
                shown = _shown(row, image_token, tokens_per_tile, ask.about)
                spelt = [tokenizer.encode(gap + name) for name in ask.names for gap in ("", " ")]
                names = {tokens[0] for tokens in spelt if len(tokens) == 1}
                found = [len(row) + i for i, token in enumerate(asked) if token in names]
                look_targets["names"] += [(number, at, shown) for at in found]
                look_targets["answers"] += [(number, first + i, shown) for i in range(len(answer))]
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
    return LessonBatch(
        ids,
        _padded(positions, length, 0),
        allowed[:, None],
        torch.tensor(where),
        torch.tensor(targets),
        torch.tensor(asks),
        tuple(kinds),
        {name: _look_targets(places, length) for name, places in look_targets.items()},
    )


def _shown(row: Sequence[int], image_token: int | None, tokens: int, about: tuple[int, Box]) -> list[int]:
    """Positions of the visual tokens that a box covers a fifth of."""
    view, box = about
    places = [i for i, token in enumerate(row) if token == image_token][view * tokens : (view + 1) * tokens]
    return [
        place for place, share in zip(places, covered(box, round(tokens**0.5)), strict=True) if share >= 0.2
    ]


def _look_targets(places: Sequence[tuple[int, int, list[int]]], length: int) -> LookTargets:
    target = torch.zeros(len(places), length, dtype=torch.bool)
    for number, (_, _, shown) in enumerate(places):
        target[number, shown] = True
    rows, positions = (torch.tensor([place[i] for place in places], dtype=torch.long) for i in (0, 1))
    return LookTargets(rows, positions, target)


def prefix(lesson: Lesson, tokens_per_tile: int) -> str:
    """Everything before the question."""
    text = f"{TEMPLATE.system}{SYSTEM_MESSAGE}{TEMPLATE.separator}{TEMPLATE.user}{lesson.opening}"
    for tiles in lesson.tiles:
        image = f"{IMAGE_START}{IMAGE_CONTEXT * (tokens_per_tile * tiles)}{IMAGE_END}"
        text = text.replace("<image>", image, 1)
    return text


def _padded(rows: Sequence[Sequence[int]], length: int, fill: int) -> Tensor:
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])
