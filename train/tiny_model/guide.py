"""Attention that is taught where to look.

Finding what a question names takes two heads that work together, and left to itself training spends most of
its steps before either begins. Here two heads are taught directly: one lets a word that names a thing look at
the visual tokens that show it, one lets the answer look there. The dense labels say where that is. Everything
else is learned from the answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mini_internvl.model import MiniInternVL
from tiny_model.lesson_batch import LessonBatch, LookTargets

#: Which layer and head looks, for words that name a thing and for the answer.
HEADS: Mapping[str, tuple[int, int]] = {"names": (1, 0), "answers": (4, 0)}


class GuidedInputs:
    """What the guided layers' attention was given in one forward pass."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[Tensor, tuple[Tensor, Tensor]]] = {}


@contextmanager
def recorded_inputs(model: MiniInternVL) -> Iterator[GuidedInputs]:
    """Notes the inputs of the guided layers while the model runs."""
    inputs, handles = GuidedInputs(), []
    for name, (layer, _) in HEADS.items():

        def note(_: Any, arguments: Any, named: dict[str, Any], name: str = name) -> None:
            inputs.seen[name] = (named["hidden_states"], named["position_embeddings"])

        attention = model.language_model.model.layers[layer].self_attn
        handles.append(attention.register_forward_pre_hook(note, with_kwargs=True))
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def guide_loss(model: MiniInternVL, inputs: GuidedInputs, batch: LessonBatch) -> Tensor:
    """Mean of -log of the attention that falls on what is to be seen, summed over the guided heads."""
    total = torch.zeros(())
    for name, (layer, head) in HEADS.items():
        look_targets = batch.look_targets[name]
        if len(look_targets.rows):
            attention = model.language_model.model.layers[layer].self_attn
            total = total + _missed(attention, head, *inputs.seen[name], look_targets, batch.mask)
    return total


def _missed(
    attention: Any,
    head: int,
    hidden: Tensor,
    turns: tuple[Tensor, Tensor],
    targets: LookTargets,
    mask: Tensor,
) -> Tensor:
    size = int(attention.head_dim)
    part = slice(head * size, (head + 1) * size)
    cos, sin = turns
    rows, places = targets.rows, targets.positions
    query, key = attention.q_proj, attention.k_proj
    asked = F.linear(hidden[rows, places], query.weight[part], query.bias[part])
    asked = _turned(
        asked, cos.expand(len(hidden), -1, -1)[rows, places], sin.expand(len(hidden), -1, -1)[rows, places]
    )
    held = _turned(F.linear(hidden, key.weight[part], key.bias[part]), cos, sin)
    scores = torch.einsum("nd,nld->nl", asked, held[rows]) / math.sqrt(size)
    shares = scores.masked_fill(~mask[rows, 0, places], -torch.inf).log_softmax(-1)
    return -shares.masked_fill(~targets.target, -torch.inf).logsumexp(-1).mean()


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding as Qwen2 applies it."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
