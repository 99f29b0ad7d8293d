"""Generation: prefill once, then decode a batch of unlike sequences token by token.

Rows are padded on the left, positions count real tokens, finished rows leave the batch. Greedy choice and
sampling work row by row, so an answer does not depend on what shares its batch; beams are transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mini_internvl.model import MiniInternVL, positions_of

Finish = Literal["stop", "length"]
StopText = Callable[[list[int]], bool]

TILES_AT_ONCE = 16
"""Tiles encoded in one pass: beyond this a pass only takes more memory."""


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is generated.

    Attributes:
        max_new_tokens: most tokens of an answer, the stop token included.
        min_new_tokens: the stop token is held back before so many tokens.
        temperature: 0 is greedy; above, tokens are drawn.
        top_p: draw from the smallest set of tokens with this probability.
        num_beams: above 1, beam search; temperature is then not used.
        stop: texts that end an answer; it is cut before the first.
        seed: of the drawing; each sequence of a batch has its own stream.
    """

    max_new_tokens: int = 100
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    num_beams: int = 1
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} must be at least 1")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.num_beams < 1:
            raise ValueError("temperature must be >= 0, top_p in (0, 1] and num_beams >= 1")


@dataclass(frozen=True)
class TokenRules:
    """Which tokens end an answer and which must never be in one.

    Attributes:
        stop: ids that end an answer.
        forbidden: ids that are never generated: image, padding and other control tokens.
        pad: fills the place after an answer's end.
    """

    stop: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()
    pad: int = 0


@dataclass(frozen=True)
class Generated:
    """One answer as tokens, a stop token at its end included, and why it ended."""

    tokens: list[int]
    finish: Finish


@dataclass
class Prefilled:
    """The state of a batch between steps.

    Attributes:
        cache: keys and values of all layers, transformers' cache.
        mask: int64 `[batch, length]`, 1 at real tokens.
        positions: int64 `[batch]`, the position of the next token.
        logits: `[batch, vocabulary]` of the next token.
    """

    cache: Any
    mask: Tensor
    positions: Tensor
    logits: Tensor

    def select(self, rows: list[int]) -> None:
        """Keeps only these rows."""
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask, self.positions, self.logits = self.mask[index], self.positions[index], self.logits[index]


@torch.inference_mode()
def encode_tiles(network: MiniInternVL, tiles: Tensor) -> Tensor:
    """Visual tokens `[tiles, tokens, width]`, a limited number of tiles at a time."""
    return torch.cat([network.encode_images(part) for part in torch.split(tiles, TILES_AT_ONCE)])


@torch.inference_mode()
def prefill(network: MiniInternVL, embeddings: Tensor, mask: Tensor) -> Prefilled:
    """Runs the prompt through the language model.

    Args:
        network: the model.
        embeddings: `[batch, length, width]`, padded on the left.
        mask: int64 `[batch, length]`.
    """
    positions = positions_of(mask, mask)
    output = network.language_model(
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,
    )
    return Prefilled(output.past_key_values, mask, positions[:, -1] + 1, output.logits[:, -1])


@torch.inference_mode()
def decode(
    network: MiniInternVL,
    state: Prefilled,
    settings: GenerationSettings,
    rules: TokenRules,
    stop_text: StopText | None = None,
) -> list[Generated]:
    """Generates until every row has stopped or is full. Uses `state` up.

    Args:
        network: the model.
        state: what `prefill` returned.
        settings: greedy or drawing.
        rules: stop and forbidden tokens.
        stop_text: whether a row's tokens so far hold a stop text.
    """
    choose = _Chooser(settings, rules, state.logits)
    rows = list(range(state.logits.shape[0]))
    tokens: list[list[int]] = [[] for _ in rows]
    finish: list[Finish] = ["length" for _ in rows]
    for step in range(settings.max_new_tokens):
        chosen = choose(state.logits, rows, step)
        going: list[int] = []
        for place, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            tokens[row].append(token)
            if token in rules.stop or (stop_text is not None and stop_text(tokens[row])):
                finish[row] = "stop"
            else:
                going.append(place)
        if not going or step + 1 == settings.max_new_tokens:
            break
        if len(going) < len(rows):
            state.select(going)
            rows, chosen = [rows[place] for place in going], [chosen[place] for place in going]
        _advance(network, state, chosen)
    return [Generated(*pair) for pair in zip(tokens, finish, strict=True)]


@torch.inference_mode()
def beam_search(
    network: MiniInternVL,
    embeddings: Tensor,
    mask: Tensor,
    settings: GenerationSettings,
    rules: TokenRules,
) -> list[Generated]:
    """Beam search by transformers' `generate`, on prompts as for `prefill`."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        min_new_tokens=settings.min_new_tokens or None,
        num_beams=settings.num_beams,
        do_sample=False,
        eos_token_id=list(rules.stop) or None,
        pad_token_id=rules.pad,
        suppress_tokens=list(rules.forbidden) or None,
    )
    sequences = network.language_model.generate(
        inputs_embeds=embeddings, attention_mask=mask, generation_config=config
    )
    return [_until_stop(row, rules.stop) for row in sequences.tolist()]


def cut_at_stop(text: str, stop: Collection[str]) -> str:
    """The text before the first of the stop texts."""
    ends = [text.find(mark) for mark in stop if mark in text]
    return text[: min(ends)] if ends else text


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Unlike rows as ids and mask, both int64 `[batch, longest]`."""
    longest = max(len(row) for row in rows)
    ids = [[pad] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def _advance(network: MiniInternVL, state: Prefilled, chosen: list[int]) -> None:
    """One step: the chosen tokens in, the next logits out."""
    device = state.mask.device
    state.mask = torch.cat([state.mask, state.mask.new_ones(len(chosen), 1)], dim=1)
    output = network.language_model(
        input_ids=torch.tensor(chosen, device=device)[:, None],
        attention_mask=state.mask,
        position_ids=state.positions[:, None],
        past_key_values=state.cache,
        use_cache=True,
    )
    state.positions = state.positions + 1
    state.logits = output.logits[:, -1]


class _Chooser:
    """Picks each row's next token, with one stream of random numbers a row."""

    def __init__(self, settings: GenerationSettings, rules: TokenRules, logits: Tensor) -> None:
        self.settings = settings
        self.forbidden = torch.tensor(rules.forbidden, dtype=torch.long, device=logits.device)
        self.at_first = torch.tensor((*rules.forbidden, *rules.stop), dtype=torch.long, device=logits.device)
        self.streams = [torch.Generator().manual_seed(settings.seed) for _ in range(logits.shape[0])]

    def __call__(self, logits: Tensor, rows: list[int], step: int) -> list[int]:
        banned = self.at_first if step < self.settings.min_new_tokens else self.forbidden
        scores = logits.float().index_fill(1, banned, float("-inf"))
        if self.settings.temperature == 0:
            return [int(token) for token in scores.argmax(dim=-1).tolist()]
        probabilities = (scores / self.settings.temperature).softmax(dim=-1).cpu()
        return [self._draw(p, self.streams[row]) for p, row in zip(probabilities, rows, strict=True)]

    def _draw(self, probabilities: Tensor, stream: torch.Generator) -> int:
        ordered, ids = probabilities.sort(descending=True)
        before = ordered.cumsum(0) - ordered  # nucleus sampling, arXiv 1904.09751
        ordered = ordered.masked_fill(before >= self.settings.top_p, 0.0)
        return int(ids[torch.multinomial(ordered, 1, generator=stream)])


def _until_stop(row: list[int], stop: tuple[int, ...]) -> Generated:
    for place, token in enumerate(row):
        if token in stop:
            return Generated(row[: place + 1], "stop")
    return Generated(row, "length")
