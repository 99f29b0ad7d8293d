"""AdamW, its learning rate by step, and its state as named tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mini_internvl_train.recipe import Optimizer, Parts
from mini_internvl_train.start import learned_parameters


def make_optimizer(
    step: nn.Module, settings: Optimizer, parts: Parts | None = None, encoder_layers: int = 0
) -> torch.optim.AdamW:
    """AdamW over what learns; weight decay on matrices and kernels only, not on norms, biases and scales.

    Args:
        step: holds what learns. settings: of all of it.
        parts: what a part of the network has in their place. encoder_layers: how many there are.

    Returns:
        The optimizer, with a group for each peak learning rate and weight decay; its `lr` is the peak.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in learned_parameters(step):
        rate, decay = settings.lr, settings.weight_decay
        if parts is not None:
            rate, decay = _of_part(name, settings, parts, encoder_layers)
        groups.setdefault((rate, decay if parameter.ndim in (2, 4) else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": own, "lr": rate, "weight_decay": decay} for (rate, decay), own in groups.items()],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=True,  # reads each weight once: a third of the time on a CPU
    )


_LAYER = re.compile(r"\.encoder\.layers\.(\d+)\.")


def _of_part(name: str, settings: Optimizer, parts: Parts, encoder_layers: int) -> tuple[float, float]:
    """Peak learning rate and weight decay of a parameter."""
    if ".vision_model." in f".{name}":
        rate, decay, layer = parts.encoder_lr, parts.encoder_weight_decay, _LAYER.search(name)
        below = encoder_layers - (int(layer.group(1)) + 1 if layer else 0)
        share = parts.encoder_layer_decay**below
    elif ".mlp1." in f".{name}":
        rate, decay, share = parts.projector_lr, parts.projector_weight_decay, 1.0
    else:
        rate, decay, share = parts.language_lr, parts.language_weight_decay, 1.0
    return (
        (settings.lr if rate is None else rate) * share,
        settings.weight_decay if decay is None else decay,
    )


def warmup_steps(optimizer: Optimizer, total: int) -> int:
    """Steps of the warm-up: as stated, or its share of all, rounded up."""
    if optimizer.warmup_steps is not None:
        return min(optimizer.warmup_steps, total)
    return math.ceil(optimizer.warmup_ratio * total)


def learning_rate(step: int, total: int, optimizer: Optimizer, peak: float | None = None) -> float:
    """Learning rate of one step.

    Linear warm-up, then half a cosine down to `final_lr_ratio` of the peak, as the published scripts have
    it; the first step takes one share of the warm-up instead of a rate of 0.

    Args:
        step: counted from 0.
        total: steps of the whole training.
        optimizer: peak, warm-up and end. peak: in place of the optimizer's.
    """
    peak = optimizer.lr if peak is None else peak
    warm = warmup_steps(optimizer, total)
    if step < warm:
        return peak * (step + 1) / warm
    progress = (step - warm) / max(1, total - warm)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return peak * (optimizer.final_lr_ratio + (1.0 - optimizer.final_lr_ratio) * cosine)


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


def optimizer_state(
    optimizers: Iterable[torch.optim.Optimizer], named: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """`<name>/<exp_avg …>` to whole tensors on the CPU."""
    return {
        f"{name}/{key}": whole(value)
        for optimizer in optimizers
        for name, parameter in named.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizers(
    optimizers: Iterable[torch.optim.Optimizer], named: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_state`, in place."""
    owners = {
        id(p): optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for key, tensor in state.items():
        name, _, kind = key.rpartition("/")
        parameter = named[name]
        owner = owners[id(parameter)]
        count = tensor.to(parameter.device if owner.defaults.get("fused") else "cpu", copy=True)
        owner.state[parameter][kind] = like(tensor, parameter) if tensor.ndim else count
