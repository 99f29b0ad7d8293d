"""The released `config.json` (model_type `internvl_chat`) as typed, frozen dataclasses."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mini_internvl.errors import ConfigError

FAMILIES = ("qwen2", "internlm2", "phi3")
"""`model_type` of the language models of the 1B, 2B and 4B."""

DEFAULT_TEMPLATES = {"qwen2": "Hermes-2", "internlm2": "internlm2-chat", "phi3": "phi3-chat"}


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
        dynamic_image_size: whether pictures are cut into tiles.
        use_thumbnail: whether a view of the whole picture follows its tiles.
        min_dynamic_patch: fewest tiles of a picture.
        max_dynamic_patch: most tiles of a picture, without the thumbnail.
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
        if self.family not in FAMILIES:
            raise ConfigError(
                f"llm_config: language model {self.family!r} is not one of the Mini-InternVL family "
                f"({', '.join(FAMILIES)})"
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
        """The language model's family: qwen2, internlm2 or phi3."""
        return str(self.llm.get("model_type"))

    @property
    def image_size(self) -> int:
        """Side of a tile in pixels."""
        return self.vision.image_size

    @property
    def num_image_token(self) -> int:
        """Visual tokens of one tile: (image_size / patch_size * downsample_ratio) squared."""
        return int(self.vision.grid * self.downsample_ratio) ** 2

    @property
    def context_length(self) -> int:
        """Positions the language model was made for (`max_position_embeddings`)."""
        return int(self.llm.get("max_position_embeddings", 32768))

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
        vision_raw = raw["vision_config"]
        names = VisionConfig.__dataclass_fields__
        vision = VisionConfig(**{k: v for k, v in vision_raw.items() if k in names and v is not None})
        if raw.get("force_image_size"):
            vision = replace(vision, image_size=int(raw["force_image_size"]))
        llm = copy.deepcopy(dict(raw["llm_config"]))
        llm.setdefault("model_type", _family_of(llm))
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

    @classmethod
    def read(cls, folder: str | Path) -> MiniInternVLConfig:
        """Reads `folder/config.json` in the released layout."""
        return cls.from_dict(read_json(Path(folder) / "config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """Parses one JSON object, with an error that names the file.

    Raises:
        ConfigError: the file is missing, is not JSON or is not an object.
    """
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; a checkpoint folder holds config.json") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(parsed, dict):
        raise ConfigError(f"{path}: holds a {type(parsed).__name__} where an object is due")
    return parsed


def _family_of(llm: Mapping[str, Any]) -> str:
    """The family named by `architectures` where `model_type` was left out."""
    architecture = str((llm.get("architectures") or [""])[0]).lower()
    return next((family for family in FAMILIES if architecture.startswith(family)), architecture)
