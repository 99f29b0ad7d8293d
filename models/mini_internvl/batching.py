"""Running unlike prompts to their end: what they share once, the rest in batches that the memory takes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mini_internvl.decoding import Decoder
from mini_internvl.errors import OutOfMemory
from mini_internvl.generation import (
    Generated,
    GenerationSettings,
    StopText,
    TokenRules,
    beam_search,
    encode_tiles,
    pad_left,
)
from mini_internvl.groups import Common, Group, Limits, Row, Waiting, group_rows
from mini_internvl.memory import is_out_of_memory, most_tokens
from mini_internvl.model import MiniInternVL
from mini_internvl.reading import Suffix, read_prefix, start
from mini_internvl.sharing import Prefix
from mini_internvl.weight_order import order_for_decoding

__all__ = ["BatchRunner", "Row", "is_out_of_memory"]

logger = logging.getLogger(__name__)

ROWS_ON_CPU, ROWS_ON_GPU = 128, 512
"""Most sequences decoded at a time: beyond this a step takes as much longer as there are more."""

JOIN_AT = 0.5
"""Others join a batch when no more than this share of it is left: few at a time would read badly."""


class BatchRunner:
    """Generates for batches, and remembers how much the memory takes.

    Args:
        network: the model.

    Attributes:
        share: whether prompts about the same pictures are read after their common prefix.
        most_rows: sequences decoded at a time, at most.
    """

    def __init__(self, network: MiniInternVL) -> None:
        self._network = network
        self._most_tokens: int | None = None
        self._warned = False
        self.share = True
        self.most_rows = ROWS_ON_CPU if network.device.type == "cpu" else ROWS_ON_GPU
        order_for_decoding(network.language_model)

    def run(
        self,
        rows: Sequence[Row],
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None = None,
    ) -> list[Generated]:
        """Answers in the order of the rows.

        A batch the memory does not take is run in halves, each again in halves if need be; this is logged
        once, and later batches are made no larger.

        Raises:
            ImageTokenMismatch: image tokens and visual features differ in number.
            OutOfMemory: one row alone is too much.
        """
        rotary = self._network.language_model.model.rotary_emb
        groups = group_rows(rows, rotary.regime, self.share and settings.num_beams == 1)
        if self._most_tokens is None:
            self._most_tokens = most_tokens(self._network)
        waiting = Waiting(groups, rows, settings.max_new_tokens)
        session = _Session(self._network, rows, settings, rules, stop_text)
        while waiting or session.going:
            try:
                if session.takes_more:
                    session.begin(waiting.take(Limits(self.most_rows, self._most_tokens), session.going))
                session.advance()
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            # outside the handler, whose traceback would keep the failed batch's tensors alive
            self._shrink(session, waiting, cause)
        return [session.answers[place] for place in range(len(rows))]

    def _shrink(self, session: _Session, waiting: Waiting, cause: str) -> None:
        """After memory ran out: what was going on is begun again, half as much at a time."""
        groups = session.going
        session.drop()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        count = sum(len(group.rows) for group in groups)
        if count == 1:
            length = len(session.rows[groups[0].rows[0]].ids)
            raise OutOfMemory(
                f"one prompt of {length} tokens does not fit into the memory of "
                f"{self._network.device} ({cause}); use fewer tiles, a smaller model or a smaller dtype"
            )
        if not self._warned:
            logger.warning(
                "out of memory with %d prompts at once; going on with half of them at a time", count
            )
        self._warned = True
        self._most_tokens = waiting.tokens(groups) // 2
        waiting.put_back(groups)


class _Session:
    """One call: its rows, those going on, and what they share while it is needed.

    Attributes:
        rows: all of them.
        answers: of rows that have ended, by place.
        going: groups that are begun, with their rows that have not ended.
    """

    def __init__(
        self,
        network: MiniInternVL,
        rows: Sequence[Row],
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None,
    ) -> None:
        self._network = network
        self._settings = settings
        self._rules = rules
        self._stop_text = stop_text
        self.rows = rows
        self.answers: dict[int, Generated] = {}
        self.going: list[Group]
        self.drop()

    @property
    def takes_more(self) -> bool:
        """Whether so many rows have left that others may join."""
        return not self._full and self._decoder.rows <= JOIN_AT * self._largest

    @torch.inference_mode()
    def begin(self, batch: Sequence[Group]) -> None:
        """Reads the prompts of groups, which then go on together with those that do already."""
        self._full = not batch
        if not batch:
            return
        self.going += batch
        if self._settings.num_beams > 1:
            return
        suffixes = [suffix for group in batch for suffix in self._suffixes(group)]
        started = start(self._network, suffixes, min(self._settings.max_new_tokens, 64))
        self._decoder.join(started, [place for group in batch for place in group.rows])
        self._largest = self._decoder.rows

    @torch.inference_mode()
    def advance(self) -> None:
        """A token more of every row, or all of them by beams."""
        ended = self._beams() if self._settings.num_beams > 1 else self._decoder.advance()
        if not ended:
            return
        self._full = False
        self.answers.update(ended)
        left = []
        for group in self.going:
            stay = [place for place in group.rows if place not in ended]
            _release(group, len(group.rows) - len(stay))
            if stay:
                left.append(replace(group, rows=stay))
        self.going = left

    def drop(self) -> None:
        """Forgets how far the rows going on have come: none is, as at the beginning."""
        self._decoder = Decoder(self._network, self._settings, self._rules, self._stop_text)
        self._largest = 0
        self._full = False
        self.going = []

    def _suffixes(self, group: Group) -> list[Suffix]:
        features = self._features(group)
        if group.common is None:
            return [Suffix(self._embed(place, features)) for place in group.rows]
        prefix = group.common.prefix or self._read(group, group.common, features)
        return [
            Suffix(self._embed(place, features, prefix.length), prefix, self.rows[place].ids[prefix.length :])
            for place in group.rows
        ]

    def _read(self, group: Group, common: Common, features: Tensor | None) -> Prefix:
        embeddings = self._embed(group.rows[0], features)[: common.length]
        common.prefix = read_prefix(self._network, embeddings)
        return common.prefix

    def _embed(self, place: int, features: Tensor | None, start: int = 0) -> Tensor:
        """Embeddings of a row from a token on, `[length, width]`."""
        ids = self.rows[place].ids
        left = torch.tensor([ids[start:]], device=self._network.device)
        if start and self._network.image_token_id not in ids[start:]:
            embeddings: Tensor = self._network.language_model.get_input_embeddings()(left)[0]
            return embeddings
        return self._network.embed(torch.tensor([ids]), features)[0, start:]

    def _features(self, group: Group) -> Tensor | None:
        pictures = group.pictures
        if pictures is None:
            return None
        if pictures.features is None:
            pictures.features = encode_tiles(self._network, pictures.tiles)
        return pictures.features

    def _beams(self) -> dict[int, Generated]:
        network = self._network
        places = [place for group in self.going for place in group.rows]
        ids, mask = pad_left([self.rows[place].ids for place in places], self._rules.pad)
        features = [f for group in self.going for f in [self._features(group)] if f is not None]
        embeddings = network.embed(ids, torch.cat(features) if features else None)
        found = beam_search(network, embeddings, mask.to(network.device), self._settings, self._rules)
        return dict(zip(places, found, strict=True))


def _release(group: Group, rows: int) -> None:
    """Counts down the uses of what a group shares, and drops it after the last."""
    shared: Iterable[Any] = (group.pictures, group.common)
    for part in shared:
        if part is not None:
            part.uses -= rows
    if group.pictures is not None and group.pictures.uses <= 0:
        group.pictures.features = None
    if group.common is not None and group.common.uses <= 0:
        group.common.prefix = None
