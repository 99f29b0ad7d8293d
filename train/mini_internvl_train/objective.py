"""What a training is of: its module, its data, and the forward and backward passes of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from mini_internvl_train import checkpoints
from mini_internvl_train.log import Scores, Validated
from mini_internvl_train.recipe import Checkpoints, Optimizer, Precision
from mini_internvl_train.selection import Selection
from mini_internvl_train.start import learned_parameters

if TYPE_CHECKING:
    from mini_internvl_train.loop import Loop

Say = Callable[[str], None]


class Settings(Protocol):
    """What the loop reads of a recipe."""

    @property
    def name(self) -> str: ...
    @property
    def output(self) -> str: ...
    @property
    def log_to(self) -> tuple[str, ...]: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def checkpoints(self) -> Checkpoints: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def seed(self) -> int: ...

    def decisive(self) -> dict[str, Any]:
        """The settings that change the weights, as plain JSON."""
        ...


@dataclass(frozen=True, slots=True)
class StepResult:
    """Results of the forward and backward passes of one step.

    Attributes:
        loss: this rank's share; the shares of all ranks sum to the step's loss.
        epoch: of the step's first sample. samples, tokens: of the step, over all ranks.
        details: further shares that are summed over ranks, for `Objective.losses` and `Objective.evaluate`.
        damage: an image of this rank's that cannot be decoded; the step is then not taken.
    """

    loss: Tensor
    epoch: int
    samples: int
    tokens: int
    details: Tensor | None = None
    damage: str | None = None


class Objective(ABC):
    """What a loop trains.

    Attributes:
        step: the module that Accelerate prepares; everything that learns is in it.
        total_steps: optimizer steps of the whole training.
        data: fingerprint of each data set; a checkpoint of other data is refused.
        selection: chooses the best checkpoint, or None: the last is the result.
        changes: what has changed in the data since the checkpoint that training continues from.
    """

    step: nn.Module
    total_steps: int
    data: Mapping[str, str]
    selection: Selection | None = None
    changes: Sequence[str] = ()

    @abstractmethod
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Optimizers of what learns."""

    @abstractmethod
    def rates(self, step: int) -> Sequence[float]:
        """Learning rate of one step, counted from 0, for each parameter group, or one for all of them."""

    @abstractmethod
    def batches(self, first: int) -> Generator[Any, None, None]:
        """Inputs of this rank for every step from `first` on, in order."""

    @abstractmethod
    def backward(self, loop: Loop, batches: Iterator[Any]) -> StepResult:
        """Forward and backward passes of step `loop.done`."""

    @abstractmethod
    def write_model(self, folder: Path, weights: Mapping[str, Tensor]) -> bool:
        """Writes the model of a checkpoint.

        Args:
            folder: exists and is empty but for `training/`.
            weights: those of `saved`, whole.

        Returns:
            Whether what learns can be read back from these files exactly.
        """

    def named(self, step: nn.Module) -> nn.Module:
        """The part of `step` by whose parameter names checkpoints are written."""
        return step

    def saved(self, network: nn.Module) -> Mapping[str, Tensor]:
        """Tensors of `named`'s result that a checkpoint holds; at least all that learn."""
        return dict(learned_parameters(network))

    def clip(self, loop: Loop) -> Any:
        """Clips the gradients of a step; returns their norm before."""
        return loop.accelerator.clip_grad_norm_(loop.module.parameters(), loop.settings.optimizer.clip)

    def sample_names(self, step: int) -> Sequence[str]:
        """Names of a step's samples, for the message of a step that diverged."""
        return ()

    def files(self, done: int) -> Mapping[str, Tensor]:
        """What a checkpoint after `done` steps knows of the files of the data."""
        return {}

    def validates(self, step: int) -> bool:
        """Whether the loss on held-out samples is taken after `step` steps; 0 is before the first."""
        return False

    def validate(self, loop: Loop) -> Validated:
        """The loss on held-out samples, on all ranks together.

        Raises:
            TrainingDataError: an image of theirs cannot be decoded, on all ranks.
        """
        raise NotImplementedError

    def losses(self, step: int, details: Sequence[float]) -> Mapping[str, float]:
        """The loss of a step by data set, for the log.

        Args:
            step: counted from 0. details: of it, summed over ranks.
        """
        return {}

    def evaluates(self, step: int) -> bool:
        """Whether the checkpoint after `step` steps is evaluated; 0 is the start."""
        return False

    def lacks_scores(self, step: int) -> bool:
        """Whether a checkpoint should have been evaluated by the end and was not."""
        return False

    def evaluate(self, folder: Path, details: Sequence[float]) -> Scores:
        """Scores of a checkpoint, on the main process.

        Args:
            folder: of the checkpoint. details: of its step; none where the training was resumed there.
        """
        return {}

    def finish(self, checkpoint: Path, final: Path) -> None:
        """Writes the finished model from the last checkpoint."""
        checkpoints.copy_model(checkpoint, final)
