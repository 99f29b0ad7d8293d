"""The training loop: steps, checkpoints, log, evaluation, resume and stopping, whatever is trained.

What is trained is an `Objective`: its module, its data, and the forward and backward passes of a step. Random
numbers and the learning rate are functions of the step, so a training that was killed continues from its last
checkpoint to the same weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from evalkit.errors import EvalkitError
from mini_internvl_train import checkpoints
from mini_internvl_train.checkpoints import Resumed, State
from mini_internvl_train.engine import Interruption, locked, make_accelerator, sharded
from mini_internvl_train.errors import DivergedError, Stopped
from mini_internvl_train.log import Scores, StepLog, TrainingLog, peak_memory
from mini_internvl_train.optimizer import optimizer_state, restore_optimizers, whole
from mini_internvl_train.recipe import Checkpoints, Optimizer, Precision
from mini_internvl_train.settings import plain
from mini_internvl_train.start import learned_parameters
from mini_internvl_train.tracking import trackers_of

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

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
        details: further shares that are summed over ranks, for `Objective.evaluate`.
    """

    loss: Tensor
    epoch: int
    samples: int
    tokens: int
    details: Tensor | None = None


class Objective(ABC):
    """What a loop trains.

    Attributes:
        step: the module that Accelerate prepares; everything that learns is in it.
        total_steps: optimizer steps of the whole training.
        data: fingerprint of each data set; a checkpoint of other data is refused.
    """

    step: nn.Module
    total_steps: int
    data: Mapping[str, str]

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

    def evaluates(self, step: int) -> bool:
        """Whether the checkpoint after `step` steps is evaluated."""
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


def run(
    settings: Settings,
    make: Callable[[Accelerator, Resumed | None, Say], Objective],
    *,
    say: Say,
    quiet: bool,
    on_cpu: bool = False,
) -> Path:
    """Trains, and continues from the newest checkpoint of the output folder if there is one.

    Args:
        settings: of the loop.
        make: loads everything; with a checkpoint, checks that it belongs to the recipe and loads its weights.
        say: where tables and messages go, line by line (main process only).
        quiet: no progress bar.
        on_cpu: whatever devices there are.

    Returns:
        The folder of the final model.

    Raises:
        TrainingError: bad data or recipe, a checkpoint that does not belong to them, or a loss that diverged.
        Stopped: SIGTERM or SIGINT; the step was finished and saved.
    """
    accelerator = make_accelerator(settings.precision, cpu=on_cpu)
    output, main = Path(settings.output), accelerator.is_main_process
    with locked(output, accelerator), Interruption() as interruption:
        resumed = checkpoints.newest(output)
        said = say if main else _silent
        loop = Loop(settings, make(accelerator, resumed, said), accelerator, said)
        if resumed is not None:
            loop.restore(resumed)
        trackers = (
            trackers_of(settings.log_to, settings.name, output, plain(settings))
            if main and settings.log_to
            else None
        )
        total = loop.objective.total_steps
        log = TrainingLog(output, total, loop.done, main=main, quiet=quiet, trackers=trackers)
        try:
            loop.run(log, interruption)
        finally:
            log.close()
        return loop.finish()


class Loop:
    """A training under way.

    Attributes:
        module, optimizers: as Accelerate prepared them.
        done: optimizer steps done. samples, tokens: seen so far.
    """

    def __init__(self, settings: Settings, objective: Objective, accelerator: Accelerator, say: Say) -> None:
        self.settings, self.objective = settings, objective
        self.accelerator, self.say = accelerator, say
        prepared: Any = accelerator.prepare(objective.step, *objective.optimizers())
        self.module: Any = prepared[0]
        self.optimizers: list[Any] = list(prepared[1:])
        self.output = Path(settings.output)
        self.done = self.samples = self.tokens = 0
        self._details: list[float] = []

    def restore(self, resumed: Resumed) -> None:
        """Restores optimizers and counts from a checkpoint, whose weights are loaded already."""
        state, ranks = resumed.state, self.accelerator.num_processes
        if state.ranks != ranks:
            self.say(f"was trained by {state.ranks} processes: the weights will be equal only to rounding")
        stored = checkpoints.read_weights(resumed.folder / checkpoints.OPTIMIZER)
        restore_optimizers(self._optimizers(), dict(learned_parameters(self._network())), stored)
        if self.accelerator.scaler is not None and state.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        self.done, self.samples, self.tokens = state.step, state.samples, state.tokens
        self.say(f"continuing from {resumed.folder}")

    def run(self, log: TrainingLog, interruption: Interruption) -> None:
        """All steps that are left."""
        total = self.objective.total_steps
        if self.done and self.objective.evaluates(self.done):
            self._evaluate(checkpoints.step_folder(self.output, self.done), log)
        with contextlib.closing(self.objective.batches(self.done)) as batches:
            while self.done < total:
                stop = self._step(batches, log, interruption)
                evaluates = self.objective.evaluates(self.done)
                every = self.settings.checkpoints.every
                if stop or evaluates or self.done == total or self.done % every == 0:
                    log.flush()
                    folder = self.save()
                if evaluates:
                    self._evaluate(folder, log)
                if stop and self.done < total:
                    raise Stopped(
                        f"stopped after step {self.done} of {total}, saved in {folder}; "
                        "the same command goes on"
                    )

    def _step(self, batches: Iterator[Any], log: TrainingLog, interruption: Interruption) -> bool:
        """One optimizer step; returns whether a signal asked to stop."""
        began = time.monotonic()
        seed_step(self.settings.seed, self.done, self.accelerator.process_index)
        rate = self._set_rates()
        result = self.objective.backward(self, batches)
        loss, stop = self._reduced(result, interruption.requested)
        self._check("loss", loss)
        norm = self._clip()
        for optimizer in self.optimizers:
            optimizer.step()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self.done += 1
        self.samples += result.samples
        self.tokens += result.tokens
        seconds, counts = time.monotonic() - began, (result.samples, result.tokens)
        log.step(StepLog(self.done, result.epoch, loss, rate, norm, *counts, seconds, peak_memory()))
        return stop

    def _set_rates(self) -> float:
        """Sets the learning rate of every parameter group; returns the first."""
        rates = self.objective.rates(self.done)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, [*rates] * (len(groups) // len(rates)), strict=True):
            group["lr"] = rate
        return rates[0]

    def _reduced(self, result: StepResult, requested: bool) -> tuple[float, bool]:
        """The loss over all ranks, and whether any of them is asked to stop; keeps the details."""
        parts = [result.loss.detach().reshape(1), result.loss.new_tensor([float(requested)])]
        if result.details is not None:
            parts.append(result.details.detach())
        loss, stop, *self._details = self.accelerator.reduce(torch.cat(parts), "sum").tolist()
        return loss, stop > 0

    def _clip(self) -> float:
        """Clips the gradients; returns their norm before."""
        norm = self.objective.clip(self)
        value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        scaler = self.accelerator.scaler
        if scaler is not None and not math.isfinite(value) and scaler.get_scale() > 1.0:
            return value  # float16's loss scaling skips the step and lowers its scale
        self._check("gradient norm", value, self.settings.optimizer.stop_norm)
        return value

    def _check(self, what: str, value: float, bound: float = math.inf) -> None:
        if math.isfinite(value) and value <= bound:
            return
        names = ", ".join(self.objective.sample_names(self.done))
        raise DivergedError(
            f"step {self.done + 1}: {what} {value:.4g}; {f'its samples: {names}; ' if names else ''}"
            "look at them, or lower optimizer.lr; the last checkpoint is kept"
        )

    def save(self) -> Path:
        """Writes the checkpoint of the steps done; all ranks gather what is sharded."""
        folder = checkpoints.step_folder(self.output, self.done)
        if self.accelerator.is_main_process or sharded(self.accelerator):
            network = self._network()
            learned = dict(learned_parameters(network))
            weights = {name: whole(tensor) for name, tensor in self.objective.saved(network).items()}
            optimizer = optimizer_state(self._optimizers(), learned)
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = State(
                step=self.done,
                samples=self.samples,
                tokens=self.tokens,
                recipe=self.settings.decisive(),
                data=dict(self.objective.data),
                ranks=self.accelerator.num_processes,
                scaler=None if scaler is None else scaler.state_dict(),
            )
            with checkpoints.written(folder, self.settings.checkpoints.keep) as temporary:
                exact = self.objective.write_model(temporary, weights)
                masters = None if exact else {name: weights[name] for name in learned}
                checkpoints.write_training(temporary, masters, optimizer, state)
        self.accelerator.wait_for_everyone()
        return folder

    def finish(self) -> Path:
        """Writes `final/`: the model alone."""
        final = self.output / "final"
        if self.accelerator.is_main_process:
            self.objective.finish(checkpoints.step_folder(self.output, self.done), final)
            self.say(f"final model: {final}")
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return final

    def _evaluate(self, folder: Path, log: TrainingLog) -> None:
        if self.accelerator.is_main_process:
            try:
                scores = self.objective.evaluate(folder, self._details)
            except EvalkitError as error:  # a checkpoint can be evaluated later; the training is worth more
                logger.warning("step %d: evaluation failed, training continues: %s", self.done, error)
            else:
                if scores:
                    log.evaluation(self.done, scores)
        self.accelerator.wait_for_everyone()

    def _network(self) -> nn.Module:
        return self.objective.named(self.accelerator.unwrap_model(self.module))

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers as torch knows them, without Accelerate's wrapping."""
        return [optimizer.optimizer for optimizer in self.optimizers]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds Python, numpy and torch (all devices) for one step of one rank; so no state of them is stored."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    value = int.from_bytes(digest[:8], "big")
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value % 2**63)


def _silent(line: str) -> None:
    """Where messages of other ranks go."""
