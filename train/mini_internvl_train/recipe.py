"""A training recipe: YAML with strict keys, as frozen dataclasses.

The paper's and the published scripts' settings stand in recipes/*.yaml; every field here has the published
default where there is one (protocol: InternVL's shell/mini_internvl/domain_adaptation scripts).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from evalkit.errors import EvalkitError
from evalkit.pipeline.options import RunSettings
from mini_internvl.decoding import MAX_PIXELS
from mini_internvl.images import MAX_TILES
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.settings import Setting, check_bounds, plain, read_settings
from mini_internvl_train.tracking import check_trackers

Trainable = Literal["full", "frozen_vit", "lora", "lora_projector", "projector"]
Weighting = Literal["token", "sample", "square"]
Precision = Literal["bf16", "fp16", "float32"]

TINY = 1e-12
"""Least value of what must be above 0."""

MAX_FRAMES = 128
"""Most frames of a video."""

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True)
class Data:
    """What is learned from."""

    meta: Annotated[str, Setting("InternVL's meta JSON of the domain sets (root, annotation ...).")]
    general_meta: Annotated[str | None, Setting("Meta JSON of the general sets that are mixed in.")] = None
    general_ratio: Annotated[
        float | None,
        Setting("General samples for each domain sample: the paper's r (0.25 DriveLM; 1 BDD-X, medical).", 0),
    ] = None
    general_share: Annotated[
        float | None, Setting("Share of the general pool, in place of the ratio (0.2 remote sensing).", 0)
    ] = None
    share: Annotated[
        float,
        Setting("Share of each domain set that is learned from; a smaller one is part of a larger.", TINY, 1),
    ] = 1.0
    max_tiles: Annotated[
        int, Setting("Most tiles of an image; a set's own `max_dynamic_patch` wins.", 1, MAX_TILES)
    ] = 12
    frames: Annotated[
        int,
        Setting("Frames of a video, evenly spread, a tile each; a set's own `frames` wins.", 1, MAX_FRAMES),
    ] = 8
    max_tokens: Annotated[
        int, Setting("Longer samples are errors; a sample is never cut inside an image.", 1)
    ] = 8192
    max_pixels: Annotated[int, Setting("Most pixels of an image; larger ones are refused.", 1)] = MAX_PIXELS
    skip_bad: Annotated[bool, Setting("Count and list bad lines instead of stopping at the first.")] = False
    validation: Annotated[
        float | str | None,
        Setting("Held out of training: a share of each data set (0.05), or a meta JSON of its own."),
    ] = None

    def __post_init__(self) -> None:
        check_bounds(self)
        share = self.validation
        if isinstance(share, float) and not 0 < share < 1:
            raise RecipeError(f"validation: {share!r} is neither a share above 0 and below 1 nor a meta file")


@dataclass(frozen=True, slots=True)
class Augment:
    """Random changes of images, drawn for each sample and epoch from the seed.

    `augment: false` of a meta entry leaves its set alone.
    """

    flip: Annotated[
        float,
        Setting("Share of samples whose images are mirrored; never with boxes or words such as left.", 0, 1),
    ] = 0.0
    colour: Annotated[
        float, Setting("Brightness, contrast and saturation change by up to this share.", 0, 0.9)
    ] = 0.0
    crop: Annotated[
        float,
        Setting("Up to this share of height and width is cut off; boxes stay whole and move along.", 0, 0.9),
    ] = 0.0

    def __post_init__(self) -> None:
        check_bounds(self)

    @property
    def changes(self) -> bool:
        """Whether any of them is asked for."""
        return bool(self.flip or self.colour or self.crop)


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters on the language model's linear layers, with the published defaults."""

    rank: Annotated[int, Setting("Rank of an adapter.", 1)] = 16
    alpha: Annotated[int, Setting("Scale: the adapter's output is multiplied by alpha / rank.", 1)] = 32
    dropout: Annotated[float, Setting("Dropout on the adapter's input.", 0, 1)] = 0.05
    targets: Annotated[
        tuple[str, ...], Setting("Names of the linear layers that are adapted, such as q_proj; none: all.")
    ] = ()
    encoder: Annotated[bool, Setting("Adapt the vision encoder's linear layers as well.")] = False
    rslora: Annotated[bool, Setting("Scale by alpha / sqrt(rank) instead (rsLoRA).")] = False
    dora: Annotated[bool, Setting("Learn each row's magnitude apart from its direction (DoRA).")] = False

    def __post_init__(self) -> None:
        check_bounds(self)

    def peft_settings(self) -> dict[str, Any]:
        """By PEFT's names; which modules are adapted is not among them."""
        return {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "use_dora": self.dora,
            "bias": "none",
        }


@dataclass(frozen=True, slots=True)
class Parts:
    """What one part of the network has in place of `optimizer`'s rate and decay."""

    encoder_lr: Annotated[float | None, Setting("Peak learning rate of the vision encoder.", TINY)] = None
    projector_lr: Annotated[float | None, Setting("Peak learning rate of the projector.", TINY)] = None
    language_lr: Annotated[float | None, Setting("Peak learning rate of the language model.", TINY)] = None
    encoder_weight_decay: Annotated[float | None, Setting("Of the vision encoder's matrices.", 0)] = None
    projector_weight_decay: Annotated[float | None, Setting("Of the projector's matrices.", 0)] = None
    language_weight_decay: Annotated[float | None, Setting("Of the language model's matrices.", 0)] = None
    encoder_layer_decay: Annotated[
        float,
        Setting("Rate of an encoder layer as a share of the next one's; embeddings come first.", TINY, 1),
    ] = 1.0
    encoder_layers: Annotated[
        int | None, Setting("Only so many last layers of the vision encoder learn.", 1)
    ] = None

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, slots=True)
class Optimizer:
    """AdamW with a linear warm-up, then cosine decay to `final_lr_ratio` of the peak."""

    lr: Annotated[float, Setting("Peak learning rate.", TINY)] = 1e-5
    weight_decay: Annotated[float, Setting("On matrices and kernels only.", 0)] = 0.01
    betas: Annotated[tuple[float, float], Setting("AdamW's decay rates.", 0, 1 - TINY)] = (0.9, 0.999)
    eps: Annotated[float, Setting("AdamW's epsilon.", 0)] = 1e-8
    clip: Annotated[float, Setting("Gradients of a larger norm are scaled down to it.", TINY)] = 1.0
    stop_norm: Annotated[float, Setting("A larger gradient norm stops the run as diverged.", TINY)] = 10_000.0
    warmup_ratio: Annotated[float, Setting("Share of all steps that warm up.", 0, 1)] = 0.03
    final_lr_ratio: Annotated[float, Setting("Last learning rate, as a share of the peak.", 0, 1)] = 0.0
    warmup_steps: Annotated[int | None, Setting("Number of warm-up steps, in place of the share.", 0)] = None

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, slots=True)
class Packing:
    """Bounds of one pack."""

    enabled: Annotated[bool, Setting("If not, every sample is a pack of its own.")] = True
    max_tiles: Annotated[int, Setting("Most tiles of a pack.", 1)] = 48
    max_tokens: Annotated[int, Setting("Most tokens of a pack.", 1)] = 16384

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, slots=True)
class Steps:
    """How long and how large."""

    packs_per_step: Annotated[
        int, Setting("Packs of one optimizer step, over all ranks and micro-steps.", 1)
    ] = 8
    packs_per_micro_step: Annotated[int, Setting("Packs that one rank runs at once.", 1)] = 1
    max_steps: Annotated[int | None, Setting("Optimizer steps, in place of `epochs`.", 1)] = None
    epochs: Annotated[float, Setting("Passes over the mix.", TINY, 1e9)] = 1.0

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """When to save, and how many of the newest to keep."""

    every: Annotated[int, Setting("Steps between checkpoints.", 1)] = 700
    keep: Annotated[int, Setting("How many of the newest are kept.", 1)] = 3

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, slots=True)
class Validation:
    """The loss on held-out samples (`data.validation`), and the best checkpoint."""

    every: Annotated[int, Setting("Steps between validation losses; 0: at every checkpoint.", 0)] = 0
    best: Annotated[
        str, Setting("What chooses the best checkpoint: `loss`, or TASK/METRIC of `evaluation`.")
    ] = ""
    patience: Annotated[
        int | None, Setting("Stop after so many values of `best` in a row that are no better.", 1)
    ] = None

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.best not in ("", "loss") and not all(self.best.partition("/")):
            raise RecipeError(f"best: {self.best!r} is neither loss nor TASK/METRIC")
        if self.patience is not None and not self.best:
            raise RecipeError("patience needs best, the value that decides: loss, or TASK/METRIC")


@dataclass(frozen=True)
class Evaluation(RunSettings):
    """Tasks that the harness runs on checkpoints during training.

    The options of `evalkit run` (docs/options.md) are settings here as well.
    """

    tasks: Annotated[tuple[str, ...], Setting("Tasks to run; none: no evaluation.")] = ()
    every: Annotated[int, Setting("Steps between evaluations; 0: after the last step only.", 0)] = 0
    runs: Annotated[str, Setting("Folder of run folders.")] = "runs"

    def __post_init__(self) -> None:
        check_bounds(self)
        try:
            self.check()
        except EvalkitError as error:
            raise RecipeError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training, whole."""

    name: Annotated[str, Setting("Of the run and of the saved model.")]
    model: Annotated[str, Setting("Checkpoint to start from: a name, a folder or a Hub id.")]
    output: Annotated[str, Setting("Folder of checkpoints, log and plan.")]
    data: Data
    augment: Augment = field(default_factory=Augment)
    tokens: Annotated[
        tuple[str, ...], Setting("Added to the vocabulary; their embeddings start at the mean of all others.")
    ] = ()
    trainable: Annotated[Trainable, Setting("Which parameters learn.")] = "full"
    lora: Lora = field(default_factory=Lora)
    optimizer: Optimizer = field(default_factory=Optimizer)
    parts: Parts = field(default_factory=Parts)
    packing: Packing = field(default_factory=Packing)
    steps: Steps = field(default_factory=Steps)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    validation: Validation = field(default_factory=Validation)
    evaluation: Evaluation = field(default_factory=Evaluation)
    weighting: Annotated[
        Weighting, Setting("Weight of a token in a sample of n trained tokens: 1, 1/n, or 1/sqrt(n).")
    ] = "square"
    precision: Annotated[Precision, Setting("Of the forward and backward pass.")] = "bf16"
    gradient_checkpointing: Annotated[bool, Setting("Recompute activations: less memory, more time.")] = True
    drop_path: Annotated[
        float, Setting("Stochastic depth of the vision encoder, rising linearly to this value.", 0, 0.99)
    ] = 0.1
    seed: Annotated[int, Setting("Of data order, augmentation, dropout and drop path.", 0)] = 42
    log_to: Annotated[
        tuple[str, ...], Setting("Trackers of the training: wandb, mlflow, trackio, tensorboard.")
    ] = ()
    source: Annotated[str, Setting("Where the settings come from.")] = ""

    def __post_init__(self) -> None:
        """Raises RecipeError for settings that contradict each other."""
        data = self.data
        check_trackers(self.log_to)
        if data.general_ratio is not None and data.general_share is not None:
            raise RecipeError("data: general_ratio and general_share exclude each other; keep one")
        if data.general_meta is None and (data.general_ratio or data.general_share):
            raise RecipeError("data: general_ratio needs general_meta, the meta file of the general sets")
        adapts = self.trainable in ("lora", "lora_projector")
        if not adapts and (self.lora.encoder or self.lora.targets or self.lora.rslora or self.lora.dora):
            raise RecipeError("lora: its settings need trainable: lora or lora_projector")
        if self.parts.encoder_layers and not (self.trainable == "full" or (adapts and self.lora.encoder)):
            raise RecipeError("parts.encoder_layers needs trainable: full, or adapters with lora.encoder")
        if self.tokens and self.trainable not in ("full", "frozen_vit"):
            raise RecipeError("tokens: their embeddings learn with trainable: full or frozen_vit alone")
        best = self.validation.best
        if data.validation is None and (self.validation.every or best == "loss"):
            raise RecipeError("validation needs data.validation, a share to hold out or a meta file")
        if best not in ("", "loss") and best.partition("/")[0] not in self.evaluation.tasks:
            raise RecipeError(f"validation.best: {best} needs its task among evaluation.tasks (--eval-task)")
        check_bounds(self)

    def decisive(self) -> dict[str, Any]:
        """The settings that change the weights, as plain JSON.

        Names, output paths, saving, validation and evaluation do not; nor do the paths of the data, whose
        contents have a fingerprint of their own, nor leaving out what is damaged.
        """
        body = plain(self)
        for name in ("name", "output", "checkpoints", "validation", "evaluation", "source", "log_to"):
            body.pop(name)
        for name in ("meta", "general_meta", "max_pixels", "skip_bad"):
            body["data"].pop(name)
        if not isinstance(self.data.validation, float):
            body["data"].pop("validation")
        return body

    def fingerprint(self) -> str:
        """12 hexadecimal digits over `decisive`."""
        body = self.decisive()
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]


def read_recipe(source: str | Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """A recipe from a file, or by the name of one in the package (`drivelm-2b`).

    Args:
        source: path of a YAML file, or a packaged recipe's name.
        overrides: dotted key to YAML text (`steps.max_steps` to `100`), applied last.

    Raises:
        RecipeError: no such recipe, broken YAML, an unknown key (with the nearest right one), a wrong type.
    """
    path = find_recipe(source)
    return _resolve_paths(read_settings(Recipe, path, overrides or {}), path.parent)


def packaged() -> dict[str, Path]:
    """The training recipes of the package by name; `distill.yaml` is of another kind."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml")) if path.stem != "distill"}


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe.

    Raises:
        RecipeError: there is none, naming the nearest packaged ones.
    """
    path = Path(source)
    if path.is_file():
        return path
    inside = RECIPES / f"{source}.yaml"
    if Path(source).name == str(source) and inside.is_file():
        return inside
    known = packaged()
    close = difflib.get_close_matches(str(source), known, n=3, cutoff=0.4)
    hint = f" (nearest: {', '.join(close)})" if close else ""
    raise RecipeError(f"no recipe {str(source)!r}{hint}; packaged ones: {', '.join(known)}")


def _resolve_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Meta files relative to the recipe's own folder, where they are there; otherwise to the current one."""

    def resolve(name: str | None) -> str | None:
        return (
            str(folder / name) if name and not Path(name).is_absolute() and (folder / name).exists() else name
        )

    meta = resolve(recipe.data.meta)
    assert meta is not None
    held_out = recipe.data.validation
    data = dataclasses.replace(
        recipe.data,
        meta=meta,
        general_meta=resolve(recipe.data.general_meta),
        validation=resolve(held_out) if isinstance(held_out, str) else held_out,
    )
    return dataclasses.replace(recipe, data=data)
