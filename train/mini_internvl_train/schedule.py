"""The learning rate as a pure function of the step, so that nothing of it needs storing."""

from __future__ import annotations

import math

from mini_internvl_train.recipe import Optimizer


def warmup_steps(optimizer: Optimizer, total: int) -> int:
    """Steps of the warm-up: as stated, or its share of all, rounded up."""
    if optimizer.warmup_steps is not None:
        return min(optimizer.warmup_steps, total)
    return math.ceil(optimizer.warmup_ratio * total)


def learning_rate(step: int, total: int, optimizer: Optimizer) -> float:
    """Learning rate of one step.

    Linear warm-up, then half a cosine down to `final_lr_ratio` of the peak, as the published scripts have
    it; the first step takes one share of the warm-up instead of a rate of 0.

    Args:
        step: counted from 0.
        total: steps of the whole training.
        optimizer: peak, warm-up and end.
    """
    warm = warmup_steps(optimizer, total)
    if step < warm:
        return optimizer.lr * (step + 1) / warm
    progress = (step - warm) / max(1, total - warm)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return optimizer.lr * (optimizer.final_lr_ratio + (1.0 - optimizer.final_lr_ratio) * cosine)
