"""Reading prompts: a common prefix once, then the rest of each, what these begin with in common once too."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from mini_internvl.generation import prefill
from mini_internvl.model import MiniInternVL
from mini_internvl.shared_attention import fold_mask, shared_prefix_attention
from mini_internvl.sharing import ROOM, Prefix, SharedPrefixCache, TreePass
from mini_internvl.token_tree import TokenTree, grow

ENOUGH_TOKENS = 512
"""Whole prompts are read together until a pass has so many tokens: more make it no faster, and a prompt read
alone needs no padding and no mask, which would keep attention from leaving out what lies ahead."""

TREE_ON_CPU, TREE_ON_GPU = 256, 2048
"""Tokens of a tree: enough for products at full speed, few beside what attention among unlike rows costs."""


@dataclass(frozen=True)
class Suffix:
    """What is left of a prompt after its shared prefix, or all of it.

    Attributes:
        embeddings: `[length, width]`.
        prefix: its group's, or None.
        ids: its tokens; rows of one prefix that begin with the same are read together so far. Without them it
            is read for itself.
    """

    embeddings: Tensor
    prefix: Prefix | None = None
    ids: Sequence[int] = ()

    @property
    def length(self) -> int:
        """Tokens."""
        return self.embeddings.shape[0]


@dataclass
class Started:
    """A batch whose prompts are read.

    Attributes:
        cache: its keys and values.
        pads: int64 `[rows]`, columns before a row's first token; None where no row has any.
        positions: int64 `[rows]`, of the next token.
        logits: `[rows, vocabulary]` of the next token.
    """

    cache: SharedPrefixCache
    pads: Tensor | None
    positions: Tensor
    logits: Tensor

    def keep(self, rows: list[int]) -> None:
        """Drops all rows but these, before the next step, which makes new logits."""
        index = torch.tensor(rows, device=self.positions.device)
        self.cache.keep(rows)
        self.positions = self.positions[index]
        self.pads = None if self.pads is None else self.pads[index]

    def join(self, other: Started) -> None:
        """Takes in the rows of another batch, after its own; that one is used up."""
        own, others = (
            torch.zeros_like(each.positions) if each.pads is None else each.pads for each in (self, other)
        )
        unused = int(own.min())
        ends = self.cache.end, other.cache.end
        self.cache.join(other.cache, unused)
        self.pads = torch.cat([own + self.cache.end - ends[0], others + self.cache.end - ends[1]])
        self.positions = torch.cat([self.positions, other.positions])
        self.logits = torch.cat([self.logits, other.logits])


@torch.inference_mode()
def read_prefix(network: MiniInternVL, embeddings: Tensor) -> Prefix:
    """Reads what several prompts have in common.

    Args:
        network: the model.
        embeddings: `[length, width]`.
    """
    length = embeddings.shape[0]
    output = network.language_model.model(
        inputs_embeds=embeddings[None],
        position_ids=torch.arange(length, device=embeddings.device)[None],
        use_cache=True,
    )
    return Prefix(length, tuple((layer.keys, layer.values) for layer in output.past_key_values.layers))


@torch.inference_mode()
def start(network: MiniInternVL, suffixes: Sequence[Suffix], room: int = ROOM) -> Started:
    """Reads the prompts of a batch, or what is left of them after their prefixes.

    Args:
        network: the model.
        suffixes: rows; those of one prefix lie side by side.
        room: columns for new tokens, to begin with.
    """
    lengths = [suffix.length for suffix in suffixes]
    runs = [list(run) for _, run in groupby(suffixes, key=lambda suffix: id(suffix.prefix))]
    cache = SharedPrefixCache([(len(run), run[0].prefix) for run in runs], max(lengths), room)
    logits: list[Tensor] = []
    first = 0
    for run in runs:
        prefix = run[0].prefix
        if prefix is None:
            logits += _read_whole(network, cache, run, first)
        else:
            logits += _read_after(network, cache, prefix, run, first)
        first += len(run)
    device = network.device
    before = [0 if suffix.prefix is None else suffix.prefix.length for suffix in suffixes]
    pads = [cache.end - length for length in lengths]
    return Started(
        cache,
        torch.tensor(pads, device=device) if any(pads) else None,
        torch.tensor([a + b for a, b in zip(before, lengths, strict=True)], device=device),
        torch.cat(logits),
    )


def _read_whole(
    network: MiniInternVL, cache: SharedPrefixCache, rows: Sequence[Suffix], first: int
) -> list[Tensor]:
    """Whole prompts, some at a time; returns their logits."""
    logits = []
    for begin, end in _passes(rows):
        read = prefill(network, *_padded(rows[begin:end]))
        for number, layer in enumerate(read.cache.layers):
            cache.store(layer.keys, layer.values, number, first + begin)
            layer.keys = layer.values = None
        logits.append(read.logits)
    return logits


def _passes(rows: Sequence[Suffix]) -> list[tuple[int, int]]:
    """Neighbours that are read in one pass."""
    passes: list[tuple[int, int]] = []
    first = tokens = 0
    for place, row in enumerate(rows):
        if tokens >= ENOUGH_TOKENS:
            passes.append((first, place))
            first, tokens = place, 0
        tokens += row.length
    return [*passes, (first, len(rows))]


def _padded(rows: Sequence[Suffix]) -> tuple[Tensor, Tensor]:
    """Embeddings `[rows, longest, width]` padded on the left, int64 `[rows, longest]`, 1 at real tokens."""
    longest = max(row.length for row in rows)
    like = rows[0].embeddings
    embeddings = like.new_zeros(len(rows), longest, like.shape[1])
    mask = torch.zeros(len(rows), longest, dtype=torch.long, device=like.device)
    for place, row in enumerate(rows):
        embeddings[place, longest - row.length :] = row.embeddings
        mask[place, longest - row.length :] = 1
    return embeddings, mask


def _read_after(
    network: MiniInternVL, cache: SharedPrefixCache, prefix: Prefix, rows: Sequence[Suffix], first: int
) -> list[Tensor]:
    """What is left of prompts after their prefix, as trees; returns their logits."""
    most = TREE_ON_CPU if network.device.type == "cpu" else TREE_ON_GPU
    tokens: list[Sequence[Hashable]] = [
        row.ids or [(place, token) for token in range(row.length)] for place, row in enumerate(rows)
    ]
    logits = []
    with shared_prefix_attention(network.language_model):
        for begin, tree in grow(tokens, most):
            some = rows[begin : begin + len(tree.paths)]
            logits.append(_read_tree(network, cache, prefix, some, tree, first + begin))
    return logits


def _read_tree(
    network: MiniInternVL,
    cache: SharedPrefixCache,
    prefix: Prefix,
    rows: Sequence[Suffix],
    tree: TokenTree,
    first: int,
) -> Tensor:
    """The rows of a tree in one pass over its nodes; returns their logits."""
    device = network.device
    places = torch.tensor(tree.source, device=device)
    begins = torch.tensor([0, *(row.length for row in rows)], device=device).cumsum(0)
    embeddings = torch.cat([row.embeddings for row in rows])[begins[places[:, 0]] + places[:, 1]]
    hidden = tree.hidden().to(device)
    output = network.language_model(
        inputs_embeds=embeddings[None],
        attention_mask=fold_mask(hidden[None], query_group(network), embeddings.dtype),
        position_ids=prefix.length + places[None, :, 1],
        past_key_values=TreePass(cache, first, tree.columns().to(device)),
        use_cache=True,
        logits_to_keep=torch.tensor([path[-1] for path in tree.paths], device=device),
        shared_prefix=[(slice(0, 1), prefix.layers)],
    )
    logits: Tensor = output.logits[0]
    return logits


def query_group(network: MiniInternVL) -> int:
    """Query heads for each key head."""
    config = network.language_model.config
    return int(config.num_attention_heads // config.num_key_value_heads)
