"""Running a batch of unlike prompts to its end, in halves where memory does not take it whole."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mini_internvl.errors import OutOfMemory
from mini_internvl.generation import (
    Generated,
    GenerationSettings,
    StopText,
    TokenRules,
    beam_search,
    decode,
    encode_tiles,
    pad_left,
    prefill,
)
from mini_internvl.model import MiniInternVL

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One prompt.

    Attributes:
        ids: its tokens, image tokens included.
        tiles: `[tiles, 3, size, size]`, uint8 or normalised floats; None for text alone.
    """

    ids: Sequence[int]
    tiles: Tensor | None


class BatchRunner:
    """Generates for batches, and remembers how much memory takes.

    Args:
        network: the model.
    """

    def __init__(self, network: MiniInternVL) -> None:
        self._network = network
        self._most_tokens: int | None = None

    def run(
        self,
        rows: Sequence[Row],
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None = None,
    ) -> list[Generated]:
        """Answers in the order of the rows.

        A batch the memory does not take is run in halves, each again in halves if need be; this is logged
        once, and later batches of that size are halved beforehand.

        Raises:
            ImageTokenMismatch: image tokens and visual features differ in number.
            OutOfMemory: one row alone is too much.
        """
        if not rows:
            return []
        padded = len(rows) * max(len(row.ids) for row in rows)
        if len(rows) > 1 and self._most_tokens is not None and padded > self._most_tokens:
            return self._halves(rows, settings, rules, stop_text)
        try:
            return self._once(rows, settings, rules, stop_text)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        # outside the handler, whose traceback would keep the failed batch's tensors alive
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(rows) == 1:
            raise OutOfMemory(
                f"one prompt of {len(rows[0].ids)} tokens does not fit into the memory of "
                f"{self._network.device} ({cause}); use fewer tiles, a smaller model or a smaller dtype"
            )
        if self._most_tokens is None:
            logger.warning(
                "out of memory with %d prompts at once; going on with half of them at a time", len(rows)
            )
        self._most_tokens = padded // 2
        return self._halves(rows, settings, rules, stop_text)

    def _halves(
        self,
        rows: Sequence[Row],
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None,
    ) -> list[Generated]:
        middle = (len(rows) + 1) // 2
        first = self.run(rows[:middle], settings, rules, stop_text)
        return first + self.run(rows[middle:], settings, rules, stop_text)

    def _once(
        self,
        rows: Sequence[Row],
        settings: GenerationSettings,
        rules: TokenRules,
        stop_text: StopText | None,
    ) -> list[Generated]:
        network = self._network
        ids, mask = (part.to(network.device) for part in pad_left([row.ids for row in rows], rules.pad))
        tiles = [row.tiles for row in rows if row.tiles is not None]
        features = encode_tiles(network, torch.cat(tiles)) if tiles else None
        embeddings = network.embed(ids, features)
        if settings.num_beams > 1:
            return beam_search(network, embeddings, mask, settings, rules)
        return decode(network, prefill(network, embeddings, mask), settings, rules, stop_text)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    words = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in words or "not enough memory" in words or "can't allocate memory" in words)
    )
