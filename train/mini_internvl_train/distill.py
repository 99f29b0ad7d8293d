"""Vision distillation (paper section 3.2): a small encoder learns the hidden states of a large one.

The paper gives the loss (negative cosine similarity between the hidden states of the last K layers) and the
input (448 pixels, no tiling). It leaves open K, which layers are paired, how different widths meet, and
whether the class token counts. Our choices: pairs from the end, (-1, -1) to (-K, -K); a bias-free linear map
from student to teacher width for each pair, thrown away afterwards, and none where the widths are equal;
patch tokens only; every layer and token of equal weight.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from evalkit.macos import is_attribute
from mini_internvl.decoding import MAX_PIXELS
from mini_internvl.images import open_image, tile_image
from mini_internvl_train import checkpoints
from mini_internvl_train.checkpoints import Resumed
from mini_internvl_train.errors import RecipeError, TrainingDataError, TrainingError
from mini_internvl_train.log import Scores
from mini_internvl_train.loop import Loop, run, seed_step
from mini_internvl_train.objective import Objective, Say, StepResult
from mini_internvl_train.optimizer import learning_rate, make_optimizer
from mini_internvl_train.packing import epoch_order
from mini_internvl_train.precision import DTYPES
from mini_internvl_train.recipe import Checkpoints, Optimizer, Precision, find_recipe
from mini_internvl_train.settings import Setting, check_bounds, plain, read_settings
from mini_internvl_train.tracking import check_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mini_internvl import ChatModel
    from mini_internvl.vision import InternViT

logger = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True)
class Distillation:
    """One distillation, whole."""

    name: Annotated[str, Setting("Of the run and of the saved model.")]
    teacher: Annotated[str, Setting("A Mini-InternVL or a bare InternViT: name, folder or Hub id.")]
    student: Annotated[str, Setting("A Mini-InternVL: name, folder or Hub id.")]
    output: Annotated[str, Setting("Folder of checkpoints and log.")]
    pictures: Annotated[str, Setting("Folder that is searched for images at any depth.")]
    layers: Annotated[int, Setting("K: how many last layers are matched.")] = 4
    optimizer: Optimizer = field(default_factory=Optimizer)
    batch: Annotated[int, Setting("Images of a step, over all ranks.", 1)] = 256
    steps: Annotated[int, Setting("Optimizer steps.", 1)] = 100_000
    max_pixels: Annotated[int, Setting("Most pixels of an image; larger ones are refused.", 1)] = MAX_PIXELS
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    precision: Annotated[Precision, Setting("Of the forward and backward pass.")] = "bf16"
    seed: Annotated[int, Setting("Of the order of images.", 0)] = 42
    log_to: Annotated[
        tuple[str, ...], Setting("Trackers of the training: wandb, mlflow, trackio, tensorboard.")
    ] = ()
    source: Annotated[str, Setting("Where the settings come from.")] = ""

    def __post_init__(self) -> None:
        check_trackers(self.log_to)
        check_bounds(self)

    def decisive(self) -> dict[str, Any]:
        """The settings that change the weights, as plain JSON."""
        body = plain(self)
        for name in ("name", "output", "pictures", "max_pixels", "checkpoints", "source", "log_to"):
            body.pop(name)
        return body


class DistillationStep(nn.Module):
    """Student, teacher and the maps between their widths.

    Raises:
        RecipeError: their patch grids differ, or one has fewer layers than are matched.
    """

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
            pixels: normalised, `[images, 3, size, size]`.

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


def distill(recipe: Distillation, *, say: Say = logger.info, quiet: bool = False) -> Path:
    """Distils, and continues from the newest checkpoint of the output folder if there is one.

    Returns:
        `final/`: the student's Mini-InternVL with the new encoder, in the released layout.

    Raises:
        TrainingError: no images, encoders that do not fit, a changed recipe, a loss that diverged.
        Stopped: SIGTERM or SIGINT; the step was finished and saved.
    """

    def make(accelerator: Accelerator, resumed: Resumed | None, say: Say) -> EncoderDistillation:
        ranks = (accelerator.process_index, accelerator.num_processes)
        return EncoderDistillation.begin(recipe, *ranks, resumed, say)

    return run(recipe, make, say=say, quiet=quiet)


@dataclass
class EncoderDistillation(Objective):
    """A student encoder that learns a teacher's hidden states.

    Attributes:
        network: the student's Mini-InternVL. step: student, teacher and the maps between them.
        images: of the folder, in order. data: their fingerprint.
    """

    recipe: Distillation
    network: ChatModel
    step: DistillationStep
    images: list[Path]
    data: Mapping[str, str]
    rank: int
    ranks: int

    def __post_init__(self) -> None:
        self.total_steps = self.recipe.steps

    @classmethod
    def begin(
        cls, recipe: Distillation, rank: int, ranks: int, resumed: Resumed | None, say: Say
    ) -> EncoderDistillation:
        """Loads everything, with the weights of a checkpoint if there is one."""
        import mini_internvl

        images = find_images(Path(recipe.pictures))
        network = mini_internvl.load(recipe.student, dtype="float32", device="cpu")
        teacher = load_vision(recipe.teacher, DTYPES[recipe.precision])
        network.vision_model.requires_grad_(True)
        network.vision_model.train()
        seed_step(recipe.seed, -1, 0)  # of the projections
        step = DistillationStep(network.vision_model, teacher, recipe.layers)
        say(
            f"{len(images):,} images; teacher {_size(teacher)}, student {_size(network.vision_model)} "
            f"parameters, {recipe.layers} layers matched"
        )
        data = {"pictures": _fingerprint(images, Path(recipe.pictures))}
        if resumed:
            resumed.check(recipe.decisive(), data, recipe.steps)
            path = resumed.folder / checkpoints.MASTER_WEIGHTS
            checkpoints.load_learned(step, checkpoints.read_weights(path), path)
        return cls(recipe, network, step, images, data, rank, ranks)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW over student and maps."""
        return [make_optimizer(self.step, self.recipe.optimizer)]

    def rates(self, step: int) -> Sequence[float]:
        """The schedule's rate, the same for all parameters."""
        return [learning_rate(step, self.recipe.steps, self.recipe.optimizer)]

    def batches(self, first: int) -> Generator[Tensor, None, None]:
        """This rank's images of every step, uint8 `[images, 3, size, size]`, decoded one step ahead."""

        def batch(step: int) -> Tensor:
            chosen = self._chosen(step)[self.rank :: self.ranks]
            size, most = self.network.config.image_size, self.recipe.max_pixels
            return torch.cat([_whole_image(path, size, most) for path in chosen])

        with ThreadPoolExecutor(1, thread_name_prefix="images") as thread:
            ahead = thread.submit(batch, first)
            for step in range(first, self.total_steps):
                ready = ahead.result()
                if step + 1 < self.total_steps:
                    ahead = thread.submit(batch, step + 1)
                yield ready

    def _chosen(self, step: int) -> list[Path]:
        count, each = len(self.images), self.recipe.batch
        places = range(step * each, (step + 1) * each)
        orders = {e: epoch_order(count, self.recipe.seed, e) for e in {p // count for p in places}}
        return [self.images[orders[p // count][p % count]] for p in places]

    def backward(self, loop: Loop, batches: Iterator[Tensor]) -> StepResult:
        """Gradients of one minus the mean cosine similarity."""
        from mini_internvl.model import normalise

        similar = loop.forward(normalise(next(batches).to(loop.accelerator.device)))
        loss = (1.0 - similar).mean()
        loop.accelerator.backward(loss)
        batch = self.recipe.batch
        tokens = batch * self.network.config.vision.grid**2
        epoch = loop.done * batch // len(self.images)
        return StepResult(loss.detach() / self.ranks, epoch, batch, tokens, similar.detach() / self.ranks)

    def write_model(self, folder: Path, weights: Mapping[str, Tensor]) -> bool:
        """The student's Mini-InternVL with the new encoder; the maps are not part of it."""
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
        return False

    def evaluates(self, step: int) -> bool:
        """At every regular checkpoint."""
        return step > 0 and (step == self.total_steps or step % self.recipe.checkpoints.every == 0)

    def evaluate(self, folder: Path, details: Sequence[float]) -> Scores:
        """Cosine similarity of each matched layer in the last step."""
        return {"cosine": {f"layer -{k + 1}": value for k, value in enumerate(details)}} if details else {}


def find_images(folder: Path) -> list[Path]:
    """Images of a folder at any depth, in the order of their paths.

    Raises:
        TrainingDataError: there are none.
    """
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    found = sorted(path for path in files if not is_attribute(path))
    if not found:
        raise TrainingDataError(f"{folder}: holds no images ({', '.join(SUFFIXES)})")
    return found


def _whole_image(path: Path, size: int, max_pixels: int) -> Tensor:
    return tile_image(open_image(path, max_pixels), tile_size=size, grid=(1, 1), thumbnail=False)


def _states(encoder: InternViT, pixels: Tensor) -> tuple[Tensor, ...]:
    states = encoder(pixels, output_hidden_states=True).hidden_states
    assert states is not None
    return tuple(states)


def _fingerprint(images: Sequence[Path], root: Path) -> str:
    import hashlib

    names = "\n".join(f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in images)
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def _size(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,}"


def load_vision(name: str, dtype: torch.dtype) -> InternViT:
    """An encoder, in evaluation mode, without gradients.

    Args:
        name: of a Mini-InternVL or of a bare InternViT (`OpenGVLab/InternViT-6B-448px-V1-5`): a short name, a
            folder or a hub id.
        dtype: of its weights.

    Raises:
        MiniInternVLError: it cannot be loaded. TrainingError: its weights do not fit its settings.
    """
    import mini_internvl
    from mini_internvl.config import read_json
    from mini_internvl.releases import locate

    folder = locate(name)
    raw = read_json(folder / "config.json")
    if raw.get("model_type") == "intern_vit_6b":
        encoder = _bare(folder, raw, dtype)
    else:
        encoder = mini_internvl.load(folder, dtype=dtype, device="cpu").vision_model
    return encoder.requires_grad_(False).eval()


def _bare(folder: Path, raw: dict[str, object], dtype: torch.dtype) -> InternViT:
    from mini_internvl.config import VisionConfig
    from mini_internvl.vision import InternViT
    from mini_internvl.weights import WeightReader, weight_files

    known = {item.name for item in fields(VisionConfig)}
    config = VisionConfig(**{k: v for k, v in raw.items() if k in known and v is not None})  # type: ignore[arg-type]
    reader = WeightReader(weight_files(folder))
    with torch.device("meta"):
        encoder = InternViT(config)
    shapes = {key: tensor.shape for key, tensor in encoder.state_dict().items()}
    stored = set(reader.names())
    if shapes.keys() != stored:
        odd = sorted(shapes.keys() ^ stored)
        raise TrainingError(f"{folder}: {len(odd)} weights do not fit config.json, first {odd[0]}")
    state = {key: reader.fetch(key).to(dtype) for key in shapes}
    wrong = [key for key, tensor in state.items() if tensor.shape != shapes[key]]
    if wrong:
        raise TrainingError(
            f"{folder}: {wrong[0]} is {list(state[wrong[0]].shape)}, not {list(shapes[wrong[0]])}"
        )
    encoder.load_state_dict(state, assign=True)
    return encoder
