"""What the stages of the embedded model's training have in common: network, dense head, checkpoints."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mini_internvl.model import MiniInternVL
from mini_internvl.tokenizers import Tokenizer
from mini_internvl_train.loop import Loop
from mini_internvl_train.objective import Objective, StepResult
from mini_internvl_train.recipe import Checkpoints, Optimizer, Precision
from tiny_model import mimetic, shapes
from tiny_model.labels import DenseHead
from tiny_model.muon import optimizers


@dataclass(frozen=True, slots=True)
class StageSettings:
    """What the loop reads of a stage.

    Attributes:
        output: folder of the stage. seed: of the recipe. log_to: trackers of the training.
        stage: the recipe's entry.
        optimizer: its clipping is the stage's own, and no norm stops it.
    """

    output: str
    seed: int
    stage: Mapping[str, Any]
    name: str = "tiny"
    log_to: tuple[str, ...] = ()
    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(every=200, keep=1))
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(stop_norm=1e17))
    precision: Precision = "float32"

    def decisive(self) -> dict[str, Any]:
        """The settings that change the weights, as plain JSON."""
        return {"seed": self.seed, **self.stage}


class Network(nn.Module):
    """The model and the head that is thrown away at the end."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        image_token = tokenizer.token_id("<IMG_CONTEXT>")
        assert tokenizer.eos_id is not None and image_token is not None
        self.model = MiniInternVL(shapes.configuration(len(tokenizer), tokenizer.eos_id, image_token))
        self.head = DenseHead(int(self.model.config.llm["hidden_size"]))
        mimetic.prepare(self.model, seed)

    @property
    def side(self) -> int:
        """Visual tokens along a side of a tile."""
        return math.isqrt(self.model.config.num_image_token)


@dataclass
class Stage(Objective):
    """A stage: an objective of the training loop, on one CPU process.

    Attributes:
        network: trained in place. tokenizer_from: folder of its files.
        steps: that the learning rates are planned for. stop: ends sooner, at the learning rates of that step.
        muon_lr, adam_lr: highest learning rates.
    """

    network: Network
    tokenizer: Tokenizer
    tokenizer_from: Path
    seed: int
    steps: int
    stop: int | None = None
    muon_lr: float = 0.02
    adam_lr: float = 2e-3
    data: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.step = self.network
        self.total_steps = self.steps if self.stop is None else self.stop
        self._optimizers = self.make_optimizers()
        self._highest = [group["lr"] for optimizer in self._optimizers for group in optimizer.param_groups]

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon and AdamW for what the stage trains."""
        return optimizers(self.learners(), self.muon_lr, self.adam_lr)

    @abstractmethod
    def learners(self) -> Sequence[nn.Module]:
        """Modules that the stage trains."""

    @abstractmethod
    def scale(self, step: int) -> float:
        """Learning rates of a step, relative to the highest."""

    @abstractmethod
    def inputs(self) -> Iterator[Any]:
        """Endless drawn inputs, one a step."""

    @abstractmethod
    def loss(self, drawn: Any, step: int) -> tuple[Tensor, int]:
        """Adds the gradients of a step; returns its loss and the number of its samples."""

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Those made once, so that their learning rates are known."""
        return self._optimizers

    def rates(self, step: int) -> Sequence[float]:
        """The highest rate of each group, scaled."""
        return [highest * self.scale(step) for highest in self._highest]

    def batches(self, first: int) -> Generator[Any, None, None]:
        """Drawn inputs; those of steps already done are drawn again and passed over."""
        for step, drawn in zip(range(self.total_steps), self.inputs(), strict=False):
            if step >= first:
                yield drawn

    def backward(self, loop: Loop, batches: Iterator[Any]) -> StepResult:
        """Gradients of one drawn input."""
        loss, samples = self.loss(next(batches), loop.done)
        return StepResult(loss.detach(), 0, samples, 0)

    def clip(self, loop: Loop) -> Tensor:
        """Not at all."""
        return clipped(self.network.parameters(), math.inf)

    def write_model(self, folder: Path, weights: Mapping[str, Tensor]) -> bool:
        """The model in the released layout; the head is read from the master weights."""
        from mini_internvl.checkpoint import save_checkpoint

        save_checkpoint(self.network.model, folder, tokenizer_from=self.tokenizer_from)
        return False


def clipped(parameters: Iterable[Tensor], norm: float) -> Tensor:
    """Scales gradients down to a norm; returns their norm before."""
    found: Tensor = torch.nn.utils.clip_grad_norm_(list(parameters), norm)
    return found
