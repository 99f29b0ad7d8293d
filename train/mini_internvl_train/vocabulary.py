"""Tokens added to a tokenizer's files, and rows for them in the tables of embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def with_tokens(
    files: Mapping[str, bytes], tokens: Sequence[str], first: int, *, special: bool = True
) -> dict[str, bytes]:
    """Tokenizer files to which tokens were added.

    Args:
        files: contents by name, as they stand beside a checkpoint's weights.
        tokens: none of them in the vocabulary. first: the id of the first; the others follow.
        special: whether decoding may leave them out.

    Returns:
        All files, the changed ones rewritten.
    """
    ids = {token: first + place for place, token in enumerate(tokens)}
    flags = {**_FLAGS, "special": special}
    changed = dict(files)

    def rewrite(name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, ensure_ascii=False, indent=2)
        changed[name] = f"{text}\n".encode()

    settings = json.loads(files.get("tokenizer_config.json", b"{}"))
    decoder = settings.get("added_tokens_decoder")
    if decoder or "added_tokens.json" not in files:
        new = {str(i): {"content": token, **flags} for token, i in ids.items()}
        settings["added_tokens_decoder"] = {**(decoder or {}), **new}
    if special:
        settings["additional_special_tokens"] = _extended(settings, tokens)
    rewrite("tokenizer_config.json", settings)
    rewrite("added_tokens.json", {**json.loads(files.get("added_tokens.json", b"{}")), **ids})
    if special:
        roles = json.loads(files.get("special_tokens_map.json", b"{}"))
        rewrite("special_tokens_map.json", {**roles, "additional_special_tokens": _extended(roles, tokens)})
    if "tokenizer.json" in files:
        fast = json.loads(files["tokenizer.json"])
        added = [{"id": i, "content": token, **flags} for token, i in ids.items()]
        rewrite("tokenizer.json", {**fast, "added_tokens": [*(fast.get("added_tokens") or ()), *added]})
    return changed


def _extended(content: Mapping[str, Any], tokens: Sequence[str]) -> list[Any]:
    known = list(content.get("additional_special_tokens") or ())
    texts = [item.get("content") if isinstance(item, Mapping) else item for item in known]
    return [*known, *(token for token in tokens if token not in texts)]


def with_rows(table: Tensor, known: int, rows: int) -> Tensor:
    """A table of embeddings with other rows behind the known ones, each the mean of these.

    Args:
        table: `[at least known, width]`; rows behind `known` are padding.
        known: rows that tokens have. rows: wanted.
    """
    base = table[:known]
    mean = base.float().mean(dim=0, keepdim=True).to(table.dtype)
    return torch.cat([base, mean.expand(rows - known, -1)])
