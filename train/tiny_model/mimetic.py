"""How the language side starts: some heads already look where finding things needs them to look.

Finding is two moves: attend to what is equal, attend to what stands just before. Small transformers take most
of their training until such heads appear (Olsson and others 2022, arXiv 2209.11895), and starting near them
is known to help (mimetic initialisation, Trockman and Kolter 2023, arXiv 2305.09828). Three kinds are set:

- `back n`: attends n tokens back, by biases of query and key that the rotary positions turn into a peak;
- `same`: attends to equal words elsewhere, itself excepted;
- `seen`: attends to visual tokens that show what a word names. Visual tokens hold embeddings of words in a
  basis of their own (`seen_basis`), so that a word does not match itself.

All of it is only a start: every weight is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mini_internvl.model import MiniInternVL

#: Heads of the first layers; None keeps the usual random start.
LAYOUT: tuple[tuple[str | None, ...], ...] = (
    ("back 1", "back 2", "back 3", "seen"),
    ("seen", "seen", "same", "same"),
    ("back 1", "back 2", "seen", "same"),
    ("seen", "same", "same", None),
)
_PEAK, _SHARPNESS, _AVERSION, _OUT = 5.0, 1.7, 2.1, 0.15
_EMBEDDING = 0.06


def seen_basis(words: Tensor) -> Tensor:
    """Embeddings of words `[..., width]` as visual tokens hold them: the halves of the width exchanged."""
    return words.roll(words.shape[-1] // 2, dims=-1)


@torch.no_grad()
def prepare(model: MiniInternVL, seed: int = 0) -> None:
    """Sets embeddings and the heads of `LAYOUT` in place."""
    source = torch.Generator().manual_seed(seed)
    embeddings = model.language_model.get_input_embeddings().weight
    embeddings.normal_(0.0, _EMBEDDING, generator=source)
    theta = float(model.config.llm["rope_theta"])
    for layer, kinds in zip(model.language_model.model.layers, LAYOUT, strict=False):
        for head, kind in enumerate(kinds):
            if kind is not None:
                _set_head(layer.self_attn, head, kind, theta, source)


def _set_head(attention: Any, head: int, kind: str, theta: float, source: torch.Generator) -> None:
    size = int(attention.head_dim)
    rows = slice(head * size, (head + 1) * size)
    width = attention.q_proj.weight.shape[1]
    pairs = size // 2
    speeds = theta ** (-torch.arange(pairs) / pairs)
    read, write = _orthonormal(size, width, source), _orthonormal(size, width, source)
    query, key, value = (getattr(attention, f"{name}_proj") for name in "qkv")
    for part in (query, key):
        part.bias[rows] = 0.0
    if kind.startswith("back"):
        distance = int(kind.split()[1])
        for part in (query, key):
            part.weight[rows] *= 0.3
        quick = [0, 1, 2]
        _set_pairs(query.bias[rows], quick, _PEAK, -distance * speeds)
        _set_pairs(key.bias[rows], quick, _PEAK, torch.zeros(pairs))
    else:
        match = _orthonormal(size, width, source) * _SHARPNESS
        fast = [i for i in range(pairs) if i < 6]
        match[fast + [i + pairs for i in fast]] = 0.0
        query.weight[rows] = match
        key.weight[rows] = seen_basis(match) if kind == "seen" else match
        if kind == "same":
            _set_pairs(query.bias[rows], range(pairs), -_AVERSION, torch.zeros(pairs))
            _set_pairs(key.bias[rows], range(pairs), _AVERSION, torch.zeros(pairs))
    value.weight[rows] = seen_basis(read) if kind == "seen" else read
    value.bias[rows] = 0.0
    attention.o_proj.weight[:, rows] = _OUT * (read if kind == "seen" else write).T


def _set_pairs(bias: Tensor, pairs: Sequence[int], size: float, angles: Tensor) -> None:
    """Rotary pair i is (i, i + half); an angle turns it."""
    half = bias.shape[0] // 2
    for i in pairs:
        bias[i] = size * torch.cos(angles[i])
        bias[i + half] = size * torch.sin(angles[i])


def _orthonormal(rows: int, columns: int, source: torch.Generator) -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(columns, rows, generator=source))
    across: Tensor = q.T.contiguous()
    return across
