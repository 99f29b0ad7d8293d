"""A training recipe: YAML with strict keys, as frozen dataclasses.

The paper's and the published scripts' settings stand in recipes/*.yaml; every field here has the published
default where there is one (protocol: InternVL's shell/mini_internvl/domain_adaptation scripts).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mini_internvl_train.errors import RecipeError

Trainable = Literal["full", "frozen_vit", "lora", "lora_projector", "projector"]
Weighting = Literal["token", "sample", "square"]
Precision = Literal["bf16", "fp16", "float32"]

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True)
class Data:
    """What is learned from.

    Attributes:
        meta: InternVL's meta JSON of the domain sets (data set name to root, annotation, repeat_time ...).
        general_meta: meta JSON of the general sets mixed in, or None.
        general_ratio: general samples for each domain sample (the paper's r: 0.25 DriveLM, 1 BDD-X, medical).
        general_share: in place of the ratio, the share of the general pool taken (0.2 remote sensing).
        max_tiles: most tiles of a picture; a set's own max_dynamic_patch wins.
        max_tokens: samples longer than this are errors, never cut inside a picture.
        skip_bad: count and list bad lines instead of stopping at the first.
    """

    meta: str
    general_meta: str | None = None
    general_ratio: float | None = None
    general_share: float | None = None
    max_tiles: int = 12
    max_tokens: int = 8192
    skip_bad: bool = False


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters on the language model's linear layers (published: r 16, alpha 32, dropout 0.05)."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05


@dataclass(frozen=True, slots=True)
class Optimizer:
    """AdamW with cosine decay to `final_lr_ratio` of the peak after a linear warm-up.

    Attributes:
        clip: gradients of a larger norm are scaled down to it.
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


@dataclass(frozen=True, slots=True)
class Packing:
    """Bounds of one pack: visual tiles and tokens; `enabled: false` makes every sample its own pack."""

    enabled: bool = True
    max_tiles: int = 48
    max_tokens: int = 16384


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


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """When to save, and how many of the newest to keep."""

    every: int = 700
    keep: int = 3


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Tasks run by the harness during training, on every `every`-th step's checkpoint."""

    tasks: tuple[str, ...] = ()
    every: int = 0
    limit: int | None = None
    split: str | None = None
    data_root: str | None = None
    runs: str = "runs"


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
        if self.steps.max_steps is None and self.steps.epochs <= 0:
            raise RecipeError("steps: give max_steps or epochs above 0")
        if self.steps.packs_per_step < 1 or self.steps.packs_per_micro_step < 1:
            raise RecipeError("steps: packs_per_step and packs_per_micro_step are at least 1")

    def decisive(self) -> dict[str, Any]:
        """The settings that change the weights, as plain JSON.

        Names, output paths, saving and evaluation do not; nor do the paths of the data, whose contents have
        a fingerprint of their own.
        """
        body = dataclasses.asdict(self)
        for name in ("name", "output", "checkpoints", "evaluation", "source"):
            body.pop(name)
        for name in ("meta", "general_meta"):
            body["data"].pop(name)
        plain: dict[str, Any] = json.loads(json.dumps(body))
        return plain

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
    path = _find(source)
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of settings")
    for key, text in (overrides or {}).items():
        _set(raw, key, yaml.safe_load(text))
    recipe = _build(Recipe, raw, str(path))
    assert isinstance(recipe, Recipe)
    return _resolve_paths(recipe, path.parent)


def packaged() -> dict[str, Path]:
    """The recipes of the package by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    known = packaged()
    if str(source) in known:
        return known[str(source)]
    close = difflib.get_close_matches(str(source), known, n=3, cutoff=0.4)
    hint = f" (nearest: {', '.join(close)})" if close else ""
    raise RecipeError(f"no recipe {str(source)!r}{hint}; packaged ones: {', '.join(known)}")


def _set(raw: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for name in parents:
        raw = raw.setdefault(name, {})
        if not isinstance(raw, dict):
            raise RecipeError(f"{dotted}: {name} is not a group of settings")
    raw[last] = value


def _build(kind: type[Any], raw: Any, where: str) -> Any:
    """An instance of the dataclass `kind` from parsed YAML, strict in keys and types."""
    if not isinstance(raw, dict):
        raise RecipeError(f"{where}: expected a group of settings, found {raw!r}")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    values = {}
    for key, value in raw.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            raise RecipeError(f"{where}: unknown key {key!r}; did you mean {close[0]!r}?")
        values[key] = _convert(hints[key], value, f"{where}: {key}")
    missing = [
        name
        for name, f in known.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{where}: {missing[0]!r} must be given")
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type[Any], hint), value, where)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        kinds = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(items):
            raise RecipeError(f"{where}: {len(kinds)} values are due, found {len(items)}")
        return tuple(_convert(kind, item, where) for kind, item in zip(kinds, items, strict=True))
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-5 as text
        except (TypeError, ValueError):
            pass
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise RecipeError(f"{where}: expected {hint.__name__}, found {value!r}")


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
