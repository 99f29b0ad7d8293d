"""AdamW, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mini_internvl_train.recipe import Optimizer
from mini_internvl_train.trainable import moving


def make_optimizer(step: nn.Module, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW over what learns; weight decay on matrices and kernels only, not on norms, biases and scales."""
    named = list(moving(step))
    matrices = [p for _, p in named if p.ndim in (2, 4)]
    others = [p for _, p in named if p.ndim not in (2, 4)]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
    )


def whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from its shards (all ranks take part), on the CPU."""
    gathered: Any = tensor.detach()
    if hasattr(gathered, "full_tensor"):
        gathered = gathered.full_tensor()
    result: Tensor = gathered.cpu()
    return result


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor placed as `model` is: on its device, sharded as it is, in its type."""
    mesh: Any = getattr(model, "device_mesh", None)
    placed = tensor.to(model.device, model.dtype)
    if mesh is None:
        return placed
    from torch.distributed.tensor import distribute_tensor

    sharded: Tensor = distribute_tensor(placed, mesh, model.placements)  # type: ignore[attr-defined]
    return sharded


def optimizer_state(optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`<name>/<exp_avg …>` to whole tensors on the CPU."""
    return {
        f"{name}/{key}": whole(value)
        for name, parameter in named.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_state`, in place."""
    for key, tensor in state.items():
        name, _, kind = key.rpartition("/")
        parameter = named[name]
        placed = tensor.clone() if tensor.ndim == 0 else like(tensor, parameter)
        optimizer.state[parameter][kind] = placed
