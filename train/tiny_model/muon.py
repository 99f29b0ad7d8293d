"""Muon for the matrices inside, AdamW for the rest.

Muon (K. Jordan and others, 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix' momentum by
the nearest semi-orthogonal one, which a few small networks learn with in half the steps. torch's own class
iterates in bfloat16, which most CPUs emulate; this one stays in float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The semi-orthogonal matrix near `matrix` `[rows, columns]`, by a quintic Newton-Schulz iteration."""
    a, b, c = _QUINTIC
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.T if tall else x
    return result


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov), orthogonalised, scaled by the square root of rows over columns where above 1."""

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                buffer = state.setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(buffer, group["momentum"]))
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def optimizers(modules: Iterable[nn.Module], muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside layers; AdamW for tables, kernels, norms, biases and heads."""
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for module in modules:
        for name, p in module.named_parameters():
            inner = p.ndim == 2 and "embed" not in name and "head" not in name
            (matrices if inner else rest).append(p)
    return [
        Muon(matrices, lr=muon_lr),
        torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
