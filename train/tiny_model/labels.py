"""Dense labels: what every visual token should say about the image, and the head that is thrown away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit_tasks.miniatures import cameras, drawing, pages
from evalkit_tasks.miniatures.drawing import SIDE, Box, View

NOTHING = "nothing"
_STEPS = tuple(str(i) for i in range(SIDE // drawing.GRID + 1))
_DIGITS = tuple("0123456789")
_COUNTS = ("0", "1", "2", "3", "4")
_COLOURS = tuple(sorted(drawing.COLOURS))
_SIGNS = ("sign: red light", "sign: green light", "sign: truck")

#: Attributes of the object that covers a token.
LOCAL: Mapping[str, tuple[str, ...]] = {
    "kind": (
        *(NOTHING, *drawing.SHAPES, "bar", "entry", "building", "water", "forest", "road"),
        *("ego", *_SIGNS, *cameras.KINDS),
    ),
    "colour": _COLOURS,
    **dict.fromkeys(("x1", "y1", "x2", "y2"), _STEPS),
    "label": pages.LABELS,
    "first": _DIGITS,
    "second": _DIGITS,
    "word": tuple(word for words in pages.WORDS.values() for word in words),
    "value": tuple(str(v) for v in range(10, 90, 10)),
    "status": cameras.STATUSES,
}

#: Attributes of the whole image, predicted by every token.
OVERALL: Mapping[str, tuple[str, ...]] = {
    "things": _COUNTS,
    "highest": _COLOURS,
    "lowest": _COLOURS,
    "area": ("rural", "urban"),
    **dict.fromkeys(("building", "water", "forest", "road"), _COUNTS),
}
SLOTS = {**{f"local/{k}": v for k, v in LOCAL.items()}, **{f"overall/{k}": v for k, v in OVERALL.items()}}
_NAMES = list(SLOTS)
_INDEX = {name: {value: i for i, value in enumerate(values)} for name, values in SLOTS.items()}
IGNORED = -100
_BACKGROUND_WEIGHT = 0.2
_OVERALL_WEIGHT = 0.3


def encode(views: Sequence[View], side: int) -> Tensor:
    """Labels of every visual token, int64 `[views, side * side, slots]`, `IGNORED` where none is due.

    A token belongs to the object that covers most of its cell, if that is a fifth of it.
    """
    labels = torch.full((len(views), side * side, len(_NAMES)), IGNORED)
    for v, view in enumerate(views):
        for name, value in view.overall.items():
            if f"overall/{name}" in _INDEX:
                slot = _NAMES.index(f"overall/{name}")
                labels[v, :, slot] = _INDEX[f"overall/{name}"][value]
        shares = [covered(region.box, side) for region in view.regions]
        for token in range(side * side):
            best, cover = None, 0.2
            for region, share in zip(view.regions, shares, strict=True):
                if share[token] >= cover:
                    best, cover = region, share[token]
            seen = {"kind": NOTHING} if best is None else best.labels
            for name, value in seen.items():
                labels[v, token, _NAMES.index(f"local/{name}")] = _INDEX[f"local/{name}"][value]
    return labels


def covered(box: Box, side: int) -> list[float]:
    """Share of each visual token's cell that a box covers, row by row."""
    x1, y1, x2, y2 = box
    cell = SIDE / side
    across, down = (
        [max(0.0, min(high, (i + 1) * cell) - max(low, i * cell)) / cell for i in range(side)]
        for low, high in ((x1, x2), (y1, y2))
    )
    return [x * y for y in down for x in across]


class DenseHead(nn.Module):
    """One linear classifier for each slot, on visual tokens as the language model gets them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, sum(len(v) for v in SLOTS.values()))

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Logits of each slot, `[..., values]`."""
        sizes = [len(values) for values in SLOTS.values()]
        parts: list[Tensor] = list(self.linear(self.norm(tokens)).split(sizes, dim=-1))
        return parts


def dense_loss(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Mean cross-entropy of each slot over its own tokens, summed over slots; background counts less."""
    total = logits[0].new_zeros(())
    for slot, (name, part) in enumerate(zip(_NAMES, logits, strict=True)):
        target = labels[..., slot].flatten()
        valid = target != IGNORED
        if not bool(valid.any()):
            continue
        weight = None
        if name == "local/kind":
            weight = part.new_ones(part.shape[-1])
            weight[0] = _BACKGROUND_WEIGHT
        loss = F.cross_entropy(part.flatten(0, -2)[valid], target[valid], weight=weight)
        total = total + loss * (_OVERALL_WEIGHT if name.startswith("overall/") else 1.0)
    return total


@torch.no_grad()
def accuracies(logits: Sequence[Tensor], labels: Tensor) -> dict[str, float]:
    """Share of tokens that predict each attribute correctly; for `kind`, of those that lie on an object."""
    found = {}
    for slot, (name, part) in enumerate(zip(_NAMES, logits, strict=True)):
        target = labels[..., slot]
        valid = target > (0 if name == "local/kind" else IGNORED)
        if bool(valid.any()):
            found[name] = float((part.argmax(-1) == target)[valid].float().mean())
    return found
