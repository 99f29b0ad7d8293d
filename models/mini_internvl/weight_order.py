"""The order in memory of the language model's weights, for decoding on a CPU.

A step multiplies every weight by one row or a few, and reading the weights bounds it. Where a float32 matrix
has more outputs than inputs, torch's product reads it about one and a half times as fast if the weights of an
input lie together, and large products are as fast as before (docs/performance.md). Half precision is not
touched: there the same order is many times slower.
"""

from __future__ import annotations

import torch
from torch import nn


def order_for_decoding(language_model: nn.Module) -> None:
    """Puts the weights of an input together where that pays; values, shapes and names stay.

    Weights that are trained, or shared with the embedding, stay as they are.
    """
    embedding = language_model.get_input_embeddings().weight  # type: ignore[operator]
    for layer in language_model.modules():
        if type(layer) is not nn.Linear:
            continue
        weight = layer.weight
        free = weight is not embedding and not weight.requires_grad
        pays = weight.device.type == "cpu" and weight.dtype == torch.float32
        if free and pays and layer.out_features > layer.in_features:
            weight.data = weight.data.t().contiguous().t()
