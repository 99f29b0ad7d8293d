"""Stage one: the eye alone. Encoder and projector learn to tell, in every visual token, what lies there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from evalkit_tasks.miniatures import cameras, charts, clips, drawing, pages, scenes, tiles
from evalkit_tasks.miniatures.drawing import SIDE, View
from mini_internvl.model import MiniInternVL
from mini_internvl_train.tiny.labels import DenseHead, accuracies, dense_loss, encode
from mini_internvl_train.tiny.optimizer import optimizers


def _camera(rng: Random, training: bool) -> list[View]:
    frame = cameras.frame(rng, training)
    name = rng.choice(frame.objects).camera
    image = frame.titled(name)
    return [
        View(image.crop((half * SIDE, 0, half * SIDE + SIDE, SIDE)), frame.regions(name, half))
        for half in range(2)
    ]


#: World to (how its pictures are drawn, pictures of it in a batch of 64).
SOURCES: Mapping[str, tuple[Callable[[Random, bool], list[View]], int]] = {
    "quartered": (lambda rng, training: [scenes.quartered(rng, training).view()], 10),
    "overhead": (lambda rng, training: [scenes.overhead(rng, training).view()], 12),
    "charts": (lambda rng, training: [charts.chart(rng, training).view()], 10),
    "pages": (lambda rng, training: [pages.page(rng, training).view()], 14),
    "tiles": (lambda rng, training: [tiles.tile(rng, training).view()], 6),
    "clips": (lambda rng, training: rng.sample(clips.clip(rng, training).views(), 2), 4),
    "cameras": (_camera, 8),
}


def batches(seed: int, training: bool = True) -> Iterator[list[View]]:
    """Endless batches of 64 pictures of all worlds, none drawn twice."""
    chance = {name: drawing.generator(f"dense/{name}", seed, training) for name in SOURCES}
    while True:
        views: list[View] = []
        for name, (draw, count) in SOURCES.items():
            wanted = len(views) + count
            while len(views) < wanted:
                views += draw(chance[name], training)
        yield views


def pixels(views: list[View]) -> Tensor:
    """uint8 `[views, 3, SIDE, SIDE]`."""
    arrays = np.stack([np.asarray(view.image) for view in views])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()


def train_eye(
    model: MiniInternVL,
    steps: int,
    folder: Path,
    *,
    seed: int = 0,
    muon_lr: float = 0.02,
    adam_lr: float = 2e-3,
    stop: int | None = None,
) -> DenseHead:
    """Trains encoder and projector; the language model is not touched.

    Args:
        model: trained in place.
        steps: batches of 64 pictures; the learning rate falls to a tenth over the last third.
        stop: ends sooner, at the learning rate of that step.
        folder: gets `dense.jsonl` and, every 500 steps, the eye with its head in `eye.safetensors`.
    """
    side = round(model.config.num_image_token**0.5)
    head = DenseHead(int(model.config.llm["hidden_size"]))
    held_out = next(batches(seed, training=False))
    solvers = optimizers((model.vision_model, model.mlp1, head), muon_lr, adam_lr)
    base = [group["lr"] for solver in solvers for group in solver.param_groups]
    source, began = batches(seed), time.monotonic()
    last = steps if stop is None else stop
    for step in range(last):
        views = next(source)
        scale = min(1.0, (step + 1) / 100) * min(1.0, max(0.1, (steps - step) / (steps / 3)))
        for group, lr in zip((g for s in solvers for g in s.param_groups), base, strict=True):
            group["lr"] = lr * scale
        loss = dense_loss(head(model.encode_images(pixels(views))), encode(views, side))
        for solver in solvers:
            solver.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*model.vision_model.parameters(), *model.mlp1.parameters()], 5.0)
        for solver in solvers:
            solver.step()
        if (step + 1) % 100 == 0:
            with torch.no_grad():
                logits = head(model.encode_images(pixels(held_out)))
            scores = {k: round(v, 3) for k, v in accuracies(logits, encode(held_out, side)).items()}
            line = {
                "step": step + 1,
                "loss": round(loss.item(), 3),
                "seconds": round(time.monotonic() - began),
            }
            with (folder / "dense.jsonl").open("a") as log:
                log.write(json.dumps(line | scores) + "\n")
        if (step + 1) % 500 == 0 or step + 1 == last:
            save(model, head, folder)
    return head


def save(model: MiniInternVL, head: DenseHead, folder: Path) -> None:
    """Writes the eye and its head under temporary names, then renames."""
    from safetensors.torch import save_file

    state = {k: v for k, v in model.state_dict().items() if not k.startswith("language_model.")}
    state |= {f"dense.{k}": v for k, v in head.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "eye.tmp")
    (folder / "eye.tmp").rename(folder / "eye.safetensors")
