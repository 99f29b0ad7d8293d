"""Vision distillation (paper section 3.2): a small encoder learns the hidden states of a large one.

The paper gives the loss (negative cosine similarity between the hidden states of the last K layers) and the
input (448 pixels, no tiling). It leaves open K, which layers are paired, how different widths meet, and
whether the class token counts. Our choices: pairs from the end, (-1, -1) to (-K, -K); a bias-free linear map
from student to teacher width for each pair, thrown away afterwards, and none where the widths are equal;
patch tokens only; every layer and token of equal weight.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mini_internvl.images import open_image, tile_image
from mini_internvl_train import checkpoints
from mini_internvl_train.engine import Interruption, locked, make_accelerator
from mini_internvl_train.errors import DivergedError, RecipeError, Stopped, TrainingDataError
from mini_internvl_train.log import StepLog, TrainingLog
from mini_internvl_train.memory import peak_memory
from mini_internvl_train.optimizer import make_optimizer, optimizer_state, restore_optimizer, whole
from mini_internvl_train.packing import epoch_order
from mini_internvl_train.randomness import seed_step
from mini_internvl_train.recipe import Checkpoints, Optimizer, Precision, find_recipe
from mini_internvl_train.schedule import learning_rate
from mini_internvl_train.settings import check_bounds, plain, read_settings
from mini_internvl_train.start import DTYPES
from mini_internvl_train.teacher import load_vision
from mini_internvl_train.trainable import moving

if TYPE_CHECKING:
    from mini_internvl import ChatModel
    from mini_internvl.vision import InternViT

logger = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True)
class Distillation:
    """One distillation, whole.

    Attributes:
        teacher: a Mini-InternVL or a bare InternViT: name, folder or hub id. student: a Mini-InternVL.
        pictures: folder searched for pictures at any depth.
        layers: K, how many last layers are matched.
        batch: pictures of a step over all ranks. steps: optimizer steps.
    """

    name: str
    teacher: str
    student: str
    output: str
    pictures: str
    layers: int = 4
    optimizer: Optimizer = field(default_factory=Optimizer)
    batch: int = 256
    steps: int = 100_000
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    precision: Precision = "bf16"
    seed: int = 42
    source: str = ""

    def __post_init__(self) -> None:
        check_bounds(self, batch=(1, math.inf), steps=(1, math.inf), seed=(0, math.inf))

    def decisive(self) -> dict[str, Any]:
        """The settings that change the weights, as plain JSON."""
        body = plain(self)
        for name in ("name", "output", "pictures", "checkpoints", "source"):
            body.pop(name)
        return body


class DistillationStep(nn.Module):
    """Student, teacher and the maps between their widths.

    Raises:
        RecipeError: their patch grids differ, or one has fewer layers than are matched.
    """

    _no_split_modules = ("EncoderLayer",)

    def __init__(self, student: InternViT, teacher: InternViT, layers: int) -> None:
        super().__init__()
        if student.config.grid != teacher.config.grid:
            raise RecipeError(
                f"student and teacher see grids of {student.config.grid} and {teacher.config.grid} patches a "
                "side; they must be equal"
            )
        fewest = min(student.config.num_hidden_layers, teacher.config.num_hidden_layers)
        if not 1 <= layers <= fewest:
            raise RecipeError(f"layers: {layers} cannot be matched, an encoder has {fewest}")
        self.student = student
        self.teacher = teacher.requires_grad_(False).eval()
        ours, theirs = student.config.hidden_size, teacher.config.hidden_size
        self.projections = nn.ModuleList(
            nn.Identity() if ours == theirs else nn.Linear(ours, theirs, bias=False) for _ in range(layers)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Mean cosine similarity of each matched layer, from the last backwards.

        Args:
            pixels: normalised, `[pictures, 3, size, size]`.

        Returns:
            `[layers]`; the loss is the mean of one minus it.
        """
        with torch.no_grad():
            theirs = _states(self.teacher, pixels)
        ours = _states(self.student, pixels)
        similar = [
            functional.cosine_similarity(projection(our[:, 1:]).float(), their[:, 1:].float(), dim=-1).mean()
            for projection, our, their in zip(
                self.projections, reversed(ours), reversed(theirs), strict=False
            )
        ]
        return torch.stack(similar)


def read_distillation(source: str | Path, overrides: Mapping[str, str] | None = None) -> Distillation:
    """A distillation's recipe from a file, or the packaged `distill`."""
    return read_settings(Distillation, find_recipe(source), overrides or {})


def distill(recipe: Distillation, *, say: Callable[[str], None] = logger.info, quiet: bool = False) -> Path:
    """Distils, going on from the newest checkpoint of the output folder where there is one.

    Returns:
        `final/`: the student's Mini-InternVL with the new encoder, in the released layout.

    Raises:
        TrainingError: no pictures, encoders that do not fit, a changed recipe, a loss that diverged.
        Stopped: SIGTERM or SIGINT; the step was finished and saved.
    """
    output = Path(recipe.output)
    accelerator = make_accelerator(recipe.precision)
    with locked(output, accelerator), Interruption() as interruption:
        run = _Run.begin(recipe, accelerator, say if accelerator.is_main_process else lambda line: None)
        log = TrainingLog(output, recipe.steps, run.done, main=accelerator.is_main_process, quiet=quiet)
        try:
            run.steps(log, interruption)
        finally:
            log.close()
        return run.finish()


@dataclass
class _Run:
    recipe: Distillation
    accelerator: Any
    network: ChatModel
    pictures: list[Path]
    module: Any
    optimizer: Any
    say: Callable[[str], None]
    done: int = 0

    @classmethod
    def begin(cls, recipe: Distillation, accelerator: Any, say: Callable[[str], None]) -> _Run:
        import mini_internvl

        pictures = find_pictures(Path(recipe.pictures))
        network = mini_internvl.load(recipe.student, dtype="float32", device="cpu")
        teacher = load_vision(recipe.teacher, DTYPES[recipe.precision])
        network.vision_model.requires_grad_(True)
        network.vision_model.train()
        seed_step(recipe.seed, -1, 0)  # of the projections
        step = DistillationStep(network.vision_model, teacher, recipe.layers)
        say(
            f"{len(pictures):,} pictures; teacher {_size(teacher)}, student {_size(network.vision_model)} "
            f"parameters, {recipe.layers} layers matched"
        )
        found = checkpoints.checkpoints(Path(recipe.output))
        data = {"pictures": _fingerprint(pictures, Path(recipe.pictures))}
        state = checkpoints.read_state(found[-1]) if found else None
        if found and state:
            checkpoints.check_settings(found[-1], state, recipe.decisive(), data)
            checkpoints.load_learned(
                step,
                checkpoints.read_weights(found[-1] / checkpoints.MASTER_WEIGHTS),
                found[-1] / checkpoints.MASTER_WEIGHTS,
            )
        module, optimizer = accelerator.prepare(step, make_optimizer(step, recipe.optimizer))
        run = cls(recipe, accelerator, network, pictures, module, optimizer, say)
        if found and state:
            stored = checkpoints.read_weights(found[-1] / checkpoints.OPTIMIZER)
            restore_optimizer(optimizer.optimizer, dict(moving(accelerator.unwrap_model(module))), stored)
            run.done = state.step
            say(f"going on from {found[-1]}")
        return run

    def steps(self, log: TrainingLog, interruption: Interruption) -> None:
        batches = self._batches()
        with contextlib.closing(batches):
            while self.done < self.recipe.steps:
                told, similar = self._step(next(batches), log, interruption)
                last = self.done == self.recipe.steps
                if told or last or self.done % self.recipe.checkpoints.every == 0:
                    layers = {f"layer -{k + 1}": value for k, value in enumerate(similar)}
                    log.evaluation(self.done, {"cosine": layers})
                    log.flush()
                    self._save()
                if told and not last:
                    raise Stopped(
                        f"stopped after step {self.done} of {self.recipe.steps}; the same command goes on"
                    )

    def _step(self, pixels: Tensor, log: TrainingLog, interruption: Interruption) -> tuple[bool, list[float]]:
        began = time.monotonic()
        recipe, accelerator = self.recipe, self.accelerator
        seed_step(recipe.seed, self.done, accelerator.process_index)
        rate = learning_rate(self.done, recipe.steps, recipe.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        from mini_internvl.model import normalise

        similar = self.module(normalise(pixels.to(accelerator.device)))
        loss = (1.0 - similar).mean()
        accelerator.backward(loss)
        told, *cosines = accelerator.reduce(
            torch.cat([similar.new_tensor([float(interruption.told)]), similar.detach()]), "mean"
        ).tolist()
        value = 1.0 - math.fsum(cosines) / len(cosines)
        norm: Any = accelerator.clip_grad_norm_(self.module.parameters(), recipe.optimizer.clip)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise DivergedError(f"step {self.done + 1}: loss {value:.4g}, gradient norm {norm:.4g}")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1
        epoch = (self.done - 1) * recipe.batch // len(self.pictures)
        seconds = time.monotonic() - began
        tokens = recipe.batch * self.network.config.vision.grid**2
        log.step(StepLog(self.done, epoch, value, rate, norm, recipe.batch, tokens, seconds, peak_memory()))
        return told > 0, cosines

    def _batches(self) -> Generator[Tensor, None, None]:
        """This rank's pictures of every step that is left, decoded one step ahead."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        size = self.network.config.image_size

        def batch(step: int) -> Tensor:
            chosen = self._chosen(step)[rank::ranks]
            return torch.cat([_whole_picture(path, size) for path in chosen])

        with ThreadPoolExecutor(1, thread_name_prefix="pictures") as thread:
            ahead = thread.submit(batch, self.done)
            for step in range(self.done, self.recipe.steps):
                ready = ahead.result()
                if step + 1 < self.recipe.steps:
                    ahead = thread.submit(batch, step + 1)
                yield ready

    def _chosen(self, step: int) -> list[Path]:
        count, each = len(self.pictures), self.recipe.batch
        places = range(step * each, (step + 1) * each)
        orders = {e: epoch_order(count, self.recipe.seed, e) for e in {p // count for p in places}}
        return [self.pictures[orders[p // count][p % count]] for p in places]

    def _save(self) -> None:
        step = self.accelerator.unwrap_model(self.module)
        learned = dict(moving(step))
        weights = {name: whole(tensor) for name, tensor in learned.items()}
        optimizer = optimizer_state(self.optimizer.optimizer, learned)
        if self.accelerator.is_main_process:
            output = Path(self.recipe.output)
            folder = checkpoints.step_folder(output, self.done)
            temporary = output / f".{folder.name}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            (temporary / "training").mkdir(parents=True)
            self._write_student(temporary, weights)
            state = checkpoints.State(
                step=self.done,
                samples=self.done * self.recipe.batch,
                tokens=0,
                recipe=self.recipe.decisive(),
                data={"pictures": _fingerprint(self.pictures, Path(self.recipe.pictures))},
                ranks=self.accelerator.num_processes,
            )
            checkpoints.write_training(temporary, weights, optimizer, state)
            checkpoints.publish(temporary, folder)
            checkpoints.keep_newest(output, folder, self.recipe.checkpoints.keep)
        self.accelerator.wait_for_everyone()

    def _write_student(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        from mini_internvl import save_checkpoint

        encoder = {
            name.replace("student.", "vision_model.", 1): tensor
            for name, tensor in weights.items()
            if name.startswith("student.")
        }
        rest = {n: t for n, t in self.network.state_dict().items() if not n.startswith("vision_model.")}
        save_checkpoint(
            self.network,
            folder,
            state={**rest, **encoder},
            tokenizer_from=self.network.folder,
            dtype=DTYPES[self.recipe.precision],
        )

    def finish(self) -> Path:
        output = Path(self.recipe.output)
        if self.accelerator.is_main_process:
            checkpoints.copy_model(checkpoints.step_folder(output, self.done), output / "final")
            self.say(f"final model: {output / 'final'}")
        self.accelerator.wait_for_everyone()
        return output / "final"


def find_pictures(folder: Path) -> list[Path]:
    """Pictures of a folder at any depth, in the order of their paths.

    Raises:
        TrainingDataError: there are none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise TrainingDataError(f"{folder}: holds no pictures ({', '.join(SUFFIXES)})")
    return found


def _whole_picture(path: Path, size: int) -> Tensor:
    return tile_image(open_image(path), tile_size=size, grid=(1, 1), thumbnail=False)


def _states(encoder: InternViT, pixels: Tensor) -> tuple[Tensor, ...]:
    states = encoder(pixels, output_hidden_states=True).hidden_states
    assert states is not None
    return tuple(states)


def _fingerprint(pictures: Sequence[Path], root: Path) -> str:
    import hashlib

    names = "\n".join(f"{path.relative_to(root)} {path.stat().st_size}" for path in pictures)
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def _size(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,}"
