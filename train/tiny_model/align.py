"""Between the stages: visual tokens move towards the embeddings of the words that name what they show.

A question finds what it names by comparing its words with visual tokens. Where a visual token of a red circle
already holds the embeddings of `red` and `circle`, one head that attends to equal content serves every word
of every world, instead of one pair of directions learned for each. The projector alone learns this, by
regression; encoder, head and language model stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit_tasks.miniatures import drawing
from mini_internvl.model import MiniInternVL
from mini_internvl.tokenizers import Tokenizer
from tiny_model.dense import batches, model_input, pixels
from tiny_model.labels import SLOTS, DenseHead
from tiny_model.mimetic import seen_basis
from tiny_model.stage import Stage

#: Attributes whose values are words, and the kinds of objects that have them (all, where not listed).
_SHAPES = drawing.SHAPES
_VEHICLES = ("car", "truck", "barrier")
NAMED: Mapping[str, tuple[str, ...]] = {
    "local/kind": (*_SHAPES, "bar", "building", "water", "forest", "road", *_VEHICLES),
    "local/colour": (*_SHAPES, "bar", *_VEHICLES),
    "local/label": ("entry",),
    "local/word": ("entry",),
    "local/value": ("bar",),
    "local/status": _VEHICLES[:2],
}


#: What cosines are multiplied by before the cross-entropy.
_SHARPNESS = 12.0


def word_table(tokenizer: Tokenizer, embeddings: Tensor, values: tuple[str, ...]) -> Tensor:
    """Embedding `[values, width]` of each value: its first token at the start of a text plus within one."""
    rows = []
    for value in values:
        spellings = {value, f" {value}", f" {value.lower()}"}
        ids = sorted({tokenizer.encode(text)[0] for text in spellings})
        rows.append(embeddings[ids].mean(0))
    return torch.stack(rows)


@torch.no_grad()
def named(head: DenseHead, tokens: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
    """Sum of the embeddings of the words that the head reads in each token, `[..., width]`."""
    logits = dict(zip(SLOTS, head(tokens), strict=True))
    kinds = logits["local/kind"].softmax(-1)
    total = torch.zeros_like(tokens)
    for slot, owners in NAMED.items():
        chosen = kinds[..., [SLOTS["local/kind"].index(kind) for kind in owners]]
        shares = logits[slot].softmax(-1)
        if slot == "local/kind":
            shares = torch.zeros_like(shares)
            shares[..., [SLOTS[slot].index(kind) for kind in owners]] = chosen
            total += shares @ tables[slot]
        else:
            total += chosen.sum(-1, keepdim=True) * (shares @ tables[slot])
    return total


def word_loss(tokens: Tensor, labels: Tensor, tokenizer: Tokenizer, embeddings: Tensor) -> Tensor:
    """Cross-entropy of each named attribute, read by the cosines of tokens and the words' embeddings.

    Args:
        tokens: visual tokens `[views, tokens, width]`. labels: see `labels.encode`.
        embeddings: the language model's table; no gradient reaches it.
    """
    total = tokens.new_zeros(())
    kinds = labels[..., list(SLOTS).index("local/kind")]
    for slot, owners in NAMED.items():
        target = labels[..., list(SLOTS).index(slot)]
        owned = torch.tensor([SLOTS["local/kind"].index(kind) for kind in owners])
        valid = torch.isin(kinds, owned) & (target >= 0)
        if bool(valid.any()):
            table = seen_basis(word_table(tokenizer, embeddings.detach(), SLOTS[slot]))
            cosines = F.normalize(tokens[valid], dim=-1) @ F.normalize(table, dim=-1).T
            total = total + F.cross_entropy(_SHARPNESS * cosines, target[valid])
    return total


@dataclass
class AlignStage(Stage):
    """Trains the projector; the loss is the share of the wanted change that is still missing.

    Attributes:
        strength: norm of a full token's words, in mean norms of the projector's output.
        norm: mean norm that visual tokens are brought to first.
    """

    muon_lr: float = 0.01
    strength: float = 1.0
    norm: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        model = self.network.model
        rescale(model, self.norm)
        self._before = copy.deepcopy(model.mlp1)
        embeddings = model.language_model.get_input_embeddings().weight.detach()
        self._tables = {
            slot: seen_basis(word_table(self.tokenizer, embeddings, SLOTS[slot])) for slot in NAMED
        }
        _, old, words = self._wanted(next(self.inputs()))
        full = words.norm(dim=-1)
        share = old.norm(dim=-1).mean() / full[full > 0.5 * full.max()].mean()
        self._scale = float(self.strength * share)

    def learners(self) -> Sequence[nn.Module]:
        """The projector."""
        return (self.network.model.mlp1,)

    def scale(self, step: int) -> float:
        """Falls over the last 0.7 of the steps."""
        return min(1.0, 0.05 + (self.steps - step) / (0.7 * self.steps))

    def inputs(self) -> Iterator[list[drawing.View]]:
        """Batches of 64 images."""
        return batches(self.seed + 77)

    def loss(self, drawn: list[drawing.View], step: int) -> tuple[Tensor, int]:
        """Squared distance from the old tokens plus their words."""
        states, old, words = self._wanted(drawn)
        wanted = self._scale * words
        missing = (self.network.model.project(states) - (old + wanted)).square().mean()
        loss = missing / wanted.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss, len(drawn)

    @torch.no_grad()
    def _wanted(self, drawn: list[drawing.View]) -> tuple[Tensor, Tensor, Tensor]:
        """The encoder's states, the tokens before the stage, and the words that they name."""
        model = self.network.model
        states = model.vision_model(model_input(drawn)).last_hidden_state
        old = _project(model, self._before, states)
        return states, old, named(self.network.head, old, self._tables)


@torch.no_grad()
def rescale(model: MiniInternVL, norm: float) -> None:
    """Scales the projector's last layer so that visual tokens have this norm on average.

    Dense training leaves them a hundred times longer than words, and what a layer of the language model adds
    to such a token is lost in it.
    """
    tokens = model.encode_images(pixels(next(batches(78))))
    factor = norm / float(tokens.norm(dim=-1).mean())
    last = model.mlp1[3]
    for p in last.parameters():
        p.mul_(factor)


def _project(model: MiniInternVL, projector: nn.Module, states: Tensor) -> Tensor:
    current, model.mlp1 = model.mlp1, projector  # type: ignore[assignment]
    try:
        return model.project(states)
    finally:
        model.mlp1 = current
