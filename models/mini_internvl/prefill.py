"""Prefill: tiles encoded, a shared prefix once, then the rest of each prompt."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mini_internvl.batch_config import NETWORK_BATCHING, NetworkBatchConfig
from mini_internvl.model import MiniInternVL, positions_of
from mini_internvl.prefix_cache import PrefixTree, SharedPrefix, SharedPrefixCache, TreeCache, grow_trees
from mini_internvl.shared_attention import fold_mask, shared_prefix_attention


@dataclass(frozen=True)
class PromptTail:
    """What is left of a prompt after its shared prefix, or all of it.

    Attributes:
        embeddings: `[length, width]`.
        ids: its tokens; tails of one prefix that begin with the same ones are prefilled together so far.
            Without them it is prefilled for itself.
    """

    embeddings: Tensor
    ids: Sequence[int] = ()

    @property
    def length(self) -> int:
        """Tokens."""
        return self.embeddings.shape[0]


#: Tails after one shared prefix, or whole prompts.
Run = tuple[SharedPrefix | None, Sequence[PromptTail]]


@dataclass
class PrefilledBatch:
    """A batch whose prompts are prefilled.

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
        """Drop all rows but these, before the next step, which makes new logits."""
        index = torch.tensor(rows, device=self.positions.device)
        self.cache.keep(rows)
        self.positions = self.positions[index]
        self.pads = None if self.pads is None else self.pads[index]

    def join(self, other: PrefilledBatch) -> None:
        """Take in the rows of another batch, after its own; that one is used up."""
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
def encode_tiles(
    network: MiniInternVL, tiles: Tensor, config: NetworkBatchConfig = NETWORK_BATCHING
) -> Tensor:
    """Visual tokens `[tiles, tokens, width]` of `[tiles, 3, size, size]`, some tiles at a time."""
    parts = torch.split(tiles, tiles_at_once(network, config))
    return torch.cat([network.encode_images(part) for part in parts])


def tiles_at_once(network: MiniInternVL, config: NetworkBatchConfig = NETWORK_BATCHING) -> int:
    """Tiles that are encoded fastest in one pass."""
    if network.device.type != "cpu":
        return config.tiles_on_gpu
    vision = network.config.vision
    each = (vision.grid**2 + 1) * vision.intermediate_size * network.dtype.itemsize
    return max(1, config.encoder_bytes_on_cpu // each)


@torch.inference_mode()
def prefill_prefix(network: MiniInternVL, embeddings: Tensor, prefix: SharedPrefix) -> None:
    """Fill in the keys and values of a prefix from its embeddings, `[length, width]`."""
    output = network.language_model.model(
        inputs_embeds=embeddings[None],
        position_ids=torch.arange(prefix.length, device=embeddings.device)[None],
        use_cache=True,
    )
    prefix.layers = tuple((layer.keys, layer.values) for layer in output.past_key_values.layers)


@torch.inference_mode()
def prefill(
    network: MiniInternVL,
    runs: Sequence[Run],
    config: NetworkBatchConfig = NETWORK_BATCHING,
    room: int | None = None,
) -> PrefilledBatch:
    """Prefill the prompts of a batch, or what is left of them after their prefixes.

    Args:
        network: the model.
        runs: neighbours with the same prefix, each with its prefix, which is prefilled already; or None and
            whole prompts.
        config: how much at a time.
        room: columns for new tokens, to begin with; None takes `config.cache_growth`.
    """
    lengths = [tail.length for _, tails in runs for tail in tails]
    counts = [(len(tails), prefix) for prefix, tails in runs]
    cache = SharedPrefixCache(counts, max(lengths), room, config.cache_growth)
    logits: list[Tensor] = []
    before: list[int] = []
    for prefix, tails in runs:
        first = len(before)
        if prefix is None:
            logits += _prefill_whole(network, cache, tails, first, config)
        else:
            logits += _prefill_after(network, cache, prefix, tails, first, config)
        before += [0 if prefix is None else prefix.length] * len(tails)
    device = network.device
    pads = [cache.end - length for length in lengths]
    return PrefilledBatch(
        cache,
        torch.tensor(pads, device=device) if any(pads) else None,
        torch.tensor([a + b for a, b in zip(before, lengths, strict=True)], device=device),
        torch.cat(logits),
    )


def _prefill_whole(
    network: MiniInternVL,
    cache: SharedPrefixCache,
    prompts: Sequence[PromptTail],
    first: int,
    config: NetworkBatchConfig,
) -> list[Tensor]:
    """Whole prompts, some at a time; returns their logits."""
    logits = []
    for begin, end in _passes(prompts, config.prefill_tokens):
        embeddings, mask = _padded(prompts[begin:end])
        output: Any = network.language_model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions_of(mask, mask),
            use_cache=True,
            logits_to_keep=1,
        )
        for number, layer in enumerate(output.past_key_values.layers):
            cache.store(layer.keys, layer.values, number, first + begin)
            layer.keys = layer.values = None
        logits.append(output.logits[:, -1])
    return logits


def _passes(prompts: Sequence[PromptTail], enough: int) -> list[tuple[int, int]]:
    """Neighbours that are prefilled in one pass: until it has `enough` tokens."""
    passes: list[tuple[int, int]] = []
    first = tokens = 0
    for place, prompt in enumerate(prompts):
        if tokens >= enough:
            passes.append((first, place))
            first, tokens = place, 0
        tokens += prompt.length
    return [*passes, (first, len(prompts))]


def _padded(prompts: Sequence[PromptTail]) -> tuple[Tensor, Tensor]:
    """Embeddings `[rows, longest, width]` padded on the left, int64 `[rows, longest]`, 1 at real tokens."""
    longest = max(prompt.length for prompt in prompts)
    like = prompts[0].embeddings
    embeddings = like.new_zeros(len(prompts), longest, like.shape[1])
    mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=like.device)
    for place, prompt in enumerate(prompts):
        embeddings[place, longest - prompt.length :] = prompt.embeddings
        mask[place, longest - prompt.length :] = 1
    return embeddings, mask


def _prefill_after(
    network: MiniInternVL,
    cache: SharedPrefixCache,
    prefix: SharedPrefix,
    tails: Sequence[PromptTail],
    first: int,
    config: NetworkBatchConfig,
) -> list[Tensor]:
    """What is left of prompts after their prefix, as trees; returns their logits."""
    tokens: list[Sequence[Hashable]] = [
        tail.ids or [(place, token) for token in range(tail.length)] for place, tail in enumerate(tails)
    ]
    logits = []
    with shared_prefix_attention(network.language_model):
        for begin, tree in grow_trees(tokens, config.tree_tokens(network.device.type)):
            some = tails[begin : begin + len(tree.paths)]
            logits.append(_prefill_tree(network, cache, prefix, some, tree, first + begin))
    return logits


def _prefill_tree(
    network: MiniInternVL,
    cache: SharedPrefixCache,
    prefix: SharedPrefix,
    tails: Sequence[PromptTail],
    tree: PrefixTree,
    first: int,
) -> Tensor:
    """The rows of a tree in one pass over its nodes; returns their logits, `[rows, vocabulary]`."""
    device = network.device
    places = torch.tensor(tree.source, device=device)  # [nodes, 2]
    begins = torch.tensor([0, *(tail.length for tail in tails)], device=device).cumsum(0)
    embeddings = torch.cat([tail.embeddings for tail in tails])[begins[places[:, 0]] + places[:, 1]]
    hidden = tree.hidden().to(device)
    output = network.language_model(
        inputs_embeds=embeddings[None],
        attention_mask=fold_mask(hidden[None], query_group(network), embeddings.dtype),
        position_ids=prefix.length + places[None, :, 1],
        past_key_values=TreeCache(cache, first, tree.columns().to(device)),
        use_cache=True,
        logits_to_keep=torch.tensor([path[-1] for path in tree.paths], device=device),
        prefixes=[(slice(0, 1), prefix.layers)],
    )
    logits: Tensor = output.logits[0]
    return logits


def query_group(network: MiniInternVL) -> int:
    """Query heads for each key head."""
    config = network.language_model.config
    return int(config.num_attention_heads // config.num_key_value_heads)
