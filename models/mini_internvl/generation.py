"""How answers are generated: settings, sampling, the decoding loop, and beam search by transformers.

Decoding is greedy or drawn, one token of every sequence a step; finished sequences leave, and others join.
A step costs the same Python work for any number of sequences: tokens, stops and masks stay on the device, and
the buffers of keys and values are allocated in advance. Sequences are padded on the left and positions count
real tokens, so an answer does not depend on what shares its batch. A row is a sequence's place in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mini_internvl.batch_config import NETWORK_BATCHING, NetworkBatchConfig
from mini_internvl.decode_step import Step
from mini_internvl.errors import NotFiniteError
from mini_internvl.finite import FiniteBeams, first_not_finite
from mini_internvl.model import MiniInternVL
from mini_internvl.prefill import PrefilledBatch, query_group
from mini_internvl.shared_attention import fold_mask

Finish = Literal["stop", "length"]
StopText = Callable[[list[int]], bool]


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is generated.

    Attributes:
        max_new_tokens: most tokens of an answer, the stop token included.
        min_new_tokens: the stop token is not allowed before this many tokens.
        temperature: 0 is greedy; above, tokens are drawn.
        top_p: draw from the smallest set of tokens with this probability.
        num_beams: above 1, beam search; temperature is then not used.
        stop: texts that end an answer; it is cut before the first.
        seed: of the drawing. Sequences of one seed draw with the same numbers, whatever their batch.
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


class Decoder:
    """Sequences that are being decoded.

    Args:
        network: the model.
        settings: greedy or drawing.
        rules: stop and forbidden tokens.
        stop_text: whether a sequence's tokens so far hold a stop text.
        config: when finished sequences are looked for, and when they leave.
    """

    def __init__(
        self,
        network: MiniInternVL,
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None = None,
        config: NetworkBatchConfig = NETWORK_BATCHING,
    ) -> None:
        self._network = network
        self._leave_below = config.leave_below
        self._step = Step(network)
        self._choose = Sampler(settings, rules, network.device)
        every = 1 if network.device.type == "cpu" or stop_text is not None else config.steps_between_checks
        self._output = OutputBuffer(settings, rules, stop_text, network.device, every)
        self._batch: PrefilledBatch | None = None
        self._names: list[int] = []

    @property
    def rows(self) -> int:
        """Sequences in the batch, those included that ended since the last check."""
        return len(self._names)

    @torch.inference_mode()
    def join(self, batch: PrefilledBatch, names: Sequence[int], seeds: Sequence[int]) -> None:
        """Take in sequences whose prompts are prefilled.

        Args:
            batch: is used up.
            names: of its sequences, for `advance` to return. seeds: that they draw with.
        """
        if self._batch is None:
            self._batch = batch
        else:
            self._batch.join(batch)
        self._names += names
        self._output.join(len(names))
        self._choose.join(seeds)

    @torch.inference_mode()
    def advance(self) -> dict[int, Generated]:
        """One more token of every sequence; returns the answers of those that left."""
        if self._batch is None:
            return {}
        chosen = self._choose(self._batch.logits, self._output.counts())
        going = self._output.add(chosen)
        if going is not None and (row := first_not_finite(self._batch.logits)) is not None:
            raise NotFiniteError(
                self._names[row]
            )  # what is not finite once stays so: checks may be steps apart
        answers: dict[int, Generated] = {}
        if going is not None and len(going) <= self._leave_below * self.rows:
            answers = self._leave(going)
            chosen = chosen[torch.tensor(going, dtype=torch.long, device=chosen.device)]
        if self._batch is not None:
            self._advance(self._batch, chosen)
        return answers

    def finish(self) -> dict[int, Generated]:
        """Advance until every sequence has ended; returns what `advance` does."""
        answers: dict[int, Generated] = {}
        while self.rows:
            answers.update(self.advance())
        return answers

    def _leave(self, going: list[int]) -> dict[int, Generated]:
        """Drop the sequences at all places but these; returns their answers."""
        ended = sorted({*range(self.rows)}.difference(going))
        answers = dict(
            zip([self._names[place] for place in ended], self._output.take(ended, going), strict=True)
        )
        self._names = [self._names[place] for place in going]
        self._choose.keep(torch.tensor(going, dtype=torch.long, device=self._network.device))
        if self._batch is not None and going:
            self._batch.keep(going)
        else:
            self._batch = None
        return answers

    def _advance(self, batch: PrefilledBatch, chosen: Tensor) -> None:
        """The chosen tokens in, the next logits out."""
        mask = None
        if batch.pads is not None:
            columns = torch.arange(batch.cache.end + 1, device=chosen.device)
            hidden = (columns[None, :] < batch.pads[:, None])[:, None, :]
            mask = fold_mask(hidden, query_group(self._network), self._network.dtype)
        batch.logits = self._step(chosen, batch.positions, batch.cache, mask)
        batch.positions = batch.positions + 1


class OutputBuffer:
    """The tokens generated so far, on the device.

    Args:
        settings, rules, stop_text: when a sequence ends.
        device: of the tokens.
        every: steps between two checks for ended sequences.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None,
        device: torch.device,
        every: int,
    ) -> None:
        self._most = settings.max_new_tokens
        self._stop = torch.tensor(rules.stop, dtype=torch.long, device=device)
        self._stop_text = stop_text
        self._every = every
        self._step = 0
        self._full: set[int] = set()  # steps at which sequences reach max_new_tokens
        self._tokens = torch.empty(0, self._most + 1, dtype=torch.long, device=device)
        self._born = torch.empty(0, dtype=torch.long, device=device)
        self._cut = torch.empty(
            0, dtype=torch.long, device=device
        )  # tokens at which a stop text ended the sequence
        self._ended = torch.empty(0, dtype=torch.bool, device=device)

    def join(self, rows: int) -> None:
        """Take in sequences without a token."""
        self._tokens = torch.cat([self._tokens, self._tokens.new_full((rows, self._most + 1), -1)])
        self._born = torch.cat([self._born, self._born.new_full((rows,), self._step)])
        self._cut = torch.cat([self._cut, self._cut.new_full((rows,), self._most + 1)])
        self._ended = torch.cat([self._ended, self._ended.new_zeros(rows)])
        self._full.add(self._step + self._most)

    def counts(self) -> Tensor:
        """int64 `[rows]`: tokens so far. May exceed max_new_tokens for finished sequences not yet removed."""
        return self._step - self._born

    def add(self, chosen: Tensor) -> list[int] | None:
        """Add the tokens of a step, `[rows]`; returns the places that go on, None between two checks."""
        place = self.counts().clamp(max=self._most)
        self._tokens.scatter_(1, place[:, None], chosen[:, None])
        self._ended |= torch.isin(chosen, self._stop)
        self._step += 1
        if self._step % self._every and self._step not in self._full:
            return None
        self._full.discard(self._step)
        if self._stop_text is not None:
            self._check_stop_texts(self._stop_text)
        self._ended |= self.counts() >= self._most
        going: list[int] = (~self._ended).nonzero().flatten().tolist()
        return going

    def _check_stop_texts(self, stop_text: StopText) -> None:
        counts = self.counts().tolist()
        for place in (~self._ended).nonzero().flatten().tolist():
            if stop_text(self._tokens[place, : counts[place]].tolist()):
                self._cut[place] = counts[place]
                self._ended[place] = True

    def take(self, ended: list[int], going: list[int]) -> list[Generated]:
        """Drop all places but those `going`; returns the answers of the others."""
        index = torch.tensor(ended, dtype=torch.long, device=self._born.device)
        answers = self._generated(self._tokens[index, : self._most], self._cut[index])
        index = torch.tensor(going, dtype=torch.long, device=self._born.device)
        self._tokens, self._born = self._tokens[index], self._born[index]
        self._cut, self._ended = self._cut[index], self._ended[index]
        return answers

    def _generated(self, rows: Tensor, cuts: Tensor) -> list[Generated]:
        """Each sequence up to its end."""
        stops = torch.isin(rows, self._stop)
        stopped = stops.any(dim=1)
        first = torch.where(stopped, stops.int().argmax(dim=1) + 1, self._most)
        ends = torch.minimum(first, cuts).tolist()
        finished = (stopped | (cuts <= self._most)).tolist()
        return [
            Generated(tokens[:end], "stop" if by_stop else "length")
            for tokens, end, by_stop in zip(rows.tolist(), ends, finished, strict=True)
        ]


class Sampler:
    """Picks every sequence's next token.

    The random numbers that a sequence draws with follow from its seed, so an answer does not depend on its
    batch.
    """

    def __init__(self, settings: GenerationSettings, rules: TokenRules, device: torch.device) -> None:
        self._settings = settings
        self._forbidden = torch.tensor(rules.forbidden, dtype=torch.long, device=device)
        self._stop = torch.tensor(rules.stop, dtype=torch.long, device=device)
        self._device = device
        self._numbers = torch.empty(0, settings.max_new_tokens, device=device)

    def join(self, seeds: Sequence[int]) -> None:
        """Take in sequences that draw with these seeds."""
        if self._settings.temperature == 0:
            return
        rows = [
            torch.rand(self._settings.max_new_tokens, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        self._numbers = torch.cat([self._numbers, torch.stack(rows).to(self._device)])

    def keep(self, places: Tensor) -> None:
        """Drop all sequences but those at these places."""
        if self._settings.temperature != 0:
            self._numbers = self._numbers[places]

    def __call__(self, logits: Tensor, counts: Tensor) -> Tensor:
        """Tokens `[rows]` from logits `[rows, vocabulary]` and the number of tokens so far, `[rows]`."""
        scores = logits.index_fill_(1, self._forbidden, float("-inf"))
        if self._settings.min_new_tokens:
            early = (counts < self._settings.min_new_tokens)[:, None]
            scores[:, self._stop] = scores[:, self._stop].masked_fill(early, float("-inf"))
        if self._settings.temperature == 0:
            return scores.argmax(dim=-1)
        probabilities = (scores.float() / self._settings.temperature).softmax(dim=-1)
        ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # nucleus sampling, arXiv 1904.09751
        ordered = ordered.masked_fill(before >= self._settings.top_p, 0.0)
        reached = ordered.cumsum(dim=-1)
        places = counts.clamp(max=self._numbers.shape[1] - 1)[:, None]
        wanted = self._numbers.gather(1, places) * reached[:, -1:]
        places = torch.searchsorted(reached, wanted, right=True).clamp(max=ordered.shape[1] - 1)
        return ids.gather(1, places)[:, 0]


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
        inputs_embeds=embeddings,
        attention_mask=mask,
        generation_config=config,
        logits_processor=[FiniteBeams(settings.num_beams)],
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
