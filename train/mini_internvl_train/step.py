"""One micro-step: forward pass, attention within each sample, and loss, as one module that DDP or FSDP wraps.

The loss is the weighted cross entropy at labelled positions, normalised over a whole optimizer step: its
denominator is the sum of weights of all samples of the step, over all micro-steps and ranks. It is known
before the step, so no communication is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mini_internvl_train.batches import Batch
from mini_internvl_train.encoding import IGNORED

if TYPE_CHECKING:
    from mini_internvl import MiniInternVL

WHITE = 255


class TrainingStep(nn.Module):
    """The network with its loss.

    Args:
        network: prepared by `start.prepare`. sets: number of data sets.

    Attributes:
        shares: what each data set added to the last forward pass's loss, `[sets]`, without a gradient.
    """

    def __init__(self, network: MiniInternVL, sets: int = 1) -> None:
        super().__init__()
        self.shares = torch.zeros(sets)
        attend_by_segments(network.language_model)
        self.network = network

    def forward(self, batch: Batch, denominator: float) -> Tensor:
        """The micro-batch's contribution to the step's loss.

        Args:
            batch: on the network's device.
            denominator: sum of loss weights of the whole step, over all micro-steps and ranks.
        """
        return self.loss(self.hidden(batch), batch, denominator)

    def loss(self, hidden: Tensor, batch: Batch, denominator: float) -> Tensor:
        """The step's loss contribution of one micro-batch; sets `shares`.

        The language head runs only at positions whose next token is labelled: with a vocabulary of 150,000
        the logits of a full pack would take gigabytes.

        Args:
            hidden: last hidden states `[rows, length, width]`.
            batch: labels, not shifted, and their weights.
            denominator: sum of weights of the whole step, over all ranks.

        Returns:
            Scalar: sum(weight * cross entropy) / denominator.
        """
        targets = batch.labels[:, 1:]
        at = targets != IGNORED
        head: Any = self.network.language_model
        logits = head.lm_head(hidden[:, :-1][at]).float()
        losses = functional.cross_entropy(logits, targets[at], reduction="none")
        weighted = losses * batch.weights[:, 1:][at]
        nothing = weighted.new_zeros(len(self.shares))
        self.shares = nothing.index_add(0, batch.sets[:, 1:][at], weighted.detach()) / denominator
        return weighted.sum() / denominator

    def hidden(self, batch: Batch) -> Tensor:
        """Last hidden states `[rows, length, width]`."""
        network = self.network
        if batch.tiles is not None:
            features = network.encode_images(batch.tiles)
            embeddings = network.embed(batch.input_ids, features)
        else:
            # every rank must use every parameter, and in the same order, or ranks would wait for each other
            size = network.config.image_size
            white = torch.full((1, 3, size, size), WHITE, dtype=torch.uint8, device=batch.input_ids.device)
            nothing = network.encode_images(white).sum() * 0.0
            embeddings = network.embed(batch.input_ids) + nothing
        if torch.is_autocast_enabled(embeddings.device.type):
            embeddings = embeddings.to(torch.get_autocast_dtype(embeddings.device.type))
        hidden: Tensor = network.language_model.model(
            inputs_embeds=embeddings,
            # a mask of four dimensions is handed on as it is; this one is never read
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeddings.device),
            segment_lengths=batch.segment_lengths,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        return hidden


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
        segment_lengths: lengths of each row's samples, from its beginning; the rest is padding.

    Returns:
        `[rows, length, heads, head_dim]`, zeros at padding, and None instead of the weights.
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
