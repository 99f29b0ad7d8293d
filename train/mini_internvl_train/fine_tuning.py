"""Fine-tuning on conversations: weighted cross entropy over packs that were planned ahead (`packing`).

A step's packs are dealt to ranks and micro-steps; its loss is normalised over all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mini_internvl_train import checkpoints
from mini_internvl_train.batches import Batch, BatchLoader, silent_batch
from mini_internvl_train.checkpoints import Resumed
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.evaluation import check_name, check_tasks, due, evaluate, is_evaluated, score_lines
from mini_internvl_train.log import Scores, Validated
from mini_internvl_train.loop import Loop, run
from mini_internvl_train.merge import merge
from mini_internvl_train.objective import Objective, Say, StepResult
from mini_internvl_train.optimizer import learning_rate, make_optimizer
from mini_internvl_train.packing import PackOrder, sample_weight
from mini_internvl_train.peft_format import write_peft
from mini_internvl_train.plan import memory_lines, parts_lines, plan_data
from mini_internvl_train.precision import DTYPES, emulated, store_frozen, store_frozen_layers
from mini_internvl_train.recipe import Recipe
from mini_internvl_train.sample_files import PlannedLines, changed_files, file_tensors
from mini_internvl_train.samples import TrainingSet, describe
from mini_internvl_train.selection import Selection, make_selection
from mini_internvl_train.sharding import accumulating
from mini_internvl_train.start import Start, learned_parameters, load_start, prepare, uses_lora
from mini_internvl_train.step import TrainingStep
from mini_internvl_train.validation import HeldOut, validation_loss

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


def train(recipe: Recipe, *, say: Say = logger.info, quiet: bool = False, shared: Path | None = None) -> Path:
    """Fine-tunes, and continues from the newest checkpoint of the output folder if there is one.

    Args:
        recipe: everything.
        say: where tables and messages go, line by line (main process only).
        quiet: no progress bar.
        shared: folder in which trainings keep the scores of the base model for each other.

    Returns:
        The folder of the final model, in the released layout and the recipe's precision.

    Raises:
        TrainingError: bad data or recipe, a checkpoint that does not belong to them, or a loss that diverged.
        Stopped: SIGTERM or SIGINT; the step was finished and saved.
    """

    def make(accelerator: Accelerator, resumed: Resumed | None, say: Say) -> FineTuning:
        return FineTuning.begin(recipe, accelerator, resumed, say, shared)

    return run(recipe, make, say=say, quiet=quiet)


@dataclass
class FineTuning(Objective):
    """The network with its loss on conversations.

    Attributes:
        samples: the training set. order: its packs by step.
        base: the start checkpoint and the SHA-256 of its weights, to which adapters belong.
        left_out: samples that were damaged in any step so far.
        shared: as of `train`.
    """

    recipe: Recipe
    start: Start
    samples: TrainingSet
    order: PackOrder
    loader: BatchLoader
    base: Mapping[str, str]
    say: Say
    selection: Selection | None = None
    changes: Sequence[str] = ()
    left_out: Sequence[int] = ()
    shared: Path | None = None

    def __post_init__(self) -> None:
        self.step = TrainingStep(self.start.network, len(self.samples.set_names))
        self.total_steps = self.order.total_steps
        self.data = self.samples.fingerprints
        self.held_out = HeldOut(self.samples, self.recipe)

    @classmethod
    def begin(
        cls,
        recipe: Recipe,
        accelerator: Accelerator,
        resumed: Resumed | None,
        say: Say,
        shared: Path | None,
    ) -> FineTuning:
        """Loads everything, with the weights of a checkpoint if there is one."""
        adapter = uses_lora(recipe.trainable)
        if accelerator.is_main_process:
            check_tasks(recipe.evaluation)
            check_name(recipe)
        start = load_start(recipe, resumed.folder if resumed and not adapter else None)
        samples, order = plan_data(recipe, start, PlannedLines(resumed.folder) if resumed else None)
        selection = make_selection(recipe.validation, recipe.evaluation, samples.held_fingerprint)
        changes, left_out = list[str](), sorted(samples.damaged)
        if resumed:
            resumed.check(recipe.decisive(), samples.fingerprints, order.total_steps)
            changes, left_out = changed_files(resumed, samples, order)
        base = {"model": recipe.model, "fingerprint": start.network.fingerprint if adapter else ""}
        prepare(start.network, recipe)
        if resumed:
            _restore_weights(start, resumed.folder, recipe)
        _store_frozen(start, recipe, accelerator)
        say(describe(samples.lengths))
        for line in (
            *samples.kept,
            *parts_lines(start.network),
            *memory_lines(start.network, recipe, order, samples.lengths),
        ):
            say(line)
        start.network.train()
        ranks = (accelerator.process_index, accelerator.num_processes)
        loader = BatchLoader(samples, order, recipe, start.tiling, start.pad_id, *ranks)
        return cls(recipe, start, samples, order, loader, base, say, selection, changes, left_out, shared)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW over what learns."""
        layers = self.start.network.config.vision.num_hidden_layers
        optimizer = make_optimizer(self.step, self.recipe.optimizer, self.recipe.parts, layers)
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]
        return [optimizer]

    def rates(self, step: int) -> Sequence[float]:
        """The schedule's rate for the peak of each group."""
        return [learning_rate(step, self.total_steps, self.recipe.optimizer, peak) for peak in self.peaks]

    def batches(self, first: int) -> Generator[Batch | TrainingDataError, None, None]:
        """Micro-batches, in order."""
        return self.loader.batches(first, self.total_steps)

    def backward(self, loop: Loop, batches: Iterator[Batch | TrainingDataError]) -> StepResult:
        """Gradients of all micro-steps."""
        accelerator, packs = loop.accelerator, self.order.step(loop.done)
        denominator = self.order.denominator(packs)
        micro_steps = self.loader.micro_steps(packs)
        total = torch.zeros((), device=accelerator.device)
        step: Any = accelerator.unwrap_model(loop.module)
        shares = torch.zeros(len(self.samples.set_names), device=accelerator.device)
        damage: str | None = None
        for micro in range(micro_steps):
            found = next(batches)
            if isinstance(found, TrainingDataError):  # the other ranks wait in this step's passes
                damage, found = damage or str(found), silent_batch(self.start.pad_id)
            batch = found.to(accelerator.device)
            last = micro == micro_steps - 1
            with accumulating(accelerator, loop.module, last=last):
                loss = loop.forward(batch, denominator)
                accelerator.backward(loss * accelerator.num_processes)  # gradients are averaged over ranks
            total += loss.detach()
            shares += step.shares
        indices = [index for pack in packs for index in pack.samples]
        tokens = sum(self.samples.lengths[index].tokens for index in indices)
        epoch = packs[0].epoch if packs else 0
        return StepResult(total, epoch, len(indices), tokens, shares, damage)

    def losses(self, step: int, details: Sequence[float]) -> Mapping[str, float]:
        """The mean loss of each data set that has samples in a step, weighted as over all."""
        packs = self.order.step(step)
        weights = [0.0] * len(details)
        for index in (index for pack in packs for index in pack.samples):
            trained = self.samples.lengths[index].trained
            weights[self.samples.owner(index)] += sample_weight(trained, self.recipe.weighting)
        whole = self.order.denominator(packs)
        return {
            name: share * whole / weight
            for name, share, weight in zip(self.samples.set_names, details, weights, strict=True)
            if weight
        }

    def validates(self, step: int) -> bool:
        """Before the first step, every so many, and after the last."""
        every = self.recipe.validation.every or self.recipe.checkpoints.every
        return bool(self.held_out.names) and (step == self.total_steps or step % every == 0)

    def validate(self, loop: Loop) -> Validated:
        """The loss of the held-out samples by data set."""
        return validation_loss(loop, self.loader, self.held_out)

    def files(self, done: int) -> Mapping[str, Tensor]:
        """Sizes of the images' files, and which samples were damaged."""
        return file_tensors(self.samples, self.left_out)

    def sample_names(self, step: int) -> Sequence[str]:
        """`<data set>/<id>` of each sample."""
        return [self.samples.sample_id(index) for pack in self.order.step(step) for index in pack.samples]

    def named(self, step: nn.Module) -> nn.Module:
        """The network, whose names are those of a released checkpoint."""
        network: Any = step.network
        assert isinstance(network, nn.Module)
        return network

    def saved(self, network: nn.Module) -> Mapping[str, Tensor]:
        """Adapters alone, or the whole model."""
        if uses_lora(self.recipe.trainable):
            return dict(learned_parameters(network))
        return network.state_dict()

    def write_model(self, folder: Path, weights: Mapping[str, Tensor]) -> bool:
        """The model in the released layout with its tokenizer files, or the adapter in both formats."""
        from mini_internvl import save_checkpoint

        recipe = self.recipe
        if uses_lora(recipe.trainable):
            learned = {name: weights[name] for name in sorted(weights)}
            checkpoints.save_tensors(learned, folder / checkpoints.ADAPTER_WEIGHTS)
            checkpoints.write_json(
                folder / checkpoints.ADAPTER_SETTINGS,
                {
                    "base": self.base,
                    "lora": asdict(recipe.lora),
                    "trainable": recipe.trainable,
                    "encoder_layers": recipe.parts.encoder_layers,
                    "max_tiles": recipe.data.max_tiles,
                    "precision": recipe.precision,
                },
            )
            network = self.start.network
            write_peft(folder, learned, network.config, recipe.lora, self.base, native=self.start.native)
            return True
        save_checkpoint(
            self.start.network,
            folder,
            state=weights,
            tokenizer_from=self.start.files,
            dtype=DTYPES[recipe.precision],
        )
        return recipe.precision == "float32"

    def evaluates(self, step: int) -> bool:
        """By the recipe's `evaluation`."""
        return due(self.recipe.evaluation, step, self.total_steps)

    def lacks_scores(self, step: int) -> bool:
        """Whether the recipe's tasks were not run on it."""
        return bool(self.recipe.evaluation.tasks) and not is_evaluated(self.recipe, step)

    def evaluate(self, folder: Path, details: Sequence[float]) -> Scores:
        """Scores of the recipe's tasks, by the harness."""
        scores = evaluate(self.recipe, folder, self.shared)
        for line in score_lines(checkpoints.step_of(folder), scores):
            self.say(line)
        return scores

    def finish(self, checkpoint: Path, final: Path) -> None:
        """The model alone, adapters folded in."""
        if uses_lora(self.recipe.trainable):
            merge(checkpoint, final)
        else:
            checkpoints.copy_model(checkpoint, final)


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
    if slow:
        store_frozen(network, torch.float32)  # rounded all the same: a checkpoint holds the rounded values
    if slow:
        logger.warning("this CPU has no %s matrix instructions; products are taken in float32", dtype)
        store_frozen_layers(network, dtype)
