"""What makes two checkpoints the same: a hash over every file that decides an answer."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from mini_internvl.adapters import adapter_weights
from mini_internvl.weights import fingerprint, weight_files

#: Files beside the weights that decide answers: settings, tokenizer, template, preprocessing, adapters.
DECIDING = (
    "config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "additional_chat_templates/*",
    "conversation.py",
    "generation_config.json",
    "*processor_config.json",
    "adapter_config.json",
    "adapter*.safetensors",
)


def deciding_files(folder: Path) -> list[Path]:
    """Files of a checkpoint folder that decide answers, the weights left out, sorted by name.

    Hidden files, such as those of macOS, decide nothing.
    """
    found = {path for pattern in DECIDING for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not path.name.startswith("."))


def checkpoint_identity(folder: Path, weights: str) -> str:
    """SHA-256 over the weights' own hash, and names and contents of all files that decide answers.

    Args:
        folder: of the checkpoint or adapter.
        weights: what `weights.fingerprint` returns for its weight files; of an adapter, its base's identity.
    """
    digest = hashlib.sha256(f"weights {weights}\n".encode())
    for path in deciding_files(folder):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


class Identified:
    """A model that knows where its files are.

    Attributes:
        folder: where its files are.
        adapter: folder of the adapter that is merged into them, if there is one.
        untrained: whether the weights are random because there is no weights file.
    """

    folder: Path | None = None
    adapter: Path | None = None
    untrained: bool = False

    @cached_property
    def weights_fingerprint(self) -> str:
        """SHA-256 over the contents of the weight files; `untrained` where there are none."""
        if self.untrained or self.folder is None:
            return "untrained"
        adapter = [] if self.adapter is None else [adapter_weights(self.adapter)]
        return fingerprint([*weight_files(self.folder), *adapter])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every file that decides an answer; `untrained` where there are no weights."""
        if self.untrained or self.folder is None:
            return "untrained"
        base = checkpoint_identity(self.folder, self.weights_fingerprint)
        return base if self.adapter is None else checkpoint_identity(self.adapter, base)
