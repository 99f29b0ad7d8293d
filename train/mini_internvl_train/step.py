"""One micro-step's forward pass and loss as a module, so that DDP and FSDP wrap one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mini_internvl_train.batch import Batch
from mini_internvl_train.loss import weighted_loss
from mini_internvl_train.segment_attention import attend_by_segments

if TYPE_CHECKING:
    from mini_internvl import MiniInternVL

Loss = Callable[["MiniInternVL", Tensor, Tensor, Tensor, float], Tensor]

WHITE = 255


class TrainingStep(nn.Module):
    """The network with its loss.

    Args:
        network: prepared by `trainable.prepare`.
        loss: `loss.weighted_loss`, or `loss.full_head_loss` for comparison.
    """

    #: Layers that FSDP's wrapping policy shards one by one.
    _no_split_modules = ("EncoderLayer", "Qwen2DecoderLayer", "LlamaDecoderLayer", "Phi3DecoderLayer")

    def __init__(self, network: MiniInternVL, loss: Loss = weighted_loss) -> None:
        super().__init__()
        attend_by_segments(network.language_model)
        self.network = network
        self.loss = loss

    def forward(self, batch: Batch, denominator: float) -> Tensor:
        """The micro-batch's contribution to the step's loss.

        Args:
            batch: on the network's device.
            denominator: sum of loss weights of the whole step, over all micro-steps and ranks.
        """
        hidden, unused = self.hidden(batch)
        loss = self.loss(self.network, hidden, batch.labels, batch.weights, denominator)
        return loss if unused is None else loss + unused

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Last hidden states `[rows, length, width]`, and a zero that reaches an encoder without pictures."""
        network = self.network
        unused: Tensor | None = None
        if batch.tiles is not None:
            features = network.encode_images(batch.tiles)
            embeddings = network.embed(batch.input_ids, features)
        else:
            # every rank must reach every parameter, or gradient averaging would wait for it for ever
            size = network.config.image_size
            white = torch.full((1, 3, size, size), WHITE, dtype=torch.uint8, device=batch.input_ids.device)
            unused = network.encode_images(white).float().sum() * 0.0
            embeddings = network.embed(batch.input_ids)
        if torch.is_autocast_enabled(embeddings.device.type):
            embeddings = embeddings.to(torch.get_autocast_dtype(embeddings.device.type))
        hidden = network.language_model.model(
            inputs_embeds=embeddings,
            # a mask of four dimensions is handed on as it is; this one is never read
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeddings.device),
            segment_lengths=batch.segment_lengths,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        return hidden, unused
