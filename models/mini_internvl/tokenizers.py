"""The three tokenizers from their published files, equal in ids and text to the reference's slow ones."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mini_internvl.errors import TokenizerError
from mini_internvl.prompts import IMAGE_CONTEXT, IMAGE_END, IMAGE_START
from mini_internvl.sentencepieces import SentencePieceTokenizer

FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
MARKUP = frozenset(("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"))
"""Special tokens that belong into grounding answers, so they may be generated."""


class Tokenizer(Protocol):
    """What the package needs of a tokenizer."""

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Ids of the special tokens, which decoding leaves out."""
        ...

    @property
    def eos_id(self) -> int | None:
        """Id of the language model's own end of text."""
        ...

    @property
    def pad_id(self) -> int | None:
        """Id of the padding token."""
        ...

    def __len__(self) -> int:
        """One more than the largest id."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text: control tokens are recognised, the beginning token, if any, comes first."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        ...

    def token_id(self, token: str) -> int | None:
        """The id of a token of the vocabulary, or None."""
        ...


class Qwen2Tokenizer:
    """Byte-level BPE of the 1B, by transformers' own class on local files."""

    def __init__(self, folder: Path) -> None:
        from transformers import Qwen2Tokenizer as Native

        try:
            self._native: Any = Native.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the library raises many kinds on broken files
            raise TokenizerError(f"{folder}: the tokenizer files cannot be read ({error})") from error
        native = self._native
        added = native.added_tokens_decoder
        special = {str(token): int(i) for i, token in added.items() if token.special}
        special.update(zip(native.all_special_tokens, native.all_special_ids, strict=True))
        self.special_ids: Mapping[str, int] = special
        self.eos_id: int | None = native.eos_token_id
        self.pad_id: int | None = native.pad_token_id

    def __len__(self) -> int:
        return len(self._native)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._native.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._native.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def token_id(self, token: str) -> int | None:
        found = self._native.get_vocab().get(token)
        return None if found is None else int(found)


def read_tokenizer(folder: str | Path) -> Tokenizer | None:
    """The tokenizer of a checkpoint folder; None where the folder has no tokenizer files.

    Nothing is taken from the hub and no code of the checkpoint is run.

    Raises:
        TokenizerError: the files are broken, or the image tokens are not in them.
    """
    folder = Path(folder)
    tokenizer: Tokenizer
    if (folder / "tokenizer.model").is_file():
        tokenizer = SentencePieceTokenizer.read(folder)
    elif (folder / "vocab.json").is_file() or (folder / "tokenizer.json").is_file():
        tokenizer = Qwen2Tokenizer(folder)
    else:
        return None
    absent = [t for t in (IMAGE_START, IMAGE_CONTEXT, IMAGE_END) if tokenizer.token_id(t) is None]
    if absent:
        raise TokenizerError(
            f"{folder}: the tokenizer has no {', '.join(absent)}; it is not a Mini-InternVL's"
        )
    return tokenizer


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies the tokenizer files, and the published template, from one checkpoint folder to another."""
    for name in (*FILES, "conversation.py"):
        if (source / name).is_file() and source.resolve() != target.resolve():
            shutil.copyfile(source / name, target / name)


def image_token_of(tokenizer: Tokenizer | None, given: int | None, configured: int | None) -> int | None:
    """The id of the image token: as given, else the tokenizer's, else of config.json."""
    if given is not None:
        return given
    return configured if tokenizer is None else tokenizer.token_id(IMAGE_CONTEXT)
