"""A training recipe: YAML with strict keys, as frozen dataclasses.

The paper's and the published scripts' settings stand in recipes/*.yaml; every field here has the published
default where there is one (protocol: InternVL's shell/mini_internvl/domain_adaptation scripts).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evalkit.errors import EvalkitError
from evalkit.pipeline.options import RunSettings
from mini_internvl.images import MAX_TILES
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.settings import check_bounds, plain, read_settings

Trainable = Literal["full", "frozen_vit", "lora", "lora_projector", "projector"]
Weighting = Literal["token", "sample", "square"]
Precision = Literal["bf16", "fp16", "float32"]

TINY = 1e-12
"""Least value of what must be above 0."""

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True)
class Data:
    """What is learned from.

    Attributes:
        meta: InternVL's meta JSON of the domain sets (data set name to root, annotation, repeat_time ...).
        general_meta: meta JSON of the general sets mixed in, or None.
        general_ratio: general samples for each domain sample (the paper's r: 0.25 DriveLM, 1 BDD-X, medical).
        general_share: in place of the ratio, the share of the general pool taken (0.2 remote sensing).
        max_tiles: most tiles of an image; a set's own max_dynamic_patch wins.
        max_tokens: samples longer than this are errors, never cut inside an image.
        skip_bad: count and list bad lines instead of stopping at the first.
    """

    meta: str
    general_meta: str | None = None
    general_ratio: float | None = None
    general_share: float | None = None
    max_tiles: int = 12
    max_tokens: int = 8192
    skip_bad: bool = False

    def __post_init__(self) -> None:
        check_bounds(
            self,
            general_ratio=(0.0, math.inf),
            general_share=(0.0, math.inf),
            max_tiles=(1, MAX_TILES),
            max_tokens=(1, math.inf),
        )


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters on the language model's linear layers (published: r 16, alpha 32, dropout 0.05)."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05

    def __post_init__(self) -> None:
        check_bounds(self, rank=(1, math.inf), alpha=(1, math.inf), dropout=(0.0, 1.0))


@dataclass(frozen=True, slots=True)
class Optimizer:
    """AdamW with cosine decay to `final_lr_ratio` of the peak after a linear warm-up.

    Attributes:
        clip: gradients of a larger norm are scaled down to it.
        warmup_ratio: share of all steps. warmup_steps: their number in its place.
        stop_norm: a gradient norm above it stops the run as diverged.
    """

    lr: float = 1e-5
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 1.0
    stop_norm: float = 10_000.0
    warmup_ratio: float = 0.03
    final_lr_ratio: float = 0.0
    warmup_steps: int | None = None

    def __post_init__(self) -> None:
        check_bounds(
            self,
            lr=(TINY, math.inf),
            weight_decay=(0.0, math.inf),
            betas=(0.0, 1.0 - TINY),
            eps=(0.0, math.inf),
            clip=(TINY, math.inf),
            stop_norm=(TINY, math.inf),
            warmup_ratio=(0.0, 1.0),
            final_lr_ratio=(0.0, 1.0),
            warmup_steps=(0, math.inf),
        )


@dataclass(frozen=True, slots=True)
class Packing:
    """Bounds of one pack: visual tiles and tokens; `enabled: false` makes every sample its own pack."""

    enabled: bool = True
    max_tiles: int = 48
    max_tokens: int = 16384

    def __post_init__(self) -> None:
        check_bounds(self, max_tiles=(1, math.inf), max_tokens=(1, math.inf))


@dataclass(frozen=True, slots=True)
class Steps:
    """How long and how large.

    Attributes:
        packs_per_step: packs of one optimizer step over all ranks and micro-steps.
        packs_per_micro_step: packs that one rank runs at once.
        max_steps: optimizer steps; None follows from `epochs`.
        epochs: passes over the mix where max_steps is None.
    """

    packs_per_step: int = 8
    packs_per_micro_step: int = 1
    max_steps: int | None = None
    epochs: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(
            self,
            packs_per_step=(1, math.inf),
            packs_per_micro_step=(1, math.inf),
            max_steps=(1, math.inf),
            epochs=(TINY, 1e9),
        )


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """When to save, and how many of the newest to keep."""

    every: int = 700
    keep: int = 3

    def __post_init__(self) -> None:
        check_bounds(self, every=(1, math.inf), keep=(1, math.inf))


@dataclass(frozen=True)
class Evaluation(RunSettings):
    """Tasks run by the harness during training, on every `every`-th step's checkpoint.

    The options of `evalkit run` (docs/options.md) are keys here as well.

    Attributes:
        runs: folder of run folders.
    """

    tasks: tuple[str, ...] = ()
    every: int = 0
    runs: str = "runs"

    def __post_init__(self) -> None:
        check_bounds(self, every=(0, math.inf), limit=(1, math.inf))
        try:
            self.check()
        except EvalkitError as error:
            raise RecipeError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training, whole.

    Attributes:
        name: of the run and of the saved model.
        model: start checkpoint: a name, a folder or a hub id.
        output: folder of checkpoints, log and plan.
        trainable: which parameters move.
        weighting: loss weight of a token in a sample of n trained tokens: 1, 1/n, or 1/sqrt(n).
        drop_path: stochastic depth of the vision encoder, rising linearly to this value.
        source: where the settings come from.
    """

    name: str
    model: str
    output: str
    data: Data
    trainable: Trainable = "full"
    lora: Lora = field(default_factory=Lora)
    optimizer: Optimizer = field(default_factory=Optimizer)
    packing: Packing = field(default_factory=Packing)
    steps: Steps = field(default_factory=Steps)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    evaluation: Evaluation = field(default_factory=Evaluation)
    weighting: Weighting = "square"
    precision: Precision = "bf16"
    gradient_checkpointing: bool = True
    drop_path: float = 0.1
    seed: int = 42
    source: str = ""

    def __post_init__(self) -> None:
        """Raises RecipeError for settings that contradict each other."""
        data = self.data
        if data.general_ratio is not None and data.general_share is not None:
            raise RecipeError("data: general_ratio and general_share exclude each other; keep one")
        if data.general_meta is None and (data.general_ratio or data.general_share):
            raise RecipeError("data: general_ratio needs general_meta, the meta file of the general sets")
        check_bounds(self, drop_path=(0.0, 0.99), seed=(0, math.inf))

    def decisive(self) -> dict[str, Any]:
        """The settings that change the weights, as plain JSON.

        Names, output paths, saving and evaluation do not; nor do the paths of the data, whose contents have
        a fingerprint of their own.
        """
        body = plain(self)
        for name in ("name", "output", "checkpoints", "evaluation", "source"):
            body.pop(name)
        for name in ("meta", "general_meta"):
            body["data"].pop(name)
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
    data = dataclasses.replace(recipe.data, meta=meta, general_meta=resolve(recipe.data.general_meta))
    return dataclasses.replace(recipe, data=data)
