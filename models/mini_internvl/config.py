"""A checkpoint's `config.json` as typed, frozen dataclasses.

Two layouts are read: the released one (model_type `internvl_chat`) and transformers' native one (`internvl`,
of the `*-hf` repositories).
"""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from mini_internvl.config_keys import check_language, check_vision, check_whole
from mini_internvl.errors import ConfigError
from mini_internvl.prompts import DEFAULT_TEMPLATES, NATIVE_TEMPLATES

FAMILIES = ("qwen2", "internlm2", "phi3", "qwen3")
"""`model_type` of the language models: of the 1B, 2B and 4B, and of InternVL3.5."""

SIZES = {
    "num_hidden_layers": 1_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 10_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "vocab_size": 10_000_000,
    "max_position_embeddings": 1_000_000_000,
    "image_size": 10_000,
    "patch_size": 10_000,
    "num_channels": 100,
}
"""Largest values of a network's sizes."""

NUMBERS = (
    *("layer_norm_eps", "rms_norm_eps", "rope_theta", "initializer_factor", "initializer_range"),
    *("dropout", "attention_dropout", "drop_path_rate", "resid_pdrop", "embd_pdrop"),
    *("sliding_window", "max_window_layers"),
)
"""Values that are any number from 0 on."""

_NATIVE_FAMILIES = {"qwen2": "qwen2", "llama": "internlm2", "phi3": "phi3", "qwen3": "qwen3"}


@dataclass(frozen=True)
class VisionConfig:
    """Shapes of the InternViT encoder. The defaults are InternViT-300M-448px."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_channels: int = 3
    patch_size: int = 14
    image_size: int = 448
    layer_norm_eps: float = 1e-6
    hidden_act: str = "gelu"
    norm_type: str = "layer_norm"
    qkv_bias: bool = True
    qk_normalization: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path_rate: float = 0.0
    initializer_factor: float = 1.0
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        _check_sizes("vision_config", asdict(self))
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"vision_config: hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"vision_config: image_size {self.image_size} is not a multiple of "
                f"patch_size {self.patch_size}"
            )
        if self.norm_type not in ("layer_norm", "rms_norm"):
            raise ConfigError(f"vision_config: unknown norm_type {self.norm_type!r}; layer_norm or rms_norm")
        if self.hidden_act != "gelu":
            raise ConfigError(f"vision_config: unsupported hidden_act {self.hidden_act!r}; only gelu")

    @property
    def grid(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class MiniInternVLConfig:
    """One Mini-InternVL: the encoder, the language model and what joins them.

    Attributes:
        vision: shapes of the image encoder.
        llm: the language model's own published settings (`llm_config`), untouched.
        downsample_ratio: side ratio of pixel unshuffle; 0.5 keeps a quarter of the tokens.
        ps_version: `v2`, or `v1` (the transposed grid of the first release).
        select_layer: which encoder layer feeds the projector; -1 is the last.
        template: name of the conversation template.
        system_message: overrides the template's own system message where it is set.
        dynamic_image_size: whether images are cut into tiles.
        use_thumbnail: whether a view of the whole image follows its tiles.
        min_dynamic_patch: fewest tiles of an image.
        max_dynamic_patch: most tiles of an image, without the thumbnail.
        image_token_id: id of `<IMG_CONTEXT>` where the checkpoint states it; else the tokenizer knows.
    """

    vision: VisionConfig
    llm: Mapping[str, Any] = field(hash=False)
    downsample_ratio: float = 0.5
    ps_version: str = "v2"
    select_layer: int = -1
    template: str = "Hermes-2"
    system_message: str | None = None
    dynamic_image_size: bool = True
    use_thumbnail: bool = True
    min_dynamic_patch: int = 1
    max_dynamic_patch: int = 12
    image_token_id: int | None = None

    def __post_init__(self) -> None:
        _check_family(self.family)
        _check_sizes("the language model", self.llm)
        layers = self.vision.num_hidden_layers
        if type(self.select_layer) is not int or not -layers - 1 <= self.select_layer <= layers:
            raise ConfigError(
                f"config.json: select_layer is {self.select_layer!r:.40}, the encoder has {layers} layers"
            )
        if self.ps_version not in ("v1", "v2"):
            raise ConfigError(f"unknown ps_version {self.ps_version!r}; v1 or v2")
        if self.vision.grid * self.downsample_ratio != int(self.vision.grid * self.downsample_ratio):
            raise ConfigError(
                f"downsample_ratio {self.downsample_ratio} does not divide the {self.vision.grid}x"
                f"{self.vision.grid} grid of patches"
            )

    @property
    def family(self) -> str:
        """The language model's family, one of `FAMILIES`."""
        return str(self.llm.get("model_type"))

    @property
    def image_size(self) -> int:
        """Side of a tile in pixels."""
        return self.vision.image_size

    @property
    def num_image_token(self) -> int:
        """Visual tokens of one tile: (image_size / patch_size * downsample_ratio) squared."""
        return int(self.vision.grid * self.downsample_ratio) ** 2

    def to_dict(self) -> dict[str, Any]:
        """The released `config.json` layout, which `from_dict` reads back."""
        return {
            "model_type": "internvl_chat",
            "architectures": ["InternVLChatModel"],
            "vision_config": {"model_type": "intern_vit_6b", **asdict(self.vision)},
            "llm_config": copy.deepcopy(dict(self.llm)),
            "force_image_size": self.vision.image_size,
            "downsample_ratio": self.downsample_ratio,
            "ps_version": self.ps_version,
            "select_layer": self.select_layer,
            "template": self.template,
            "dynamic_image_size": self.dynamic_image_size,
            "use_thumbnail": self.use_thumbnail,
            "min_dynamic_patch": self.min_dynamic_patch,
            "max_dynamic_patch": self.max_dynamic_patch,
            **({} if self.system_message is None else {"system_message": self.system_message}),
            **({} if self.image_token_id is None else {"image_token_id": self.image_token_id}),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> MiniInternVLConfig:
        """Reads the released layout.

        Args:
            raw: the parsed `config.json` of an `internvl_chat` checkpoint.

        Raises:
            ConfigError: a part is missing or asks for something this package does not do.
        """
        kind = raw.get("model_type")
        if kind != "internvl_chat":
            raise ConfigError(f"config.json: model_type {kind!r} is not internvl_chat")
        for part in ("vision_config", "llm_config"):
            if not isinstance(raw.get(part), Mapping):
                raise ConfigError(f"config.json: no {part}; is this a Mini-InternVL checkpoint?")
        check_whole(raw)
        vision_raw = raw["vision_config"]
        check_vision(vision_raw)
        names = VisionConfig.__dataclass_fields__
        vision = VisionConfig(**{k: v for k, v in vision_raw.items() if k in names and v is not None})
        if raw.get("force_image_size"):
            vision = replace(vision, image_size=int(raw["force_image_size"]))
        llm = copy.deepcopy(dict(raw["llm_config"]))
        llm.setdefault("model_type", _family_of(llm))
        _check_family(llm["model_type"])
        _check_language_sizes("llm_config", llm)
        check_language(llm, str(llm["model_type"]))
        llm = _with_old_rope(llm)
        settings = {
            name: raw[name]
            for name in (
                "downsample_ratio",
                "ps_version",
                "select_layer",
                "system_message",
                "dynamic_image_size",
                "use_thumbnail",
                "min_dynamic_patch",
                "max_dynamic_patch",
                "image_token_id",
            )
            if raw.get(name) is not None
        }
        template = raw.get("template") or DEFAULT_TEMPLATES.get(str(llm["model_type"]), "")
        return cls(vision=vision, llm=llm, template=template, **settings)


def read_json(path: Path) -> dict[str, Any]:
    """Parses one JSON object, with an error that names the file.

    Raises:
        ConfigError: the file is missing, is not JSON or is not an object.
    """
    try:
        parsed = json.loads(
            path.read_text(encoding="utf-8-sig"), parse_constant=_no_number, object_pairs_hook=_unique
        )
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; a checkpoint folder holds config.json") from None
    except RecursionError:
        raise ConfigError(f"{path}: cannot be read as JSON (nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(parsed, dict):
        raise ConfigError(f"{path}: holds a {type(parsed).__name__} instead of an object")
    return parsed


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {twice!r} occurs twice")
    return made


def _check_sizes(where: str, settings: Mapping[str, Any]) -> None:
    """Refuses numbers that no network has, before one of that size is built. Raises ConfigError."""
    for name, most in SIZES.items():
        value = settings.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= most):
            shown = repr(value)[:40]
            raise ConfigError(
                f"config.json: {where}: {name} is {shown}, not a whole number from 1 to {most:,}"
            )
    for name in NUMBERS:
        value = settings.get(name)
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (plain and 0 <= value < math.inf):
            raise ConfigError(f"config.json: {where}: {name} is {value!r:.40}, not a number from 0 on")


def _check_language_sizes(part: str, settings: Mapping[str, Any]) -> None:
    """Sizes and numbers of a language model and its rotary positions, before anything is computed of them."""
    _check_sizes(part, settings)
    for name in ("rope_scaling", "rope_parameters"):
        if isinstance(settings.get(name), Mapping):
            _check_sizes(f"{part}.{name}", settings[name])


def _check_family(family: object) -> None:
    if family not in FAMILIES:
        raise ConfigError(
            f"llm_config: language model {family!r} is not one of the Mini-InternVL family "
            f"({', '.join(FAMILIES)})"
        )


def _family_of(llm: Mapping[str, Any]) -> str:
    """The family named by `architectures` where `model_type` was left out."""
    architecture = str((llm.get("architectures") or [""])[0]).lower()
    return next((family for family in FAMILIES if architecture.startswith(family)), architecture)


def config_from_native(raw: Mapping[str, Any]) -> MiniInternVLConfig:
    """The same settings in this package's terms. A Llama text model is taken for InternLM2.

    Raises:
        ConfigError: a part is missing or asks for something this package does not do.
    """
    for part in ("vision_config", "text_config"):
        if not isinstance(raw.get(part), Mapping):
            raise ConfigError(f"config.json: no {part}; is this a native InternVL checkpoint?")
    check_whole(raw)
    text = dict(raw["text_config"])
    if text.get("model_type") not in _NATIVE_FAMILIES:
        raise ConfigError(
            f"config.json: text model {text.get('model_type')!r} is not one of {', '.join(_NATIVE_FAMILIES)}"
        )
    strategy = raw.get("vision_feature_select_strategy", "default")
    if strategy != "default":
        raise ConfigError(f"config.json: vision_feature_select_strategy {strategy!r} is not supported")
    family = _NATIVE_FAMILIES[text["model_type"]]
    _check_language_sizes("text_config", text)
    check_language(text, family, "text_config")
    check_vision(raw["vision_config"])
    tied = raw.get("tie_word_embeddings", text.get("tie_word_embeddings", True))
    llm = {
        **_with_old_rope(text),
        "model_type": family,
        "tie_word_embeddings": tied,
        "bias": text.get("attention_bias", False),
    }
    return MiniInternVLConfig(
        vision=_vision(raw["vision_config"]),
        llm=llm,
        downsample_ratio=float(raw.get("downsample_ratio", 0.5)),
        select_layer=int(raw.get("vision_feature_layer", -1)),
        template=NATIVE_TEMPLATES[family],
        image_token_id=raw.get("image_token_id", 151667),
    )


def _vision(raw: Mapping[str, Any]) -> VisionConfig:
    if raw.get("use_mean_pooling", True) is not True:
        raise ConfigError("config.json: vision_config with a final layer norm is not supported")

    def side(name: str, default: int) -> int:
        value = raw.get(name, default)
        if isinstance(value, (list, tuple)):
            if len(set(value)) != 1:
                raise ConfigError(f"config.json: vision_config.{name} {value} is not square")
            value = value[0]
        return int(value)

    return VisionConfig(
        hidden_size=int(raw.get("hidden_size", 1024)),
        intermediate_size=int(raw.get("intermediate_size", 4096)),
        num_hidden_layers=int(raw.get("num_hidden_layers", 24)),
        num_attention_heads=int(raw.get("num_attention_heads", 16)),
        num_channels=int(raw.get("num_channels", 3)),
        patch_size=side("patch_size", 14),
        image_size=side("image_size", 448),
        layer_norm_eps=float(raw.get("layer_norm_eps", 1e-6)),
        hidden_act=str(raw.get("hidden_act", "gelu")),
        norm_type=str(raw.get("norm_type", "layer_norm")),
        qkv_bias=bool(raw.get("attention_bias", False)),
        qk_normalization=bool(raw.get("use_qk_norm", False)),
    )


def _with_old_rope(llm: dict[str, Any]) -> dict[str, Any]:
    """Settings with `rope_parameters` of transformers 5 as the released `rope_theta` and `rope_scaling`.

    Raises:
        ConfigError: `rope_scaling` is there as well and says something else.
    """
    parameters = llm.get("rope_parameters")
    if not parameters:
        return llm
    settings = {name: value for name, value in llm.items() if name != "rope_parameters"}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    settings["rope_theta"] = parameters.get("rope_theta", llm.get("rope_theta", 10000.0))
    left_out = ("rope_theta", "rope_type", "type", "partial_rotary_factor")
    rest = {k: v for k, v in parameters.items() if k not in left_out and v is not None}
    scaling = None if kind == "default" else {"type": kind, **rest}
    if llm.get("rope_scaling") and not _same_rope(llm["rope_scaling"], scaling):
        raise ConfigError(
            "config.json: rope_scaling and rope_parameters of the language model differ; remove the one that "
            "the weights were not trained with"
        )
    settings["rope_scaling"] = scaling
    if "original_max_position_embeddings" in rest:
        settings["original_max_position_embeddings"] = rest["original_max_position_embeddings"]
    return settings


def _same_rope(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> bool:
    """Whether two scalings say the same of what both of them say."""
    if new is None:
        return bool(old.get("rope_type", old.get("type")) == "default")
    kinds = {"longrope" if k == "su" else k for k in (old.get("rope_type", old.get("type")), new["type"])}
    return len(kinds) == 1 and all(old[k] == v for k, v in new.items() if k in old and k != "type")
