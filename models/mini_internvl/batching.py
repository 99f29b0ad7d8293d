"""Running unlike prompts to their end: what they share once, the rest in batches that the memory takes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from mini_internvl.decoding import Suffix, decode, read_prefix, start
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
from mini_internvl.groups import Common, Group, Row, group_rows, halves, pack, tokens
from mini_internvl.memory import is_out_of_memory, most_tokens
from mini_internvl.model import MiniInternVL
from mini_internvl.weight_order import order_for_decoding

__all__ = ["BatchRunner", "Row", "is_out_of_memory"]

logger = logging.getLogger(__name__)

ROWS_ON_CPU, ROWS_ON_GPU = 128, 512
"""Most sequences decoded at a time: beyond this a step takes as much longer as there are more."""


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
        if not rows:
            return []
        session = _Session(self._network, rows, settings, rules, stop_text)
        rotary = self._network.language_model.model.rotary_emb
        groups = group_rows(rows, rotary.regime, self.share and settings.num_beams == 1)
        if self._most_tokens is None:
            self._most_tokens = most_tokens(self._network)
        for batch in pack(groups, rows, settings.max_new_tokens, self.most_rows, self._most_tokens):
            self._run(batch, session)
        return [session.answers[place] for place in range(len(rows))]

    def _run(self, batch: Sequence[Group], session: _Session) -> None:
        try:
            session.answer(batch)
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        # outside the handler, whose traceback would keep the failed batch's tensors alive
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        count = sum(len(group.rows) for group in batch)
        if count == 1:
            length = len(session.rows[batch[0].rows[0]].ids)
            raise OutOfMemory(
                f"one prompt of {length} tokens does not fit into the memory of "
                f"{self._network.device} ({cause}); use fewer tiles, a smaller model or a smaller dtype"
            )
        held = tokens(batch, session.rows, session.settings.max_new_tokens)
        if not self._warned:
            logger.warning(
                "out of memory with %d prompts at once; going on with half of them at a time", count
            )
        self._warned = True
        self._most_tokens = held // 2
        for half in _halves(batch):
            self._run(half, session)


def _halves(batch: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """Two batches of about half the groups each, or of half the rows of the one group."""
    if len(batch) == 1:
        first, second = halves(batch[0])
        return [first], [second]
    middle = (len(batch) + 1) // 2
    return list(batch[:middle]), list(batch[middle:])


class _Session:
    """One call: its rows, and what they share while it is needed."""

    def __init__(
        self,
        network: MiniInternVL,
        rows: Sequence[Row],
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None,
    ) -> None:
        self._network = network
        self._rules = rules
        self._stop_text = stop_text
        self.rows = rows
        self.settings = settings
        self.answers: dict[int, Generated] = {}

    @torch.inference_mode()
    def answer(self, batch: Sequence[Group]) -> None:
        """Answers a batch, wholly or not at all."""
        places = [place for group in batch for place in group.rows]
        if self.settings.num_beams > 1:
            generated = self._beams(batch)
        else:
            suffixes = [suffix for group in batch for suffix in self._suffixes(group)]
            room = min(self.settings.max_new_tokens, 64)
            started = start(self._network, suffixes, room)
            del suffixes
            generated = decode(self._network, started, self.settings, self._rules, self._stop_text)
        self.answers.update(zip(places, generated, strict=True))
        for group in batch:
            _release(group)

    def _suffixes(self, group: Group) -> list[Suffix]:
        features = self._features(group)
        if group.common is None:
            return [Suffix(self._embed(place, features)) for place in group.rows]
        prefix = group.common.prefix or self._read(group, group.common, features)
        return [Suffix(self._embed(place, features, prefix.length), prefix) for place in group.rows]

    def _read(self, group: Group, common: Common, features: Tensor | None) -> Any:
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

    def _beams(self, batch: Sequence[Group]) -> list[Generated]:
        network = self._network
        places = [place for group in batch for place in group.rows]
        ids, mask = pad_left([self.rows[place].ids for place in places], self._rules.pad)
        features = [f for group in batch for f in [self._features(group)] if f is not None]
        embeddings = network.embed(ids, torch.cat(features) if features else None)
        return beam_search(network, embeddings, mask.to(network.device), self.settings, self._rules)


def _release(group: Group) -> None:
    """Counts the uses of what a group shares, and drops it after the last."""
    shared: Iterable[Any] = (group.pictures, group.common)
    for part in shared:
        if part is not None:
            part.uses -= len(group.rows)
    if group.pictures is not None and group.pictures.uses <= 0:
        group.pictures.features = None
    if group.common is not None and group.common.uses <= 0:
        group.common.prefix = None
