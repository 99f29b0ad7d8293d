"""One first matrix for the adapters of several layers: an adapter on the fused layer that they are cut from.

InternLM2's released layers hold queries, keys and values as one matrix, which InternVL's trainer adapts as
a whole: `[Bq; Bk; Bv] A`. Here the three are layers apart: their adapters have one A and drop the same
inputs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

FUSED = ("q_proj", "k_proj", "v_proj")
"""Layers that InternLM2 stores as one."""
ADAPTER_NAME = "default"


class SharedDropout(nn.Dropout):
    """Drops the same inputs for layers that are called one after the other with the same ones.

    Args:
        p: share of the inputs that is dropped. layers: how many are called.
    """

    def __init__(self, p: float, layers: int) -> None:
        super().__init__(p)
        self._layers, self._left = layers, 0
        self._dropped: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if self._dropped is None:
            self._dropped, self._left = super().forward(x), self._layers
        dropped, self._left = self._dropped, self._left - 1
        if not self._left:
            self._dropped = None
        return dropped


def share_first_matrices(decoder: nn.Module) -> None:
    """Lets the adapters of each attention's queries, keys and values have one first matrix, in place."""
    for module in list(decoder.modules()):
        parts: list[Any] = [getattr(module, name) for name in FUSED if hasattr(module, name)]
        adapted = [part for part in parts if hasattr(part, "lora_A")]
        if len(adapted) < 2:
            continue
        first = adapted[0]
        dropout = first.lora_dropout[ADAPTER_NAME]
        if isinstance(dropout, nn.Dropout):
            dropout = SharedDropout(dropout.p, len(adapted))
        for part in adapted:
            part.lora_A[ADAPTER_NAME] = first.lora_A[ADAPTER_NAME]
            part.lora_dropout[ADAPTER_NAME] = dropout
