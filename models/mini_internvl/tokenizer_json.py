"""SentencePiece vocabularies out of a `tokenizer.json`, as transformers 5 saves the 2B and the 4B.

transformers turns a sentencepiece BPE model into a vocabulary with a list of merges and leaves the model file
out. Merges are listed in the order of the pieces they make, so the model can be built again: the same pieces
under the same ids, scored by the place of their first merge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mini_internvl.config import read_json
from mini_internvl.errors import TokenizerError

NAME = "tokenizer.json"
INTERNLM2_CONTROL = (
    "<|plugin|>",
    "<|interpreter|>",
    "<|action_end|>",
    "<|action_start|>",
    "<|im_end|>",
    "<|im_start|>",
)
"""InternLM2's control tokens in the order of their ids, which are those of its last six unused pieces."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_UNUSED = re.compile(r"\[UNUSED_TOKEN_\d+\]")


@dataclass(frozen=True)
class FastVocabulary:
    """What a `tokenizer.json` says.

    Attributes:
        model: a sentencepiece model of the same pieces, serialised.
        added: added tokens by id, each with its flags.
        prefix: how a space is put in front of a text: `always`, `first` (of a text only) or `never`.
    """

    model: bytes
    added: Mapping[int, Mapping[str, Any]]
    prefix: str


def is_sentencepiece(folder: Path) -> bool:
    """Whether the `tokenizer.json` of a folder was made of a sentencepiece model (bytes as `<0x0A>`)."""
    model = read_json(folder / NAME).get("model")
    return isinstance(model, Mapping) and bool(model.get("byte_fallback"))


def read_vocabulary(folder: Path, *, internlm2: bool, rows: int | None) -> FastVocabulary:
    """Reads `tokenizer.json`.

    Args:
        folder: of the checkpoint.
        internlm2: whether it is InternLM2's; transformers 5 moves its control tokens behind the vocabulary
            and writes Llama's prefix, which InternLM2's model has not.
        rows: of the embedding, which decide whether the moved ids hold; None where they are not known.

    Raises:
        TokenizerError: it is not a sentencepiece BPE.
    """
    path = folder / NAME
    parsed = read_json(path)
    try:
        model = parsed["model"]
        if model.get("type") != "BPE" or not model.get("byte_fallback"):
            raise TokenizerError(
                f"{path}: is no BPE of sentencepiece pieces, which tokenizer_class asks for; "
                "put the published tokenizer files into the folder"
            )
        added = {int(token["id"]): dict(token) for token in parsed.get("added_tokens") or ()}
        vocabulary = {str(piece): int(i) for piece, i in model["vocab"].items()}
        merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        _check_merges(path, vocabulary, merges, {str(token["content"]) for token in added.values()})
        prefix = _prefix(path, parsed)
    except TokenizerError:
        raise
    except Exception as error:
        raise TokenizerError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    if internlm2:
        prefix = "never" if prefix == "first" else prefix
        if rows is None or max((*added, *vocabulary.values())) >= rows:
            added = _on_unused_pieces(added, vocabulary)
    return FastVocabulary(_sentencepiece(vocabulary, merges, added, prefix), added, prefix)


def _check_merges(
    path: Path, vocabulary: Mapping[str, int], merges: list[tuple[str, ...]], added: set[str]
) -> None:
    """Refuses a list of merges that is not the vocabulary's; sentencepiece has some pieces without merges."""
    made = {"".join(pair) for pair in merges}
    pieces = [p for p in vocabulary if len(p) > 1 and p not in added and not _BYTE.fullmatch(p)]
    pieces = [p for p in pieces if not _UNUSED.fullmatch(p)]
    unmade = sum(piece not in made for piece in pieces)
    strange = len(made - vocabulary.keys())
    if strange or unmade > len(pieces) / 2:
        raise TokenizerError(
            f"{path}: {strange} merges make no piece of the vocabulary and {unmade} of {len(pieces)} pieces "
            "are made by none: cut, or of another tokenizer; download it again"
        )


def _prefix(path: Path, parsed: Mapping[str, Any]) -> str:
    """How the normalizer and the splitting put a space in front; anything else they do is refused."""
    found = "never"
    for step in _steps(parsed.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend":
            found = "always"
        elif step["type"] != "Replace":
            raise TokenizerError(f"{path}: normalizer {step['type']} is not supported")
    for step in _steps(parsed.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] != "Metaspace":
            raise TokenizerError(f"{path}: pre_tokenizer {step['type']} is not supported")
        default = "always" if step.get("add_prefix_space", True) else "never"
        found = str(step.get("prepend_scheme", default))
    return found


def _steps(stage: Mapping[str, Any] | None, parts: str) -> list[Mapping[str, Any]]:
    if stage is None:
        return []
    return list(stage[parts]) if stage["type"] == "Sequence" else [stage]


def _on_unused_pieces(
    added: Mapping[int, dict[str, Any]], vocabulary: Mapping[str, int]
) -> dict[int, dict[str, Any]]:
    """InternLM2's control tokens back on its last unused pieces, and the tokens behind them moved up."""
    unused = sorted(i for piece, i in vocabulary.items() if _UNUSED.fullmatch(piece))
    size = len(INTERNLM2_CONTROL)
    moved = {t["content"]: i for i, t in added.items() if t["content"] in INTERNLM2_CONTROL}
    if len(unused) < size or len(moved) < size or min(moved.values()) < len(vocabulary):
        return dict(added)
    home = dict(zip(INTERNLM2_CONTROL, unused[-size:], strict=True))
    return {
        home.get(token["content"], i - sum(other < i for other in moved.values())): token
        for i, token in added.items()
    }


def _sentencepiece(
    vocabulary: Mapping[str, int],
    merges: list[tuple[str, ...]],
    added: Mapping[int, Mapping[str, Any]],
    prefix: str,
) -> bytes:
    from sentencepiece import sentencepiece_model_pb2 as schema

    proto = schema.ModelProto()
    proto.trainer_spec.model_type = schema.TrainerSpec.BPE
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = prefix != "never"
    proto.normalizer_spec.remove_extra_whitespaces = False
    proto.normalizer_spec.escape_whitespaces = True
    unk, bos, eos = (vocabulary.get(piece, -1) for piece in ("<unk>", "<s>", "</s>"))
    proto.trainer_spec.unk_id, proto.trainer_spec.bos_id, proto.trainer_spec.eos_id = unk, bos, eos
    proto.trainer_spec.pad_id = -1
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    behind = {token["content"] for i, token in added.items() if vocabulary.get(token["content"], i) == i}
    pieces = {
        i: piece
        for piece, i in vocabulary.items()
        if piece not in behind or piece in ("<s>", "</s>", "<unk>")
    }
    kinds = schema.ModelProto.SentencePiece
    for i in range(max(pieces) + 1):
        piece = pieces.get(i)
        if piece is None:
            proto.pieces.add(piece=f"[absent {i}]", type=kinds.UNUSED, score=0.0)
            continue
        kind = kinds.NORMAL
        if i == unk:
            kind = kinds.UNKNOWN
        elif i in (bos, eos):
            kind = kinds.CONTROL
        elif _BYTE.fullmatch(piece):
            kind = kinds.BYTE
        elif len(piece) > 1 and piece not in ranks:
            kind = kinds.USER_DEFINED  # no merge makes it, so it is matched as a whole
        proto.pieces.add(piece=piece, type=kind, score=-float(ranks.get(piece, len(merges) + i)))
    return bytes(proto.SerializeToString())
