"""Prefill and greedy or drawn decoding of a batch, with shared prefixes or without.

A step costs the same Python work however many rows there are: tokens, stops and masks stay on the device, and
the buffers of keys and values are allocated beforehand. Finished rows leave the batch when they are many
enough to pay for moving the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mini_internvl.generation import (
    Generated,
    GenerationSettings,
    StopText,
    TokenRules,
    prefill,
)
from mini_internvl.model import MiniInternVL
from mini_internvl.shared_attention import fold_mask, shared_prefix_attention
from mini_internvl.sharing import ROOM, Prefix, SharedPrefixCache
from mini_internvl.stepping import Step

PREFILL_TOKENS = 4096
"""Tokens read in one pass: beyond this a pass only takes more memory."""

ENOUGH_TOKENS, MOST_PADDING = 512, 0.1
"""A pass that has so many tokens ends before a longer row would make more than this share of it padding."""

LEAVE_AT = 0.75
"""Finished rows leave when no more than this share is still going."""

STEPS_BETWEEN_CHECKS = 8
"""On an accelerator, steps between two looks at whether rows have ended: a look waits for the device."""


@dataclass(frozen=True)
class Suffix:
    """What is left of a prompt after its shared prefix, or all of it.

    Attributes:
        embeddings: `[length, width]`.
        prefix: its group's, or None.
    """

    embeddings: Tensor
    prefix: Prefix | None = None

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
        """Drops all rows but these."""
        index = torch.tensor(rows, device=self.positions.device)
        self.cache.keep(rows)
        self.positions = self.positions[index]
        self.pads = None if self.pads is None else self.pads[index]


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
        suffixes: rows; those of one prefix lie side by side and come before rows without one.
        room: columns for new tokens, to begin with.
    """
    lengths = [suffix.length for suffix in suffixes]
    cache = SharedPrefixCache(len(suffixes), max(lengths), room, _runs(suffixes))
    before = [0 if suffix.prefix is None else suffix.prefix.length for suffix in suffixes]
    device = network.device
    pads = [cache.end - length for length in lengths]
    logits: list[Tensor] = []
    for first, last in _passes(suffixes):
        some = suffixes[first:last]
        if some[0].prefix is None:
            logits.append(_read_alone(network, cache, some, first))
        else:
            with shared_prefix_attention(network.language_model):
                logits.append(_read_after(network, cache, some, first, before[first:last]))
    positions = torch.tensor([a + b for a, b in zip(before, lengths, strict=True)], device=device)
    return Started(
        cache, torch.tensor(pads, device=device) if any(pads) else None, positions, torch.cat(logits)
    )


def _runs(suffixes: Sequence[Suffix]) -> list[tuple[int, Prefix]]:
    """How many neighbours have which prefix."""
    runs: list[tuple[int, Prefix]] = []
    for suffix in suffixes:
        if suffix.prefix is None:
            break
        if runs and runs[-1][1] is suffix.prefix:
            runs[-1] = (runs[-1][0] + 1, suffix.prefix)
        else:
            runs.append((1, suffix.prefix))
    return runs


def _passes(suffixes: Sequence[Suffix]) -> list[tuple[int, int]]:
    """Neighbours that are read in one pass: with prefixes or without, not too many, of similar length."""
    passes: list[tuple[int, int]] = []
    first = longest = real = 0
    for place, suffix in enumerate(suffixes):
        longest, real = max(longest, suffix.length), real + suffix.length
        alike = (suffix.prefix is None) == (suffixes[first].prefix is None)
        padded = longest * (place + 1 - first)
        wasteful = real - suffix.length >= ENOUGH_TOKENS and padded - real > MOST_PADDING * padded
        if place > first and (not alike or padded > PREFILL_TOKENS or wasteful):
            passes.append((first, place))
            first, longest, real = place, suffix.length, suffix.length
    passes.append((first, len(suffixes)))
    return passes


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


def _read_alone(
    network: MiniInternVL, cache: SharedPrefixCache, rows: Sequence[Suffix], first: int
) -> Tensor:
    """Whole prompts; returns their logits."""
    read = prefill(network, *_padded(rows))
    for number, layer in enumerate(read.cache.layers):
        cache.store(layer.keys, layer.values, number, first, first + len(rows))
        layer.keys = layer.values = None
    return read.logits


def _read_after(
    network: MiniInternVL, cache: SharedPrefixCache, rows: Sequence[Suffix], first: int, before: Sequence[int]
) -> Tensor:
    """Suffixes after their prefixes; returns their logits."""
    embeddings, mask = _padded(rows)
    length = embeddings.shape[1]
    index = torch.arange(length, device=embeddings.device)
    hidden = (index[None, :] > index[:, None]) | torch.eq(mask, 0)[:, None, :]
    hidden = hidden & (
        index[None, :] != index[:, None]
    )  # padding sees itself, so that nothing is divided by 0
    offset = torch.tensor(before, device=embeddings.device)[:, None]
    output = network.language_model(
        inputs_embeds=embeddings,
        attention_mask=fold_mask(hidden, _group(network), embeddings.dtype),
        position_ids=offset + (mask.cumsum(dim=-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        shared_prefix=cache.window(first, first + len(rows), length),
    )
    logits: Tensor = output.logits[:, -1]
    return logits


def _group(network: MiniInternVL) -> int:
    config = network.language_model.config
    return int(config.num_attention_heads // config.num_key_value_heads)


@torch.inference_mode()
def decode(
    network: MiniInternVL,
    started: Started,
    settings: GenerationSettings,
    rules: TokenRules,
    stop_text: StopText | None = None,
) -> list[Generated]:
    """Generates until every row has stopped or is full. Uses `started` up.

    Args:
        network: the model.
        started: what `start` returned.
        settings: greedy or drawing.
        rules: stop and forbidden tokens.
        stop_text: whether a row's tokens so far hold a stop text.
    """
    said = _Said(started, settings, rules, stop_text)
    choose = _Chooser(settings, rules, started.logits.device)
    step = Step(network)
    for number in range(settings.max_new_tokens):
        chosen = choose(started.logits, number)
        going = said.add(chosen, number)
        if going is not None:
            if not going or number + 1 == settings.max_new_tokens:
                break
            if len(going) <= LEAVE_AT * len(chosen):
                started.keep(going)
                chosen = said.keep(going, chosen)
        _advance(network, step, started, chosen)
    return said.generated()


def _advance(network: MiniInternVL, step: Step, started: Started, chosen: Tensor) -> None:
    """One step: the chosen tokens in, the next logits out."""
    mask = None
    if started.pads is not None:
        columns = torch.arange(started.cache.end + 1, device=chosen.device)
        hidden = (columns[None, :] < started.pads[:, None])[:, None, :]
        mask = fold_mask(hidden, _group(network), network.dtype)
    started.logits = step(chosen, started.positions, started.cache, mask)
    started.positions = started.positions + 1


class _Said:
    """What the rows have said so far, on the device."""

    def __init__(
        self, started: Started, settings: GenerationSettings, rules: TokenRules, stop_text: StopText | None
    ) -> None:
        device = started.logits.device
        rows = started.logits.shape[0]
        self._tokens = torch.full((rows, settings.max_new_tokens), -1, dtype=torch.long, device=device)
        self._rows = torch.arange(rows, device=device)
        self._ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self._stop = torch.tensor(rules.stop, dtype=torch.long, device=device)
        self._stop_text = stop_text
        self._text_ends: dict[int, int] = {}
        self._every = 1 if device.type == "cpu" or stop_text is not None else STEPS_BETWEEN_CHECKS
        self._last = settings.max_new_tokens - 1

    def add(self, chosen: Tensor, step: int) -> list[int] | None:
        """Takes the tokens of a step; returns the places that go on, None between looks."""
        self._tokens[self._rows, step] = chosen
        self._ended |= torch.isin(chosen, self._stop)
        if step != self._last and (step + 1) % self._every:
            return None
        going: list[int] = (~self._ended).nonzero().flatten().tolist()
        if self._stop_text is not None:
            going = [place for place in going if not self._text_ended(place, step)]
        return going

    def _text_ended(self, place: int, step: int) -> bool:
        row = int(self._rows[place])
        if self._stop_text is None or not self._stop_text(self._tokens[row, : step + 1].tolist()):
            return False
        self._text_ends[row] = step + 1
        self._ended[place] = True
        return True

    def keep(self, places: list[int], chosen: Tensor) -> Tensor:
        """Drops all places but these; returns their tokens."""
        index = torch.tensor(places, device=self._rows.device)
        self._rows, self._ended = self._rows[index], self._ended[index]
        return chosen[index]

    def generated(self) -> list[Generated]:
        """Each row up to its end."""
        stops = torch.isin(self._tokens, self._stop)
        ended = stops.any(dim=1).tolist()
        first = stops.int().argmax(dim=1).tolist()
        answers = []
        for row, tokens in enumerate(self._tokens.tolist()):
            end = first[row] + 1 if ended[row] else len(tokens)
            end = min(end, self._text_ends.get(row, end))
            stopped = ended[row] or row in self._text_ends
            said = [token for token in tokens[:end] if token >= 0]
            answers.append(Generated(said, "stop" if stopped else "length"))
        return answers


class _Chooser:
    """Picks every row's next token. Drawing uses the same numbers for every row, so a row's answer does not
    depend on what shares its batch."""

    def __init__(self, settings: GenerationSettings, rules: TokenRules, device: torch.device) -> None:
        self._settings = settings
        self._forbidden = torch.tensor(rules.forbidden, dtype=torch.long, device=device)
        self._at_first = torch.tensor((*rules.forbidden, *rules.stop), dtype=torch.long, device=device)
        stream = torch.Generator().manual_seed(settings.seed)
        self._numbers = torch.rand(settings.max_new_tokens, generator=stream).tolist()

    def __call__(self, logits: Tensor, step: int) -> Tensor:
        banned = self._at_first if step < self._settings.min_new_tokens else self._forbidden
        scores = logits.index_fill_(1, banned, float("-inf"))
        if self._settings.temperature == 0:
            return scores.argmax(dim=-1)
        probabilities = (scores.float() / self._settings.temperature).softmax(dim=-1)
        ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # nucleus sampling, arXiv 1904.09751
        ordered = ordered.masked_fill(before >= self._settings.top_p, 0.0)
        reached = ordered.cumsum(dim=-1)
        wanted = self._numbers[step] * reached[:, -1:]
        places = torch.searchsorted(reached, wanted, right=True).clamp(max=ordered.shape[1] - 1)
        return ids.gather(1, places)[:, 0]
