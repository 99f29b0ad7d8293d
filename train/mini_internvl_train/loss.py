"""The loss: weighted cross entropy at labelled positions, normalised over a whole optimizer step.

Weights follow InternVL's loss reduction: a token of a sample with n trained tokens weighs 1 (token), 1/n
(sample) or 1/sqrt(n) (square). The denominator is the sum of weights of all samples of the step, over all
micro-steps and ranks; it is known before the step, so no communication is needed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from mini_internvl_train.encoding import IGNORED
from mini_internvl_train.recipe import Weighting

if TYPE_CHECKING:
    from mini_internvl import MiniInternVL


def token_weight(trained: int, weighting: Weighting) -> float:
    """Weight of each trained token in a sample that has `trained` of them."""
    if weighting == "token":
        return 1.0
    return 1.0 / trained if weighting == "sample" else 1.0 / math.sqrt(trained)


def sample_weight(trained: int, weighting: Weighting) -> float:
    """Sum of a sample's token weights: its part of the denominator."""
    return trained * token_weight(trained, weighting)


def weighted_loss(
    network: MiniInternVL, hidden: Tensor, labels: Tensor, weights: Tensor, denominator: float
) -> Tensor:
    """The step's loss contribution of one micro-batch.

    The language head runs only at positions whose next token is labelled: with a vocabulary of 150,000 the
    logits of a full pack would take gigabytes.

    Args:
        network: whose head is used.
        hidden: last hidden states `[batch, length, width]`.
        labels: `[batch, length]`, not shifted, `IGNORED` without loss.
        weights: `[batch, length]` weight of each token as a label.
        denominator: sum of weights of the whole step, over all ranks.

    Returns:
        Scalar: sum(weight * cross entropy) / denominator.
    """
    targets, target_weights = labels[:, 1:], weights[:, 1:]
    at = targets != IGNORED
    head: Any = network.language_model
    logits = head.lm_head(hidden[:, :-1][at]).float()
    losses = functional.cross_entropy(logits, targets[at], reduction="none")
    return (losses * target_weights[at]).sum() / denominator


def full_head_loss(
    network: MiniInternVL, hidden: Tensor, labels: Tensor, weights: Tensor, denominator: float
) -> Tensor:
    """The same loss with the head at every position; the baseline of benchmarks/training.py."""
    head: Any = network.language_model
    logits = head.lm_head(hidden[:, :-1]).float()
    targets = labels[:, 1:].reshape(-1)
    losses = functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none", ignore_index=IGNORED)
    return (losses * weights[:, 1:].reshape(-1)).sum() / denominator


def finite(value: Tensor) -> bool:
    """Whether every element is finite."""
    return bool(torch.isfinite(value).all())
