"""Greedy or drawn decoding, all rows a token at a time; rows leave when they have ended, and others join.

A step costs the same Python work however many rows there are: tokens, stops and masks stay on the device, and
the buffers of keys and values are allocated beforehand. Finished rows leave the batch when they are many
enough to pay for moving the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mini_internvl.generation import Generated, GenerationSettings, StopText, TokenRules
from mini_internvl.model import MiniInternVL
from mini_internvl.reading import Started, query_group
from mini_internvl.shared_attention import fold_mask
from mini_internvl.stepping import Step

LEAVE_AT = 0.75
"""Finished rows leave when no more than this share is still going."""

STEPS_BETWEEN_LOOKS = 8
"""On an accelerator, steps between two looks at whether rows have ended: a look waits for the device."""


class Decoder:
    """Rows on the way to their answers.

    Args:
        network: the model.
        settings: greedy or drawing.
        rules: stop and forbidden tokens.
        stop_text: whether a row's tokens so far hold a stop text.
    """

    def __init__(
        self,
        network: MiniInternVL,
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None = None,
    ) -> None:
        self._network = network
        self._step = Step(network)
        self._choose = _Chooser(settings, rules, network.device)
        self._said = _Said(settings, rules, stop_text, network.device)
        self._started: Started | None = None
        self._names: list[int] = []

    @property
    def rows(self) -> int:
        """How many are in the batch, those included whose end was not looked for yet."""
        return len(self._names)

    @torch.inference_mode()
    def join(self, started: Started, names: Sequence[int]) -> None:
        """Takes in rows whose prompts are read.

        Args:
            started: is used up.
            names: of its rows, for `advance` to return.
        """
        if self._started is None:
            self._started = started
        else:
            self._started.join(started)
        self._names += names
        self._said.join(len(names))

    @torch.inference_mode()
    def advance(self) -> dict[int, Generated]:
        """One more token of every row; returns the answers of rows that left."""
        if self._started is None:
            return {}
        chosen = self._choose(self._started.logits, self._said.counts())
        going = self._said.add(chosen)
        answers: dict[int, Generated] = {}
        if going is not None and len(going) <= LEAVE_AT * self.rows:
            answers = self._leave(going)
            chosen = chosen[torch.tensor(going, dtype=torch.long, device=chosen.device)]
        if self._started is not None:
            self._advance(self._started, chosen)
        return answers

    def finish(self) -> dict[int, Generated]:
        """Advances until every row has ended; returns what `advance` does."""
        answers: dict[int, Generated] = {}
        while self.rows:
            answers.update(self.advance())
        return answers

    def _leave(self, going: list[int]) -> dict[int, Generated]:
        """Drops the rows at all places but these; returns their answers."""
        ended = sorted({*range(self.rows)}.difference(going))
        answers = dict(
            zip([self._names[place] for place in ended], self._said.take(ended, going), strict=True)
        )
        self._names = [self._names[place] for place in going]
        if self._started is not None and going:
            self._started.keep(going)
        else:
            self._started = None
        return answers

    def _advance(self, started: Started, chosen: Tensor) -> None:
        """The chosen tokens in, the next logits out."""
        mask = None
        if started.pads is not None:
            columns = torch.arange(started.cache.end + 1, device=chosen.device)
            hidden = (columns[None, :] < started.pads[:, None])[:, None, :]
            mask = fold_mask(hidden, query_group(self._network), self._network.dtype)
        started.logits = self._step(chosen, started.positions, started.cache, mask)
        started.positions = started.positions + 1


class _Said:
    """What the rows have said so far, on the device."""

    def __init__(
        self,
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None,
        device: torch.device,
    ) -> None:
        self._most = settings.max_new_tokens
        self._stop = torch.tensor(rules.stop, dtype=torch.long, device=device)
        self._stop_text = stop_text
        self._every = 1 if device.type == "cpu" or stop_text is not None else STEPS_BETWEEN_LOOKS
        self._step = 0
        self._full: set[int] = set()  # steps at which rows reach the most tokens
        self._tokens = torch.empty(0, self._most + 1, dtype=torch.long, device=device)
        self._born = torch.empty(0, dtype=torch.long, device=device)
        self._cut = torch.empty(0, dtype=torch.long, device=device)  # tokens at which a text ended the row
        self._ended = torch.empty(0, dtype=torch.bool, device=device)

    def join(self, rows: int) -> None:
        """Takes in rows that have said nothing."""
        self._tokens = torch.cat([self._tokens, self._tokens.new_full((rows, self._most + 1), -1)])
        self._born = torch.cat([self._born, self._born.new_full((rows,), self._step)])
        self._cut = torch.cat([self._cut, self._cut.new_full((rows,), self._most + 1)])
        self._ended = torch.cat([self._ended, self._ended.new_zeros(rows)])
        self._full.add(self._step + self._most)

    def counts(self) -> Tensor:
        """int64 `[rows]`: tokens said; more than the most by rows that are full and still there."""
        return self._step - self._born

    def add(self, chosen: Tensor) -> list[int] | None:
        """Takes the tokens of a step; returns the places that go on, None between looks."""
        place = self.counts().clamp(max=self._most)
        self._tokens.scatter_(1, place[:, None], chosen[:, None])
        self._ended |= torch.isin(chosen, self._stop)
        self._step += 1
        if self._step % self._every and self._step not in self._full:
            return None
        self._full.discard(self._step)
        if self._stop_text is not None:
            self._look_for_texts(self._stop_text)
        self._ended |= self.counts() >= self._most
        going: list[int] = (~self._ended).nonzero().flatten().tolist()
        return going

    def _look_for_texts(self, stop_text: StopText) -> None:
        counts = self.counts().tolist()
        for place in (~self._ended).nonzero().flatten().tolist():
            if stop_text(self._tokens[place, : counts[place]].tolist()):
                self._cut[place] = counts[place]
                self._ended[place] = True

    def take(self, ended: list[int], going: list[int]) -> list[Generated]:
        """Drops all places but those `going`; returns the answers of the others."""
        index = torch.tensor(ended, dtype=torch.long, device=self._born.device)
        answers = self._generated(self._tokens[index, : self._most], self._cut[index])
        index = torch.tensor(going, dtype=torch.long, device=self._born.device)
        self._tokens, self._born = self._tokens[index], self._born[index]
        self._cut, self._ended = self._cut[index], self._ended[index]
        return answers

    def _generated(self, rows: Tensor, cuts: Tensor) -> list[Generated]:
        """Each row up to its end."""
        stops = torch.isin(rows, self._stop)
        stopped = stops.any(dim=1)
        first = torch.where(stopped, stops.int().argmax(dim=1) + 1, self._most)
        ends = torch.minimum(first, cuts).tolist()
        finished = (stopped | (cuts <= self._most)).tolist()
        return [
            Generated(tokens[:end], "stop" if by_stop else "length")
            for tokens, end, by_stop in zip(rows.tolist(), ends, finished, strict=True)
        ]


class _Chooser:
    """Picks every row's next token. Drawing uses the same numbers for every row, so a row's answer does not
    depend on what shares its batch."""

    def __init__(self, settings: GenerationSettings, rules: TokenRules, device: torch.device) -> None:
        self._settings = settings
        self._forbidden = torch.tensor(rules.forbidden, dtype=torch.long, device=device)
        self._stop = torch.tensor(rules.stop, dtype=torch.long, device=device)
        stream = torch.Generator().manual_seed(settings.seed)
        self._numbers = torch.rand(settings.max_new_tokens, generator=stream).to(device)

    def __call__(self, logits: Tensor, counts: Tensor) -> Tensor:
        """Tokens `[rows]` from logits `[rows, vocabulary]` and the tokens that each row has said."""
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
        wanted = self._numbers[counts.clamp(max=len(self._numbers) - 1)][:, None] * reached[:, -1:]
        places = torch.searchsorted(reached, wanted, right=True).clamp(max=ordered.shape[1] - 1)
        return ids.gather(1, places)[:, 0]
