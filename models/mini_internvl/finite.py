"""Numbers that are not numbers: found on what a step computes anyway, then traced to where they began."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mini_internvl.errors import NotFiniteError
from mini_internvl.model import MiniInternVL, normalise


def first_not_finite(logits: Tensor) -> int | None:
    """The first row of `[rows, vocabulary]` whose largest value is not finite, or None.

    NaN anywhere makes a row's largest value NaN; forbidden tokens, at minus infinity, do not matter.
    """
    bad = ~torch.isfinite(logits.amax(dim=-1))
    return int(bad.int().argmax()) if bool(bad.any()) else None


class FiniteBeams:
    """A logits processor of transformers' `generate` that raises NotFiniteError.

    Args:
        rows: rows of scores for each sequence.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
        """The scores, as they are."""
        row = first_not_finite(scores)
        if row is not None:
            raise NotFiniteError(row // self._rows)
        return scores


@torch.inference_mode()
def where_it_began(network: MiniInternVL, tiles: Tensor | None) -> str:
    """The first part of the network whose output is not finite for these tiles, `[tiles, 3, size, size]`."""
    if tiles is None:
        return "language model"
    pixels = normalise(tiles[:1].to(network.device)).to(network.dtype)
    selected = network.config.select_layer
    output: Any = network.vision_model(pixels, output_hidden_states=selected != -1)
    states = output.last_hidden_state if selected == -1 else output.hidden_states[selected]
    if not bool(torch.isfinite(states).all()):
        return "vision encoder"
    return "language model" if bool(torch.isfinite(network.project(states)).all()) else "projector"
