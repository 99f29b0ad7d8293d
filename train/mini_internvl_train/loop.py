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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from evalkit.errors import EvalkitError
from evalkit.store.atomic import write_json
from evalkit_models.mini_internvl import TRAINING
from mini_internvl_train import checkpoints
from mini_internvl_train.checkpoints import Resumed, State
from mini_internvl_train.engine import Interruption, gathered, locked, make_accelerator
from mini_internvl_train.errors import DivergedError, ResumeError, Stopped, TrainingDataError
from mini_internvl_train.log import StepLog, TrainingLog, peak_memory
from mini_internvl_train.objective import Objective, Say, Settings, StepResult
from mini_internvl_train.optimizer import optimizer_state, restore_optimizers, whole
from mini_internvl_train.selection import LOSS
from mini_internvl_train.settings import plain
from mini_internvl_train.sharding import Sharding, is_sharded
from mini_internvl_train.start import learned_parameters
from mini_internvl_train.tracking import trackers_of

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


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
        if main:
            write_json(output / TRAINING, {"name": settings.name})
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
        total, done = loop.objective.total_steps, None if resumed is None else loop.done
        log = TrainingLog(output, total, done, main=main, quiet=quiet, trackers=trackers)
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
        self.module: Any = objective.step
        if (sharding := Sharding.asked(settings.precision)) is not None:
            sharding.shard(objective.step, accelerator.device)
        else:
            self.module = accelerator.prepare(objective.step)
        self.optimizers: list[Any] = [accelerator.prepare(each) for each in objective.optimizers()]
        self.output = Path(settings.output)
        self.done = self.samples = self.tokens = 0
        self._details: list[float] = []
        self._changed: list[str] = []

    def forward(self, *inputs: Any) -> Any:
        """The module's forward pass in the precision of the training."""
        with self.accelerator.autocast():
            return self.module(*inputs)

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
        changed = resumed.allowed_changes(self.settings.decisive(), free_settings(self.settings))
        self._changed = [*changed, *self.objective.changes]
        for change in self._changed:
            self.say(f"changed: {change}; the {state.step} steps done stay as they are")
        selection = self.objective.selection
        if selection is not None and not selection.restore(state.selection):
            self.say("validation has changed: the best checkpoint is sought among those from here on")

    def run(self, log: TrainingLog, interruption: Interruption) -> None:
        """All steps that are left."""
        total, selection = self.objective.total_steps, self.objective.selection
        if self._changed:
            log.note(self.done, resumed=self._changed)
        with contextlib.closing(self.objective.batches(self.done)) as batches:
            try:
                self._checked(log, saved=self._folder().is_dir())
                while self.done < total and not (selection is not None and selection.exhausted):
                    stop = self._step(batches, log, interruption)
                    self._checked(log, due=stop)
                    if stop and self.done < total:
                        raise Stopped(
                            f"stopped after step {self.done} of {total}, saved in {self._folder()}; "
                            "the same command goes on"
                        )
            except TrainingDataError as error:
                raise self._damaged(error, log) from None
        if selection is not None and self.done < total:
            self.say(
                f"stopped early, after step {self.done} of {total}: {selection.by} was best after step "
                f"{selection.best}"
            )
            log.note(self.done, stopped_early=True)
        self._conclude(log)

    @property
    def _chosen(self) -> int:
        """The step whose checkpoint becomes the final model."""
        selection = self.objective.selection
        best = None if selection is None else selection.best
        return self.done if best is None else best

    def _conclude(self, log: TrainingLog) -> None:
        """Evaluates the final model's checkpoint where it was not due; notes its step if it was chosen."""
        main = self.accelerator.is_main_process
        if gathered(main and self.objective.lacks_scores(self._chosen))[0]:
            self._evaluate(log, self._chosen)
        if self.objective.selection is not None:
            log.note(self.done, final_step=self._chosen)

    def _checked(self, log: TrainingLog, *, due: bool = False, saved: bool = False) -> None:
        """Validation, checkpoint and evaluation after the steps done, as far as they are due.

        Args:
            due: whether a checkpoint is due in any case. saved: whether it is written already.
        """
        better = self._validate(log)
        evaluates, selection = self.objective.evaluates(self.done), self.objective.selection
        if self.done:
            due = due or self.done == self.objective.total_steps
            due = due or self.done % self.settings.checkpoints.every == 0
            due = due or (selection is not None and selection.exhausted)
        if (due or better or evaluates) and not saved:
            log.flush()
            self.save()
        if better:
            self._point_best(log)
        if evaluates:
            self._evaluate(log, self.done)

    def _validate(self, log: TrainingLog) -> bool:
        """Takes the loss on held-out samples if it is due; returns whether it decides and is the best."""
        selection = self.objective.selection
        if not self.objective.validates(self.done):
            return False
        found = self.objective.validate(self)
        log.validation(self.done, found)
        shown = ", ".join(f"{name} {loss:.4f}" for name, (loss, _) in found.sets.items())
        self.say(f"step {self.done}: validation loss {found.loss:.4f} ({shown})")
        return selection is not None and selection.by == LOSS and selection.add(self.done, found.loss)

    def agree(self, damage: str | None) -> None:
        """Stops all ranks where one has met a damaged image.

        Raises:
            TrainingDataError: on every rank, with the first message.
        """
        if messages := [message for message in gathered(damage) if message]:
            raise TrainingDataError(messages[0])

    def _damaged(self, error: TrainingDataError, log: TrainingLog) -> TrainingDataError:
        """The error of a damaged image with what to do; the steps done are saved."""
        if self.done and not self._folder().is_dir():
            log.flush()
            self.save()
        saved = f"; step {self.done} is saved in {self._folder()}" if self.done else ""
        return TrainingDataError(
            f"{error}{saved}: repair the file, or add --skip-bad, and the same command goes on"
        )

    def _folder(self) -> Path:
        return checkpoints.step_folder(self.output, self.done)

    def _point_best(self, log: TrainingLog) -> None:
        log.note(self.done, best_step=self.done)
        if self.accelerator.is_main_process:
            checkpoints.point(self.output, checkpoints.BEST, self._folder())

    def _step(self, batches: Iterator[Any], log: TrainingLog, interruption: Interruption) -> bool:
        """One optimizer step; returns whether a signal asked to stop."""
        began = time.monotonic()
        seed_step(self.settings.seed, self.done, self.accelerator.process_index)
        rate = self._set_rates()
        result = self.objective.backward(self, batches)
        loss, stop = self._reduced(result, interruption.requested)
        if not result.samples:
            self.done += 1
            log.empty(self.done)
            return stop
        self._check("loss", loss)
        norm = self._clip()
        for optimizer in self.optimizers:
            optimizer.step()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self.done += 1
        self.samples += result.samples
        self.tokens += result.tokens
        by_set = self.objective.losses(self.done - 1, self._details)
        seconds, counts = time.monotonic() - began, (result.samples, result.tokens)
        log.step(StepLog(self.done, result.epoch, loss, rate, norm, *counts, seconds, peak_memory(), by_set))
        return stop

    def _set_rates(self) -> float:
        """Sets the learning rate of every parameter group; returns the highest."""
        rates = self.objective.rates(self.done)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, [*rates] * (len(groups) // len(rates)), strict=True):
            group["lr"] = rate
        return max(rates)

    def _reduced(self, result: StepResult, requested: bool) -> tuple[float, bool]:
        """The loss over all ranks, and whether any of them is asked to stop; keeps the details.

        Raises:
            TrainingDataError: a rank met a damaged image.
        """
        flags = [float(requested), float(result.damage is not None)]
        parts = [result.loss.detach().reshape(1), result.loss.new_tensor(flags)]
        if result.details is not None:
            parts.append(result.details.detach())
        loss, stop, damaged, *self._details = self.accelerator.reduce(torch.cat(parts), "sum").tolist()
        if damaged:
            self.agree(result.damage)
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
        folder, selection = self._folder(), self.objective.selection
        if self.accelerator.is_main_process or is_sharded(self.module):
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
                total=self.objective.total_steps,
                free=free_settings(self.settings),
                selection={} if selection is None else selection.state(),
            )
            best = None if selection is None else selection.best
            with checkpoints.written(folder, self.settings.checkpoints.keep, best) as temporary:
                exact = self.objective.write_model(temporary, weights)
                masters = None if exact else {name: weights[name] for name in learned}
                files = self.objective.files(self.done)
                checkpoints.write_training(temporary, masters, optimizer, files, state)
        self.accelerator.wait_for_everyone()
        return folder

    def finish(self) -> Path:
        """Writes `final/`: the model alone."""
        final, chosen = self.output / "final", checkpoints.step_folder(self.output, self._chosen)
        selection, said = self.objective.selection, ""
        if selection is not None and selection.best is not None:
            said = (
                f", of step {selection.best}: {selection.by} {selection.values[selection.best]:.4g} is best"
            )
        if self.accelerator.is_main_process:
            if not chosen.is_dir():
                raise ResumeError(
                    f"{chosen}: the best checkpoint is gone; leave out validation.best to take the last"
                )
            self.objective.finish(chosen, final)
            self.say(f"final model: {final}{said}")
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return final

    def _evaluate(self, log: TrainingLog, step: int) -> None:
        folder = checkpoints.step_folder(self.output, step)
        value, selection = math.nan, self.objective.selection
        if self.accelerator.is_main_process:
            try:
                scores = self.objective.evaluate(folder, self._details)
            except EvalkitError as error:  # a checkpoint can be evaluated later; the training is worth more
                logger.warning("step %d: evaluation failed, training continues: %s", step, error)
                log.note(step, evaluation_failed=" ".join(str(error).split()))
            else:
                if scores:
                    log.evaluation(step, scores)
                if selection is not None and selection.by != LOSS:
                    value = selection.value_in(scores)
        self.accelerator.wait_for_everyone()
        decides = selection is not None and selection.by != LOSS
        if selection is not None and decides and selection.add(step, gathered(value)[0]):
            self._point_best(log)

    def _network(self) -> nn.Module:
        return self.objective.named(self.accelerator.unwrap_model(self.module))

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers as torch knows them, without Accelerate's wrapping."""
        return [optimizer.optimizer for optimizer in self.optimizers]


def free_settings(settings: Settings) -> dict[str, Any]:
    """The settings that change no weights, flat."""
    decisive = dict(checkpoints.flat(settings.decisive()))
    return {name: value for name, value in checkpoints.flat(plain(settings)) if name not in decisive}


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds Python, numpy and torch (all devices) for one step of one rank; so no state of them is stored."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    value = int.from_bytes(digest[:8], "big")
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value % 2**63)


def _silent(line: str) -> None:
    """Where messages of other ranks go."""
