"""Block-diagonal attention of packs: a sample attends to itself alone; for transformers' registry.

Sample by sample the work grows with the sum of squared sample lengths. One mask over the whole row would make
it grow with the square of the row, and rule out the kernels that know causality by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NAME = "mini_internvl_segments"


def attend_by_segments(language_model: nn.Module) -> None:
    """Makes the language model attend through `segment_attention`, in place.

    It stays so, since recomputed layers attend again during the backward pass. Without `segment_lengths` the
    model attends as before.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, segment_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    config: Any = language_model.config
    config._attn_implementation = NAME


def segment_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    segment_lengths: Sequence[Sequence[int]] | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment, in the form of transformers' registry.

    Args:
        module: the attention layer.
        query: `[rows, heads, length, head_dim]`. key, value: `[rows, kv_heads, length, head_dim]`.
        attention_mask: not read where segments are given.
        scaling: of the scores. dropout: of the weights.
        segment_lengths: lengths of each row's samples, which stand first in it; the rest is padding.

    Returns:
        `[rows, length, heads, head_dim]`, zeros at padding, and None in place of the weights.
    """
    if segment_lengths is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return out, None
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    rows = []
    for row, lengths in enumerate(segment_lengths):
        padding = query.shape[2] - sum(lengths)
        own = [
            torch.split(tensor[row : row + 1], [*lengths, padding], dim=2) for tensor in (query, key, value)
        ]
        parts = [
            functional.scaled_dot_product_attention(q, k, v, None, dropout, is_causal=True, scale=scaling)
            for q, k, v in list(zip(*own, strict=True))[:-1]
        ]
        rows.append(functional.pad(torch.cat(parts, dim=2), (0, 0, 0, padding)))
    return torch.cat(rows).transpose(1, 2).contiguous(), None
