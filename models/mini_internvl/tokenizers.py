"""The three tokenizers from their published files, equal in ids and text to the reference's slow ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mini_internvl.config import read_json
from mini_internvl.errors import ConfigError, TokenizerError
from mini_internvl.prompts import IMAGE_CONTEXT, IMAGE_END, IMAGE_START, THINK_TAGS
from mini_internvl.sentencepieces import SentencePieceTokenizer
from mini_internvl.tokenizer_json import is_sentencepiece

FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
OTHER_FILES = ("generation_config.json", "preprocessor_config.json", "chat_template.jinja")

_KINDS = ("Qwen2Tokenizer", "InternLM2Tokenizer", "LlamaTokenizer")
_UNNAMED = ("", "PreTrainedTokenizer", "TokenizersBackend", "SentencePieceBackend")
"""Names of transformers' base classes, which say nothing of the tokenizer."""

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
            self.native: Any = Native.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the library raises many kinds on broken files
            raise TokenizerError(f"{folder}: the tokenizer files cannot be read ({error})") from error
        native = self.native
        _check_merges(folder, json.loads(native.backend_tokenizer.to_str()))
        added = native.added_tokens_decoder
        special = {str(token): int(i) for i, token in added.items() if token.special}
        special.update(zip(native.all_special_tokens, native.all_special_ids, strict=True))
        self.special_ids: Mapping[str, int] = special
        self.eos_id: int | None = native.eos_token_id
        self.pad_id: int | None = native.pad_token_id

    def __len__(self) -> int:
        return len(self.native)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.native.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        tags = {self.special_ids[tag]: tag for tag in THINK_TAGS if tag in self.special_ids}
        parts, start = list[str](), 0
        for place, token in enumerate(ids):
            if token in tags:
                parts += [self._plain(ids[start:place]), tags[token]]
                start = place + 1
        return "".join([*parts, self._plain(ids[start:])])

    def _plain(self, ids: Sequence[int]) -> str:
        text: str = self.native.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def token_id(self, token: str) -> int | None:
        found = self.native.get_vocab().get(token)
        return None if found is None else int(found)


def _check_merges(folder: Path, parsed: Mapping[str, Any]) -> None:
    """Refuses merges that are not those of the vocabulary: a cut list splits texts into other pieces.

    Raises:
        TokenizerError: a merge makes no piece, or more than a hundredth of the pieces are made by none.
    """
    model = parsed["model"]
    vocabulary = model["vocab"]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges") or ()]
    made = {"".join(pair) for pair in pairs}
    added = {token["content"] for token in parsed.get("added_tokens") or ()}
    known = made & vocabulary.keys()
    unmade = [piece for piece in vocabulary if len(piece) > 1 and piece not in made and piece not in added]
    if len(known) < len(made) or len(unmade) > len(vocabulary) / 100:
        raise TokenizerError(
            f"{folder}: the merges make {len(known)} pieces of the vocabulary, {len(unmade)} others are made "
            f"by none and {len(made) - len(known)} merges make no piece: merges and vocabulary are not of the"
            " same tokenizer, or cut; download the tokenizer files again"
        )


def read_tokenizer(folder: str | Path, base: str | Path | None = None) -> Tokenizer | None:
    """The tokenizer of a checkpoint folder; None where the folder has no tokenizer files.

    Nothing is taken from the hub and no code of the checkpoint is run.

    Args:
        folder: of the tokenizer files. base: whose config.json is meant, where that is another folder.

    Raises:
        TokenizerError: the files are broken, or the image tokens are not in them.
    """
    tokenizer = read_language_tokenizer(folder, base)
    if tokenizer is None:
        return None
    absent = [t for t in (IMAGE_START, IMAGE_CONTEXT, IMAGE_END) if tokenizer.token_id(t) is None]
    if absent:
        raise TokenizerError(
            f"{folder}: the tokenizer has no {', '.join(absent)}; it is not a Mini-InternVL's"
        )
    return tokenizer


def read_language_tokenizer(folder: str | Path, base: str | Path | None = None) -> Tokenizer | None:
    """`read_tokenizer` of a language model, which may know no images."""
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json", "vocab.json")):
        return None
    try:
        language = _language(folder if base is None else Path(base))
        kind, rows = _kind(folder, language), _rows(language)
    except ConfigError as error:
        raise TokenizerError(f"{folder}: the tokenizer files cannot be read ({error})") from error
    tokenizer: Tokenizer
    if kind == "Qwen2Tokenizer":
        tokenizer = Qwen2Tokenizer(folder)
    else:
        try:
            tokenizer = SentencePieceTokenizer.read(folder, internlm2=kind == "InternLM2Tokenizer", rows=rows)
        except TokenizerError:
            raise
        except Exception as error:  # sentencepiece raises many kinds on broken files
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            raise TokenizerError(f"{folder}: the tokenizer files cannot be read ({cause})") from error
    return tokenizer


def _kind(folder: Path, language: Mapping[str, Any]) -> str:
    """The class of the tokenizer: as tokenizer_config.json names it, or by its files where it names none.

    Raises:
        TokenizerError: the class is of another model, or the files are of another class.
        ConfigError: a file is no JSON.
    """
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    kind = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    pieces = (folder / "tokenizer.model").is_file() or not (folder / "vocab.json").is_file()
    if not (folder / "tokenizer.model").is_file() and (folder / "tokenizer.json").is_file():
        pieces = is_sentencepiece(folder)
    if kind in _UNNAMED:
        kind = "LlamaTokenizer" if pieces else "Qwen2Tokenizer"
    if kind not in _KINDS:
        raise TokenizerError(f"{folder}: tokenizer_class {kind!r} is not one of {', '.join(_KINDS)}")
    if pieces != (kind != "Qwen2Tokenizer"):
        found = "sentencepiece" if pieces else "byte-level"
        raise TokenizerError(
            f"{folder}: tokenizer_class is {kind} but the files hold a {found} vocabulary; "
            "put the published tokenizer files into the folder"
        )
    if kind == "LlamaTokenizer" and (_internlm2(language) or "InternLM2" in str(settings.get("auto_map"))):
        return "InternLM2Tokenizer"  # which transformers 5 saves as Llama's
    return kind


def _language(folder: Path) -> dict[str, Any]:
    """`llm_config`; in the native layout `text_config`; of a language model alone, all of config.json."""
    path = folder / "config.json"
    raw = read_json(path) if path.is_file() else {}
    found = raw.get("llm_config") or raw.get("text_config") or raw
    return found if isinstance(found, dict) else {}


def _internlm2(language: Mapping[str, Any]) -> bool:
    return language.get("model_type") in ("internlm2", "llama")


def _rows(language: Mapping[str, Any]) -> int | None:
    rows = language.get("vocab_size")
    return rows if isinstance(rows, int) else None


def control_ids(tokenizer: Tokenizer) -> set[int]:
    """Ids of the special tokens that steer a conversation, so that they may not be generated.

    Special tokens behind the image tokens were added by a fine-tuning (`<loc>`) and belong into its answers,
    as the grounding marks do.
    """
    marks = {tokenizer.token_id(token) for token in (IMAGE_START, IMAGE_CONTEXT, IMAGE_END)}
    last = max((i for i in marks if i is not None), default=len(tokenizer))
    return {i for token, i in tokenizer.special_ids.items() if token not in MARKUP and i <= last}


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Contents of a folder's tokenizer files by name."""
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}


def companion_files(folder: Path) -> dict[str, bytes]:
    """Contents of what stands beside a checkpoint's weights, by name.

    These are config.json, the tokenizer files and, from a released layout, the published Python files and the
    settings of generation and images, which other programs open a folder by. Nothing of it is executed.
    """
    names = ["config.json", *FILES, "conversation.py"]
    if _is_released(folder):
        names += [*OTHER_FILES, *sorted(path.name for path in folder.glob("[!.]*.py"))]
    paths = [folder / name for name in dict.fromkeys(names)]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def copy_companions(source: Path | Mapping[str, bytes], target: Path) -> None:
    """Writes the companion files of a folder, or from memory, byte for byte; not config.json."""
    if not isinstance(source, Mapping) and source.resolve() == target.resolve():
        return
    for name, content in (source if isinstance(source, Mapping) else companion_files(source)).items():
        if name != "config.json":
            (target / name).write_bytes(content)


def _is_released(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and read_json(path).get("model_type") == "internvl_chat"


def image_token_of(tokenizer: Tokenizer | None, given: int | None, configured: int | None) -> int | None:
    """The id of the image token: as given, else the tokenizer's, else of config.json."""
    if given is not None:
        return given
    return configured if tokenizer is None else tokenizer.token_id(IMAGE_CONTEXT)
