"""Mini-InternVL: pocket multimodal models (arXiv 2410.16261), loaded, run and saved in plain PyTorch.

    import mini_internvl

    model = mini_internvl.load("OpenGVLab/InternVL2-2B")
    model.chat(["street.jpg"], "What is ahead?")

Importing this package imports neither torch nor transformers; the first use of a name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mini_internvl.batch_config import NETWORK_BATCHING, NetworkBatchConfig
from mini_internvl.errors import (
    CheckpointError,
    CompileError,
    ConfigError,
    DeviceError,
    ImageError,
    ImageTokenMismatch,
    MiniInternVLError,
    OutOfMemory,
    PromptError,
    TokenizerError,
)
from mini_internvl.releases import RELEASES, TINY, Release, find_release

if TYPE_CHECKING:
    from mini_internvl.chat import Answer, ChatModel, Prompt, Tiled
    from mini_internvl.checkpoint import initialise, read_config, read_network, save_checkpoint
    from mini_internvl.config import MiniInternVLConfig, VisionConfig
    from mini_internvl.generation import GenerationSettings
    from mini_internvl.images import choose_grid, open_image, tile_image, tile_images
    from mini_internvl.loading import load
    from mini_internvl.model import MiniInternVL
    from mini_internvl.tokenizers import Tokenizer, read_tokenizer

_LAZY = {
    "Answer": "chat",
    "ChatModel": "chat",
    "GenerationSettings": "generation",
    "MiniInternVL": "model",
    "MiniInternVLConfig": "config",
    "Prompt": "chat",
    "Tiled": "chat",
    "Tokenizer": "tokenizers",
    "VisionConfig": "config",
    "choose_grid": "images",
    "initialise": "checkpoint",
    "load": "loading",
    "open_image": "images",
    "read_config": "checkpoint",
    "read_network": "checkpoint",
    "read_tokenizer": "tokenizers",
    "save_checkpoint": "checkpoint",
    "tile_image": "images",
    "tile_images": "images",
}

__all__ = [
    "NETWORK_BATCHING",
    "RELEASES",
    "TINY",
    "Answer",
    "ChatModel",
    "CheckpointError",
    "CompileError",
    "ConfigError",
    "DeviceError",
    "GenerationSettings",
    "ImageError",
    "ImageTokenMismatch",
    "MiniInternVL",
    "MiniInternVLConfig",
    "MiniInternVLError",
    "NetworkBatchConfig",
    "OutOfMemory",
    "Prompt",
    "PromptError",
    "Release",
    "Tiled",
    "Tokenizer",
    "TokenizerError",
    "VisionConfig",
    "choose_grid",
    "find_release",
    "initialise",
    "load",
    "open_image",
    "read_config",
    "read_network",
    "read_tokenizer",
    "save_checkpoint",
    "tile_image",
    "tile_images",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
