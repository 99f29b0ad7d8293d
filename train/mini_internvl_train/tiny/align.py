"""Between the stages: visual tokens move towards the embeddings of the words that name what they show.

A question finds what it names by comparing its words with visual tokens. Where a visual token of a red circle
already holds the embeddings of `red` and `circle`, one head that attends to equal content serves every word
of every world, instead of one pair of directions learned for each. The projector alone learns this, by
regression; encoder, head and language model stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit_tasks.miniatures import drawing
from mini_internvl.model import MiniInternVL
from mini_internvl.tokenizers import Tokenizer
from mini_internvl_train.tiny.dense import batches, pixels
from mini_internvl_train.tiny.labels import SLOTS, DenseHead
from mini_internvl_train.tiny.optimizer import optimizers
from mini_internvl_train.tiny.start import seen_basis

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


def align(
    model: MiniInternVL,
    head: DenseHead,
    tokenizer: Tokenizer,
    steps: int,
    *,
    strength: float = 1.0,
    norm: float = 4.0,
    seed: int = 0,
    adam_lr: float = 2e-3,
    muon_lr: float = 0.01,
) -> list[float]:
    """Trains the projector in place; returns the share of the wanted change still missing, every 50 steps.

    Args:
        strength: norm of a full token's words, in mean norms of the projector's output.
        norm: mean norm that visual tokens are brought to first.
    """
    rescale(model, norm)
    embeddings = model.language_model.get_input_embeddings().weight.detach()
    tables = {slot: seen_basis(word_table(tokenizer, embeddings, SLOTS[slot])) for slot in NAMED}
    before = copy.deepcopy(model.mlp1)
    solvers = optimizers((model.mlp1,), muon_lr, adam_lr)
    base = [group["lr"] for solver in solvers for group in solver.param_groups]
    source, missing, scale = batches(seed + 77), [], 0.0
    for step in range(steps):
        with torch.no_grad():
            states = model.vision_model(_input(next(source))).last_hidden_state
            old = _project(model, before, states)
            words = named(head, old, tables)
            if not scale:
                full = words.norm(dim=-1)
                scale = float(strength * old.norm(dim=-1).mean() / full[full > 0.5 * full.max()].mean())
            target = old + scale * words
        loss = (model.project(states) - target).square().mean() / (scale * words).square().mean()
        for solver in solvers:
            solver.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        left = min(1.0, 0.05 + (steps - step) / (0.7 * steps))
        for group, lr in zip((g for s in solvers for g in s.param_groups), base, strict=True):
            group["lr"] = lr * left
        for solver in solvers:
            solver.step()
        if step % 50 == 49:
            missing.append(round(float(loss.detach()), 4))
    return missing


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


def _project(model: MiniInternVL, projector: torch.nn.Module, states: Tensor) -> Tensor:
    current, model.mlp1 = model.mlp1, projector  # type: ignore[assignment]
    try:
        return model.project(states)
    finally:
        model.mlp1 = current


def _input(views: list[drawing.View]) -> Tensor:
    from mini_internvl.model import normalise

    return normalise(pixels(views))
