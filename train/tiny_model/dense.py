"""The first stage: vision encoder and projector learn to predict what lies under each visual token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn

from evalkit_tasks.miniatures import cameras, charts, clips, drawing, pages, scenes, tiles
from evalkit_tasks.miniatures.drawing import SIDE, View
from mini_internvl_train.log import Scores
from mini_internvl_train.loop import Loop
from tiny_model.labels import accuracies, dense_loss, encode
from tiny_model.stage import Stage, clipped


def _camera(rng: Random, training: bool) -> list[View]:
    frame = cameras.frame(rng, training)
    name = rng.choice(frame.objects).camera
    image = frame.titled(name)
    return [
        View(image.crop((half * SIDE, 0, half * SIDE + SIDE, SIDE)), frame.regions(name, half))
        for half in range(2)
    ]


#: World to (how its images are drawn, images of it in a batch of 64).
SOURCES: Mapping[str, tuple[Callable[[Random, bool], list[View]], int]] = {
    "quartered": (lambda rng, training: [scenes.quartered(rng, training).view()], 10),
    "overhead": (lambda rng, training: [scenes.overhead(rng, training).view()], 12),
    "charts": (lambda rng, training: [charts.chart(rng, training).view()], 10),
    "pages": (lambda rng, training: [pages.page(rng, training).view()], 14),
    "tiles": (lambda rng, training: [tiles.tile(rng, training).view()], 6),
    "clips": (lambda rng, training: rng.sample(clips.clip(rng, training).views(), 2), 4),
    "cameras": (_camera, 8),
}


def model_input(views: Sequence[View]) -> Tensor:
    """Normalised tiles, float `[views, 3, SIDE, SIDE]`."""
    from mini_internvl.model import normalise

    return normalise(pixels(views))


def batches(seed: int, training: bool = True) -> Iterator[list[View]]:
    """Endless batches of 64 images of all worlds, none drawn twice."""
    chance = {name: drawing.generator(f"dense/{name}", seed, training) for name in SOURCES}
    while True:
        views: list[View] = []
        for name, (draw, count) in SOURCES.items():
            wanted = len(views) + count
            while len(views) < wanted:
                views += draw(chance[name], training)
        yield views


def pixels(views: Sequence[View]) -> Tensor:
    """uint8 `[views, 3, SIDE, SIDE]`."""
    arrays = np.stack([np.asarray(view.image) for view in views])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()


@dataclass
class EncoderStage(Stage):
    """Trains vision encoder, projector and head; the language model is not touched.

    The learning rate falls to a tenth over the last third. Every 100 steps the head's accuracies on held-out
    images are logged.
    """

    def learners(self) -> Sequence[nn.Module]:
        """All that sees."""
        return (self.network.model.vision_model, self.network.model.mlp1, self.network.head)

    def scale(self, step: int) -> float:
        """A warm-up of 100 steps, then the fall."""
        return min(1.0, (step + 1) / 100) * min(1.0, max(0.1, (self.steps - step) / (self.steps / 3)))

    def inputs(self) -> Iterator[list[View]]:
        """Batches of 64 images."""
        return batches(self.seed)

    def loss(self, drawn: list[View], step: int) -> tuple[Tensor, int]:
        """The dense loss."""
        network = self.network
        logits = network.head(network.model.encode_images(pixels(drawn)))
        loss = dense_loss(logits, encode(drawn, network.side))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss, len(drawn)

    def clip(self, loop: Loop) -> Tensor:
        """Encoder and projector together."""
        model = self.network.model
        return clipped([*model.vision_model.parameters(), *model.mlp1.parameters()], 5.0)

    def evaluates(self, step: int) -> bool:
        """Every 100 steps."""
        return step > 0 and step % 100 == 0

    @torch.no_grad()
    def evaluate(self, folder: Path, details: Sequence[float]) -> Scores:
        """Share of held-out tokens that predict each attribute correctly."""
        held_out = next(batches(self.seed, training=False))
        logits = self.network.head(self.network.model.encode_images(pixels(held_out)))
        return {"accuracy": accuracies(logits, encode(held_out, self.network.side))}
