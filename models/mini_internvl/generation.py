"""How answers are generated: settings, token rules, what an answer is, and beam search by transformers.

Sequences are padded on the left and positions count real tokens, so an answer does not depend on what shares
its batch. Token by token, `mini_internvl.decoding` goes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mini_internvl.model import MiniInternVL

Finish = Literal["stop", "length"]
StopText = Callable[[list[int]], bool]


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
        seed: of the drawing; every sequence draws with the same numbers, whatever its batch.
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


@torch.inference_mode()
def beam_search(
    network: MiniInternVL,
    embeddings: Tensor,
    mask: Tensor,
    settings: GenerationSettings,
    rules: TokenRules,
) -> list[Generated]:
    """Beam search by transformers' `generate`.

    Args:
        network: the model.
        embeddings: `[batch, length, width]`, padded on the left.
        mask: int64 `[batch, length]`, 1 at real tokens.
        settings: number of beams and lengths.
        rules: stop and forbidden tokens.
    """
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


def _until_stop(row: list[int], stop: tuple[int, ...]) -> Generated:
    for place, token in enumerate(row):
        if token in stop:
            return Generated(row[: place + 1], "stop")
    return Generated(row, "length")
