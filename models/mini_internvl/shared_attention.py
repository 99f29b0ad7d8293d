"""Attention over one shared prefix and each row's own tokens, for transformers' attention registry.

Questions about one image begin with the same tokens. Their keys and values are kept once; the queries of all
rows meet them in one product, each row's own tokens in another, and the two results are merged exactly by the
logarithms of their softmax normalisers (Hydragen, arXiv 2402.05099, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

NAME = "mini_internvl_shared_prefix"

SCORES_AT_ONCE = 1 << 24
"""Scores held at a time where no fused kernel is used: 64 MiB in float32."""


Prefixes = Sequence[tuple[slice, Sequence[tuple[Tensor, Tensor]]]]
"""(rows, keys and values of each layer) of every prefix; each tensor `[1, kv_heads, prefix, head_dim]`."""


@contextmanager
def shared_prefix_attention(language_model: nn.Module) -> Iterator[None]:
    """Within, the language model attends through `attend_shared`; afterwards as before."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attend_shared)
    config: Any = language_model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def attend_shared(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    prefixes: Prefixes = (),
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention in the form of transformers' registry.

    Args:
        module: the attention layer; its `layer_idx` chooses the prefix's keys and values.
        query: `[rows, heads, length, head_dim]`.
        key: the rows' own keys, `[rows, kv_heads, columns, head_dim]`. value: likewise.
        mask: added to the scores of the rows' own tokens, as `fold_mask` returns it; None hides nothing.
        scaling: of the scores.
        prefixes: of the rows.

    Returns:
        `[rows, length, heads, head_dim]`, and None in place of the weights.
    """
    rows, heads, length, width = query.shape
    kv_heads = key.shape[1]
    folded = query.reshape(rows, kv_heads, heads // kv_heads * length, width)  # heads of one key lie together
    out, norm = attend(folded, key, value, mask, scaling)
    for members, layers in prefixes:
        keys, values = layers[module.layer_idx]
        asked = folded[members].transpose(0, 1).reshape(1, kv_heads, -1, width)
        shared, shared_norm = attend(asked, keys, values, None, scaling)
        count = folded[members].shape[0]
        shared = shared.reshape(kv_heads, count, -1, width).transpose(0, 1)
        shared_norm = shared_norm.reshape(kv_heads, count, -1).transpose(0, 1)
        weight = torch.sigmoid(shared_norm - norm[members])[..., None]
        merged = torch.lerp(out[members].float(), shared.float(), weight).to(out.dtype)
        if count == rows:
            out = merged
        else:
            out[members] = merged
    return out.reshape(rows, heads, length, width).transpose(1, 2), None


def fold_mask(hidden: Tensor, group: int, dtype: torch.dtype) -> Tensor:
    """The mask of a pass, in the order in which `attend_shared` lays out the queries.

    Args:
        hidden: bool `[rows, length, columns]`, true where a query must not look.
        group: query heads for each key head.
        dtype: of the queries.

    Returns:
        `[rows, 1, group * length, columns]`.
    """
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
    rows, length, columns = hidden.shape
    if length == 1:
        return mask[:, None].expand(rows, 1, group, columns)
    return mask[:, None].repeat(1, 1, group, 1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> tuple[Tensor, Tensor]:
    """Attention and the logarithm of its softmax normaliser.

    Args:
        query: `[rows, heads, length, head_dim]`. key, value: `[rows, heads, columns, head_dim]`.
        mask: added to the scores, `[rows, 1, length, columns]`, or None.
        scaling: of the scores.

    Returns:
        `[rows, heads, length, head_dim]`, and float32 `[rows, heads, length]`.
    """
    if query.device.type == "cpu":
        out, norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, False, attn_mask=mask, scale=scaling
        )
        return out, norm
    return attend_in_products(query, key, value, mask, scaling)


def attend_in_products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> tuple[Tensor, Tensor]:
    """`attend` by two matrix products, a bounded number of scores at a time; on any device."""
    each = query.shape[0] * query.shape[1] * key.shape[2]
    step = max(1, SCORES_AT_ONCE // max(1, each))
    outs: list[Tensor] = []
    norms: list[Tensor] = []
    for start in range(0, query.shape[2], step):
        scores = (query[:, :, start : start + step] @ key.transpose(-1, -2)).float() * scaling
        if mask is not None:
            scores = scores + mask[:, :, start : start + step]
        norm = scores.logsumexp(dim=-1)
        outs.append((scores - norm[..., None]).exp().to(value.dtype) @ value)
        norms.append(norm)
    return torch.cat(outs, dim=2), torch.cat(norms, dim=2)
