"""SentencePiece tokenizers of the 2B (InternLM2) and the 4B (Llama's, as Phi-3 uses it).

A restatement of the slow tokenizers the checkpoints were trained and evaluated with (transformers 4.37): the
text is split at added tokens first, longest first, and only the parts between go to sentencepiece. Its fast
and its present versions give other ids for texts that begin with a space or with a control token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mini_internvl.config import read_json
from mini_internvl.errors import TokenizerError
from mini_internvl.prompts import THINK_TAGS
from mini_internvl.tokenizer_json import read_vocabulary

SPACE = "▁"
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_PHI3_RSTRIP = ("<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
_CLEAN_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


@dataclass(frozen=True)
class AddedToken:
    """A token that is never split: its text, and whether it removes white space next to it."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    special: bool = True


@dataclass(frozen=True)
class Piece:
    """A piece of a sentencepiece model: whether merges make it, and whether it is matched as a whole."""

    text: str
    score: float
    mergeable: bool
    user_defined: bool


class SentencePieceTokenizer:
    """One class for both: `legacy`, the beginning token and the clean-up of decoded text are settings.

    Args:
        model: the contents of `tokenizer.model`.
        added: added tokens by id, the special tokens of the base vocabulary among them.
        roles: special tokens by role (`bos_token` …).
        special: texts of the registered special tokens, which decoding leaves out; an added token that is
            only flagged special (Phi-3's `<|system|>`) is not among them.
        internlm2: InternLM2's class, else Llama's.
        add_bos: whether `encode` puts the beginning token in front.
        legacy: Llama's behaviour before transformers 4.31 around control tokens and spaces.
        clean_up: remove spaces before punctuation and contractions in decoded text.
    """

    def __init__(
        self,
        model: bytes,
        added: Mapping[int, AddedToken],
        roles: Mapping[str, str],
        special: frozenset[str],
        *,
        internlm2: bool,
        add_bos: bool = True,
        legacy: bool = True,
        clean_up: bool = False,
    ) -> None:
        from sentencepiece import SentencePieceProcessor

        self.internlm2 = internlm2
        self.legacy = legacy or internlm2
        self.clean_up = clean_up
        self._sp: Any = SentencePieceProcessor(
            model_proto=model if self.legacy else _without_dummy_prefix(model)
        )
        self.added: Mapping[int, AddedToken] = dict(added)
        self._ids = {token.content: i for i, token in added.items()}
        self._special = special
        self._split = re.compile("|".join(re.escape(t) for t in sorted(self._ids, key=len, reverse=True)))
        self.unknown = roles.get("unk_token", "<unk>")
        self._unk_length = len(self._sp.encode(self.unknown))
        control = special | {token.content for token in added.values() if token.special}
        self.special_ids: Mapping[str, int] = {
            token: i for token in sorted(control) if (i := self.token_id(token)) is not None
        }
        self.eos_id = self._sp.eos_id() if internlm2 else self._role(roles, "eos_token")
        bos_id = self._sp.bos_id() if internlm2 else self._role(roles, "bos_token")
        self.bos_id: int | None = bos_id if add_bos else None
        self.pad_id = self._role(roles, "pad_token")
        self._bos = [] if self.bos_id is None else [self.bos_id]

    @classmethod
    def read(cls, folder: Path, *, internlm2: bool, rows: int | None = None) -> SentencePieceTokenizer:
        """From the files of a folder: `tokenizer.model`, or `tokenizer.json` where that is all.

        Args:
            folder: of the checkpoint.
            internlm2: InternLM2's class, else Llama's.
            rows: of the embedding, where they are known.

        Raises:
            TokenizerError: a file is broken.
        """
        try:
            settings = _optional(folder / "tokenizer_config.json")
            legacy = settings.get("legacy") is not False
            added = _added_tokens(settings, folder)
            if (folder / "tokenizer.model").is_file():
                model = (folder / "tokenizer.model").read_bytes()
            else:
                fast = read_vocabulary(folder, internlm2=internlm2, rows=rows)
                model = fast.model
                added = _tokens(fast.added)
                legacy = fast.prefix != "first" if settings.get("legacy") is None else legacy
            roles, extra = _special_tokens(settings, _optional(folder / "special_tokens_map.json"), internlm2)
            special = frozenset((*roles.values(), *extra))
            tokenizer = cls(
                model,
                _with_base(added, special, model),
                roles,
                special,
                internlm2=internlm2,
                add_bos=settings.get("add_bos_token") is not False,
                legacy=legacy,
                clean_up=bool(settings.get("clean_up_tokenization_spaces") or False),
            )
        except TokenizerError:
            raise
        except Exception as error:  # the files may hold anything
            raise TokenizerError(f"{folder}: the tokenizer files cannot be read ({error})") from error
        return tokenizer

    def __len__(self) -> int:
        return max(int(self._sp.get_piece_size()), max(self.added, default=-1) + 1)

    def pieces(self) -> list[Piece]:
        """The pieces of the model, by id."""
        from sentencepiece import sentencepiece_model_pb2 as schema

        kinds = schema.ModelProto.SentencePiece
        return [
            Piece(p.piece, p.score, p.type == kinds.NORMAL, p.type == kinds.USER_DEFINED)
            for p in schema.ModelProto.FromString(self._sp.serialized_model_proto()).pieces
        ]

    def token_id(self, token: str) -> int | None:
        """The id of a token of the vocabulary, or None."""
        if token in self._ids:
            return self._ids[token]
        found = int(self._sp.piece_to_id(token))
        return found if self._sp.id_to_piece(found) == token else None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, control tokens in it recognised, the beginning token in front."""
        return self._bos + [self._id(token) for token in self._tokenize(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out but for think tags."""
        parts: list[str] = []
        pieces: list[str] = []
        for i in ids:
            added = self.added.get(int(i))
            token = added.content if added is not None else str(self._sp.id_to_piece(int(i)))
            if token in self._special and token not in THINK_TAGS:
                continue
            if added is None:
                pieces.append(token)
                continue
            parts += [*filter(None, [self._join(pieces)]), token]
            pieces = []
        text = " ".join([*parts, self._join(pieces)] if pieces else parts)
        return _cleaned(text) if self.clean_up else text

    def _join(self, pieces: list[str]) -> str:
        """The text of pieces between added tokens."""
        if not self.internlm2 and pieces and pieces[0].startswith(SPACE):
            pieces = [pieces[0][1:], *pieces[1:]]
        text = str(self._sp.decode(pieces))
        return _cleaned(text) if self.internlm2 else text

    def _tokenize(self, text: str) -> list[str]:
        if self.legacy or not text:
            return self._split_and_tokenize(text)
        tokens = self._split_and_tokenize(SPACE + text.replace(SPACE, " "))
        if len(tokens) > 1 and tokens[0] == SPACE and tokens[1] in self._special:
            return tokens[1:]
        return tokens

    def _split_and_tokenize(self, text: str) -> list[str]:
        tokens: list[str] = []
        for part in self._strip_beside(self._parts(text)):
            if part in self._ids:
                tokens.append(part)
            elif part:
                tokens += self._pieces(part)
        return tokens

    def _parts(self, text: str) -> list[str]:
        """The text cut at added tokens, which are parts of their own."""
        parts: list[str] = []
        end = 0
        for match in self._split.finditer(text) if self._ids else ():
            parts += [text[end : match.start()], match.group()]
            end = match.end()
        return [part for part in (*parts, text[end:]) if part]

    def _strip_beside(self, parts: list[str]) -> list[str]:
        """White space that an added token swallows on its sides."""
        for i, part in enumerate(parts):
            if part not in self._ids:
                continue
            token = self.added[self._ids[part]]
            left = parts[i - 1] if i > 0 else ""
            right = parts[i + 1] if i + 1 < len(parts) else ""
            if token.rstrip and right:
                parts[i + 1] = right.lstrip()
            if token.lstrip and left:
                parts[i - 1] = left.rstrip()
            if token.single_word and left and not left.endswith(" "):
                parts[i - 1] += part
                parts[i] = ""
            elif token.single_word and right and not right.startswith(" "):
                parts[i + 1] = part + parts[i + 1]
                parts[i] = ""
        return parts

    def _pieces(self, text: str) -> list[str]:
        """Pieces of a text without added tokens."""
        if self.legacy or not text.startswith((SPACE, " ")):
            return list(self._sp.encode(text, out_type=str))
        # sentencepiece strips a leading space unless something stands before it
        pieces = list(self._sp.encode(self.unknown + text, out_type=str))
        return pieces[self._unk_length :] if len(pieces) >= self._unk_length else pieces

    def _id(self, token: str) -> int:
        return self._ids[token] if token in self._ids else int(self._sp.piece_to_id(token))

    def _role(self, roles: Mapping[str, str], role: str) -> int | None:
        return self.token_id(roles[role]) if role in roles else None


def _without_dummy_prefix(model: bytes) -> bytes:
    from sentencepiece import sentencepiece_model_pb2 as schema

    proto = schema.ModelProto.FromString(model)
    proto.normalizer_spec.add_dummy_prefix = False
    return bytes(proto.SerializeToString())


def _special_tokens(
    settings: Mapping[str, Any], special_map: Mapping[str, Any], internlm2: bool
) -> tuple[dict[str, str], list[str]]:
    """Special tokens by role, and the additional ones."""
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if internlm2:
        roles["pad_token"] = "</s>"
    extra: list[str] = []
    for source in (settings, special_map):
        roles.update({role: _content(source[role]) for role in _ROLES if source.get(role)})
        for name in ("additional_special_tokens", "extra_special_tokens"):  # the second since transformers 5
            more = source.get(name) or []
            extra += [_content(token) for token in (more.values() if isinstance(more, Mapping) else more)]
    return roles, extra


def _added_tokens(settings: Mapping[str, Any], folder: Path) -> dict[int, AddedToken]:
    """Added tokens by id, with their flags from tokenizer_config.json or else tokenizer.json.

    added_tokens.json holds no flags; they are then those of special_tokens_map.json, and Phi-3's own.
    """
    decoder = settings.get("added_tokens_decoder")
    if decoder:
        return _tokens(decoder)
    plain = _optional(folder / "added_tokens.json")
    flags: dict[str, Mapping[str, Any]] = {
        token: {"rstrip": True} for token in _PHI3_RSTRIP if "<|placeholder1|>" in plain
    }
    for known in _flagged(_optional(folder / "special_tokens_map.json")):
        flags[known["content"]] = known
    for known in _optional(folder / "tokenizer.json").get("added_tokens") or ():
        flags[known["content"]] = known
    return _tokens(
        {i: {"special": True, **flags.get(text, {}), "content": text} for text, i in plain.items()}
    )


def _tokens(stored: Mapping[Any, Mapping[str, Any]]) -> dict[int, AddedToken]:
    fields = AddedToken.__dataclass_fields__
    return {
        int(i): AddedToken(**{"special": False, **{k: v for k, v in token.items() if k in fields}})
        for i, token in stored.items()
    }


def _flagged(special_map: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tokens of special_tokens_map.json that are written with flags."""
    values = [v for value in special_map.values() for v in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, Mapping)]


def _with_base(added: dict[int, AddedToken], special: frozenset[str], model: bytes) -> dict[int, AddedToken]:
    """The added tokens and those special ones that are pieces of the base vocabulary."""
    from sentencepiece import SentencePieceProcessor

    sp: Any = SentencePieceProcessor(model_proto=model)
    known = {token.content for token in added.values()}
    base = dict(added)
    for token in sorted(special - known):
        found = int(sp.piece_to_id(token))
        if sp.id_to_piece(found) == token:
            base.setdefault(found, AddedToken(token))
    return base


def _content(token: Any) -> str:
    return str(token["content"]) if isinstance(token, Mapping) else str(token)


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _cleaned(text: str) -> str:
    """transformers' `clean_up_tokenization`: no space before punctuation and English contractions."""
    for mark in _CLEAN_UP:
        text = text.replace(mark, mark.strip())
    return text
