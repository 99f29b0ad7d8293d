"""Tokenizer folders of the families, built by hand so that they are the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

IMAGE_MARKS = ("<img>", "</img>", "<IMG_CONTEXT>")
MARKUP = ("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
INTERNLM2_CONTROL = (
    "<|plugin|>",
    "<|interpreter|>",
    "<|action_end|>",
    "<|action_start|>",
    "<|im_end|>",
    "<|im_start|>",
)
PHI3_CONTROL = (
    "<|endoftext|>",
    "<|assistant|>",
    "<|placeholder1|>",
    "<|system|>",
    "<|end|>",
    "<|user|>",
)
_WORDS = (
    "the",
    "▁the",
    "▁cat",
    "▁a",
    "▁is",
    "you",
    "▁n",
    "'t",
    "▁.",
    "▁,",
    "▁!",
    "你好",
    "▁12",
    "▁▁",
    "What",
    "▁What",
)


def sentencepiece_model(dummy_prefix: bool) -> bytes:
    """A BPE model with byte fallback: single characters, a few words, and six unused pieces."""
    from sentencepiece import sentencepiece_model_pb2 as schema

    model = schema.ModelProto()
    model.trainer_spec.model_type = schema.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.bos_id, model.trainer_spec.eos_id, model.trainer_spec.unk_id = 1, 2, 0
    model.trainer_spec.pad_id = -1
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = dummy_prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    kinds = schema.ModelProto.SentencePiece

    def add(pieces: Iterable[str], kind: int, score: float = 0.0, step: float = 0.0) -> None:
        for i, piece in enumerate(pieces):
            model.pieces.add(piece=piece, type=kind, score=score - i * step)

    add(["<unk>"], kinds.UNKNOWN)
    add(["<s>", "</s>"], kinds.CONTROL)
    add([f"<0x{byte:02X}>" for byte in range(256)], kinds.BYTE)
    add([f"[UNUSED_TOKEN_{i}]" for i in range(6)], kinds.USER_DEFINED)
    merges = {word[:end] for word in _WORDS for end in range(2, len(word) + 1)}
    add(sorted(merges, key=lambda m: (len(m), m)), kinds.NORMAL, -1.0, 1.0)
    letters = sorted({*"▁abcdefghijklmnopqrstuvwxyzABCWH0123456789.,!?'<>|[]_/():-", *"你好。"})
    add(letters, kinds.NORMAL, -1000.0, 1.0)
    return bytes(model.SerializeToString())


def write_internlm2(folder: Path, dummy_prefix: bool = False) -> Path:
    """The 2B's files: control tokens lie on the unused pieces, image tokens behind the vocabulary."""
    model = sentencepiece_model(dummy_prefix)
    size = _size(model)
    added = {259 + i: _token(t) for i, t in enumerate(INTERNLM2_CONTROL)}
    added |= {i: _token(t) for i, t in enumerate(("<unk>", "<s>", "</s>"))}
    added |= {size + i: _token(t) for i, t in enumerate((*IMAGE_MARKS, *MARKUP))}
    registered = [*INTERNLM2_CONTROL, *IMAGE_MARKS, *MARKUP]
    settings = {
        "tokenizer_class": "InternLM2Tokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "pad_token": "</s>",
    }
    return _write(folder, model, settings, added, registered)


def write_phi3(
    folder: Path, dummy_prefix: bool = True, legacy: bool = False, registered: bool = False
) -> Path:
    """The 4B's files: control tokens behind the vocabulary that swallow the space after them."""
    model = sentencepiece_model(dummy_prefix)
    size = _size(model)
    added = {i: _token(t) for i, t in enumerate(("<unk>", "<s>", "</s>"))}
    for i, token in enumerate(PHI3_CONTROL):
        added[size + i] = _token(
            token, rstrip=token in ("<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
        )
    start = size + len(PHI3_CONTROL)
    added |= {start + i: _token(t) for i, t in enumerate((*IMAGE_MARKS, *MARKUP))}
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": legacy,
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    extra = [*(PHI3_CONTROL[1:] if registered else ()), *IMAGE_MARKS, *MARKUP]
    return _write(folder, model, settings, added, extra)


def write_qwen3(folder: Path) -> Path:
    """Files of InternVL3.5: as the 1B's, with think tags, which are not special, before the image marks."""
    return write_qwen2(folder, plain=("<think>", "</think>"))


def write_qwen2(folder: Path, plain: Iterable[str] = ()) -> Path:
    """The 1B's files: byte-level BPE with a handful of merges.

    Args:
        plain: added tokens before the image marks that are not special.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merges = ["t h", "th e", "Ġ the", "Ġ a", "Ġ c", "a t", "Ġc at", "i s", "Ġ is", "W h", "Wh at", "Ċ Ċ"]
    pieces = [*_byte_alphabet(), *("".join(m.split()) for m in merges)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *plain, *IMAGE_MARKS, *MARKUP)
    added = {len(vocabulary) + i: _token(t) for i, t in enumerate(names)}
    for token in added.values():
        token["special"] = token["content"] not in plain
    control = [token for token in names if token not in plain]
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "errors": "replace",
    }
    _write_json(folder, settings, added, list(control[1:]))
    return folder


def _write(
    folder: Path, model: bytes, settings: dict[str, Any], added: Mapping[int, Any], extra: list[str]
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model)
    base = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>"}
    _write_json(folder, {**base, "unk_token": "<unk>", **settings}, added, extra)
    return folder


def _write_json(folder: Path, settings: dict[str, Any], added: Mapping[int, Any], extra: list[str]) -> None:
    roles = {k: v for k, v in settings.items() if k.endswith("_token") and isinstance(v, str)}
    full = {
        **settings,
        "added_tokens_decoder": {str(i): token for i, token in sorted(added.items())},
        "additional_special_tokens": extra,
        "clean_up_tokenization_spaces": False,
    }
    files = {
        "tokenizer_config.json": full,
        "special_tokens_map.json": {**roles, "additional_special_tokens": extra},
        "added_tokens.json": {token["content"]: i for i, token in sorted(added.items()) if i > 2},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def _token(content: str, rstrip: bool = False) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": rstrip, "single_word": False, "special": True}
    return {"content": content, **flags}


def _size(model: bytes) -> int:
    from sentencepiece import SentencePieceProcessor

    return int(SentencePieceProcessor(model_proto=model).get_piece_size())


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}
    return [table[byte] for byte in range(256)]
