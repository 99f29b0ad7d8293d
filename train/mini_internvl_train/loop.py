"""The training loop: Accelerate for devices and ranks, everything else plain code.

A step sees packs that were planned ahead (`order`), dealt to ranks and micro-steps; its loss is normalised
over all of them. Random numbers and the learning rate are functions of the step. So a training that was
killed goes on from its last checkpoint to the same weights.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evalkit.errors import EvalkitError
from mini_internvl_train import checkpoints
from mini_internvl_train.batch import Batch
from mini_internvl_train.checkpoints import Base, Snapshot, State
from mini_internvl_train.cpu_half import emulated, store_frozen_layers
from mini_internvl_train.engine import Interruption, locked, make_accelerator, sharded
from mini_internvl_train.errors import DivergedError, Stopped
from mini_internvl_train.evaluation import check_tasks, due, evaluate, score_lines
from mini_internvl_train.feed import Feed
from mini_internvl_train.log import StepLog, TrainingLog
from mini_internvl_train.memory import peak_memory
from mini_internvl_train.merge import merge
from mini_internvl_train.optimizer import make_optimizer, optimizer_state, restore_optimizer, whole
from mini_internvl_train.order import Pack, PackOrder
from mini_internvl_train.plan import memory_lines, parts_lines, plan_data
from mini_internvl_train.randomness import seed_step
from mini_internvl_train.recipe import Recipe
from mini_internvl_train.samples import TrainingSet, describe
from mini_internvl_train.schedule import learning_rate
from mini_internvl_train.start import DTYPES, Start, load_start
from mini_internvl_train.step import TrainingStep
from mini_internvl_train.trainable import moving, prepare, store_frozen, uses_lora

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

Say = Callable[[str], None]


def train(recipe: Recipe, *, say: Say = logger.info, quiet: bool = False) -> Path:
    """Trains, going on from the newest checkpoint of the output folder where there is one.

    Args:
        recipe: everything.
        say: where tables and messages go, line by line (main process only).
        quiet: no progress bar.

    Returns:
        The folder of the final model, in the released layout and the recipe's precision.

    Raises:
        TrainingError: bad data or recipe, a checkpoint that does not belong to them, or a loss that diverged.
        Stopped: SIGTERM or SIGINT; the step was finished and saved.
    """
    accelerator = make_accelerator(recipe.precision)
    output = Path(recipe.output)
    with locked(output, accelerator), Interruption() as interruption:
        training = Training.begin(recipe, accelerator, say if accelerator.is_main_process else _silent)
        log = TrainingLog(
            output,
            training.order.total_steps,
            training.done,
            main=accelerator.is_main_process,
            quiet=quiet,
        )
        try:
            training.run(log, interruption)
        finally:
            log.close()
        return training.finish()


@dataclass
class Training:
    """A training under way.

    Attributes:
        module, optimizer: as Accelerate prepared them.
        done: optimizer steps done. samples, tokens: seen so far.
        base: the start checkpoint, for adapters.
    """

    recipe: Recipe
    accelerator: Accelerator
    start: Start
    data: TrainingSet
    order: PackOrder
    feed: Feed
    module: Any
    optimizer: Any
    base: Base
    say: Say
    done: int = 0
    samples: int = 0
    tokens: int = 0

    @classmethod
    def begin(cls, recipe: Recipe, accelerator: Accelerator, say: Say) -> Training:
        """Loads everything, from the newest checkpoint where there is one."""
        output = Path(recipe.output)
        found = checkpoints.checkpoints(output)
        resumed = found[-1] if found else None
        state = checkpoints.read_state(resumed) if resumed else None
        adapter = uses_lora(recipe.trainable)
        if accelerator.is_main_process:
            check_tasks(recipe.evaluation)
        start = load_start(recipe, resumed if resumed and not adapter else None)
        data, order = plan_data(recipe, start)
        if resumed and state:
            checkpoints.check_settings(resumed, state, recipe.decisive(), data.fingerprints)
            if state.ranks != accelerator.num_processes:
                say(f"was trained by {state.ranks} processes: the weights will be equal only to rounding")
        base = Base(recipe.model, start.network.fingerprint if adapter else "")
        prepare(start.network, recipe)
        if resumed:
            _restore_weights(start, resumed, recipe)
        _store_frozen(start, recipe, accelerator)
        say(describe(data.lengths))
        for line in (*parts_lines(start.network), *memory_lines(start.network, recipe, order, data.lengths)):
            say(line)
        start.network.train()
        step = TrainingStep(start.network)
        module, optimizer = accelerator.prepare(step, make_optimizer(step, recipe.optimizer))
        feed = Feed(
            data,
            order,
            recipe,
            start.tiling,
            start.pad_id,
            accelerator.process_index,
            accelerator.num_processes,
        )
        training = cls(recipe, accelerator, start, data, order, feed, module, optimizer, base, say)
        if resumed and state:
            training._restore(resumed, state)
        return training

    def run(self, log: TrainingLog, interruption: Interruption) -> None:
        """All steps that are left."""
        total = self.order.total_steps
        if self.done and due(self.recipe.evaluation, self.done, total):
            self._evaluate(checkpoints.step_folder(Path(self.recipe.output), self.done), log)
        batches = self.feed.batches(self.done, total)
        with contextlib.closing(batches):
            while self.done < total:
                stop = self._step(batches, log, interruption)
                checkpoint = due(self.recipe.evaluation, self.done, total)
                if stop or checkpoint or self.done == total or self.done % self.recipe.checkpoints.every == 0:
                    log.flush()
                    folder = self.save()
                if checkpoint:
                    self._evaluate(folder, log)
                if stop and self.done < total:
                    raise Stopped(
                        f"stopped after step {self.done} of {total}, saved in {folder}; "
                        "the same command goes on"
                    )

    def _step(self, batches: Iterator[Batch], log: TrainingLog, interruption: Interruption) -> bool:
        """One optimizer step; returns whether the training was told to stop."""
        began = time.monotonic()
        recipe, accelerator = self.recipe, self.accelerator
        seed_step(recipe.seed, self.done, accelerator.process_index)
        packs = self.order.step(self.done)
        rate = learning_rate(self.done, self.order.total_steps, recipe.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._backward(batches, packs)
        loss, told = accelerator.reduce(
            torch.tensor([loss, float(interruption.told)], device=accelerator.device), "sum"
        ).tolist()
        self._check(packs, "loss", loss)
        norm = self._norm(packs)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1
        samples = [index for pack in packs for index in pack.samples]
        tokens = sum(self.data.lengths[index].tokens for index in samples)
        self.samples += len(samples)
        self.tokens += tokens
        seconds = time.monotonic() - began
        log.step(
            StepLog(self.done, packs[0].epoch, loss, rate, norm, len(samples), tokens, seconds, peak_memory())
        )
        return bool(told > 0)

    def _backward(self, batches: Iterator[Batch], packs: list[Pack]) -> float:
        """Gradients of a step; returns this rank's part of the loss."""
        denominator = self.order.denominator(packs)
        ranks, micro_steps = self.accelerator.num_processes, self.feed.micro_steps(packs)
        total = torch.zeros((), device=self.accelerator.device)
        for micro in range(micro_steps):
            batch = next(batches).to(self.accelerator.device)
            last = micro == micro_steps - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.module):
                loss = self.module(batch, denominator)
                self.accelerator.backward(loss * ranks)  # gradients are averaged over ranks
            total += loss.detach()
        return float(total)

    def _norm(self, packs: list[Pack]) -> float:
        """Clips the gradients; returns their norm before."""
        settings = self.recipe.optimizer
        norm: Any = self.accelerator.clip_grad_norm_(self.module.parameters(), settings.clip)
        value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        scaler = self.accelerator.scaler
        if scaler is not None and not math.isfinite(value) and scaler.get_scale() > 1.0:
            return value  # float16's loss scaling skips the step and lowers its scale
        self._check(packs, "gradient norm", value, settings.stop_norm)
        return value

    def _check(self, packs: list[Pack], what: str, value: float, bound: float = math.inf) -> None:
        if math.isfinite(value) and value <= bound:
            return
        names = [self.data.sample_id(index) for pack in packs for index in pack.samples]
        raise DivergedError(
            f"step {self.done + 1}: {what} {value:.4g}; its samples: {', '.join(names)}; "
            "look at them, or lower optimizer.lr; the last checkpoint is kept"
        )

    def save(self) -> Path:
        """Writes the checkpoint of the steps done."""
        accelerator, output = self.accelerator, Path(self.recipe.output)
        folder = checkpoints.step_folder(output, self.done)
        if accelerator.is_main_process or sharded(accelerator):
            snapshot = self._snapshot()
            if accelerator.is_main_process:
                checkpoints.write_checkpoint(
                    output, snapshot, self.start.network, self.recipe, self.start.folder, self.base
                )
        accelerator.wait_for_everyone()
        return folder

    def finish(self) -> Path:
        """Writes `final/`: the model alone, adapters folded in."""
        output = Path(self.recipe.output)
        last = checkpoints.step_folder(output, self.done)
        final = output / "final"
        if self.accelerator.is_main_process:
            if uses_lora(self.recipe.trainable):
                merge(last, final)
            else:
                checkpoints.copy_model(last, final)
            self.say(f"final model: {final}")
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return final

    def _snapshot(self) -> Snapshot:
        network = self.accelerator.unwrap_model(self.module).network
        learned = dict(moving(network))
        named = learned if uses_lora(self.recipe.trainable) else network.state_dict()
        scaler = self.accelerator.scaler
        state = State(
            step=self.done,
            samples=self.samples,
            tokens=self.tokens,
            recipe=self.recipe.decisive(),
            data=self.data.fingerprints,
            ranks=self.accelerator.num_processes,
            scaler=None if scaler is None else scaler.state_dict(),
        )
        return Snapshot(
            {name: whole(tensor) for name, tensor in named.items()},
            frozenset(learned),
            optimizer_state(self.optimizer.optimizer, learned),
            state,
        )

    def _restore(self, folder: Path, state: State) -> None:
        network = self.accelerator.unwrap_model(self.module).network
        stored = checkpoints.read_weights(folder / checkpoints.OPTIMIZER)
        restore_optimizer(self.optimizer.optimizer, dict(moving(network)), stored)
        if self.accelerator.scaler is not None and state.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        self.done, self.samples, self.tokens = state.step, state.samples, state.tokens
        self.say(f"going on from {folder}")

    def _evaluate(self, folder: Path, log: TrainingLog) -> None:
        if self.accelerator.is_main_process:
            try:
                scores = evaluate(self.recipe, folder)
            except EvalkitError as error:  # a checkpoint can be evaluated later; the training is worth more
                logger.warning("step %d: evaluation failed, training goes on: %s", self.done, error)
            else:
                log.evaluation(self.done, scores)
                for line in score_lines(self.done, scores):
                    self.say(line)
        self.accelerator.wait_for_everyone()


def _restore_weights(start: Start, folder: Path, recipe: Recipe) -> None:
    """Weights of what learns, exactly; those of a float32 model were loaded with it."""
    name = checkpoints.ADAPTER_WEIGHTS if uses_lora(recipe.trainable) else checkpoints.MASTER_WEIGHTS
    if uses_lora(recipe.trainable) or recipe.precision != "float32":
        checkpoints.load_learned(start.network, checkpoints.read_weights(folder / name), folder / name)


def _store_frozen(start: Start, recipe: Recipe, accelerator: Accelerator) -> None:
    """Keeps what does not learn in the recipe's precision."""
    network, dtype = start.network, DTYPES[recipe.precision]
    store_frozen(network, dtype)
    slow = emulated(recipe.precision, accelerator.device)
    if sharded(accelerator) or slow:
        store_frozen(network, torch.float32)  # rounded all the same: a checkpoint holds the rounded values
    if slow:
        logger.warning("this CPU has no %s matrix instructions; products are taken in float32", dtype)
        store_frozen_layers(network, dtype)


def _silent(line: str) -> None:
    """Where messages of other ranks go."""
