"""Rotary positions of the three language models, chosen per sequence.

transformers picks long-rope factors and the dynamic-NTK base by the longest sequence of the batch and keeps
the choice as state, so that a short question beside a long one would be answered differently from the same
question alone. This module makes the choice for each row from its own length and keeps nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    """cos and sin for `[batch, length]` positions; stands in for `rotary_emb` of transformers' models.

    Has no buffers, so a model built on the meta device needs nothing computed after loading.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        parameters = config.rope_parameters
        self.kind = parameters["rope_type"]
        self.base = float(parameters["rope_theta"])
        self.dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self.max_positions = int(config.max_position_embeddings)
        self.scaling = 1.0
        if self.kind == "dynamic":
            self.factor = float(parameters["factor"])
        elif self.kind == "longrope":
            self.original_positions = int(parameters["original_max_position_embeddings"])
            self.factors = (tuple(parameters["short_factor"]), tuple(parameters["long_factor"]))
            ratio = self.max_positions / self.original_positions
            if ratio > 1.0:  # LongRoPE, arXiv 2402.13753
                self.scaling = math.sqrt(1 + math.log(ratio) / math.log(self.original_positions))

    def regime(self, length: int) -> int:
        """What the angles depend on besides the position: equal for lengths whose rows have equal angles."""
        if self.kind == "longrope":
            return int(length > self.original_positions)
        if self.kind == "dynamic":
            return max(0, length - self.max_positions)
        return 0

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, each `[batch, length, head_dim]`, in the type of `x`.

        Args:
            x: gives type and device.
            position_ids: `[batch, length]`; a row's length is its largest position plus one.
        """
        inverse = self.inverse_frequencies(position_ids.to(x.device))
        angles = position_ids[..., None].float().to(x.device) * inverse
        angles = torch.cat((angles, angles), dim=-1)
        return (angles.cos() * self.scaling).to(x.dtype), (angles.sin() * self.scaling).to(x.dtype)

    def inverse_frequencies(self, position_ids: Tensor) -> Tensor:
        """Broadcastable to `[batch, length, head_dim / 2]`."""
        exponents = torch.arange(0, self.dim, 2, dtype=torch.float, device=position_ids.device) / self.dim
        if self.kind == "default":
            return 1.0 / (self.base**exponents)
        lengths = position_ids.amax(dim=-1)[:, None, None] + 1
        if self.kind == "longrope":
            short, long = (exponents.new_tensor(f) * self.base**exponents for f in self.factors)
            return torch.where(lengths > self.original_positions, 1.0 / long, 1.0 / short)
        # dynamic NTK: the base grows with the length (arXiv 2309.00071, section 3.3 and appendix B.2)
        lengths = lengths.clamp(min=self.max_positions).float()
        growth = self.factor * lengths / self.max_positions - (self.factor - 1)
        base = self.base * growth ** (self.dim / (self.dim - 2))
        return 1.0 / (base**exponents)
