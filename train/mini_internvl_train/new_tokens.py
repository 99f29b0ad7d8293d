"""Tokens that a recipe adds to the vocabulary of its start checkpoint, with rows of embedding and head."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mini_internvl_train.errors import RecipeError
from mini_internvl_train.vocabulary import with_rows, with_tokens

if TYPE_CHECKING:
    from mini_internvl import ChatModel

CONFIG = "config.json"


def add_tokens(network: ChatModel, files: Mapping[str, bytes], tokens: Sequence[str]) -> dict[str, bytes]:
    """Adds tokens in place: the network's tokenizer, its embedding and its head know them.

    Tokens of the vocabulary stay as they are, so a checkpoint of the training that is continued gets no more.
    An added one is ordinary text to decoding: answers keep it. Its rows are the mean of all others.

    Args:
        network: with its tokenizer. files: that stand beside its weights (`companion_files`).

    Returns:
        The files with the new tokens.

    Raises:
        RecipeError: a token that cannot be one.
    """
    from mini_internvl import read_tokenizer

    known_tokenizer = network.tokenizer
    assert known_tokenizer is not None
    _check(tokens)
    new = [token for token in tokens if known_tokenizer.token_id(token) is None]
    if not new:
        return dict(files)
    known = len(known_tokenizer)
    rows = max(int(network.config.llm["vocab_size"]), known + len(new))
    grown = _with_size(with_tokens(files, new, known, special=False), rows)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in grown.items():
            (Path(folder) / name).write_bytes(content)
        tokenizer = read_tokenizer(folder)
    assert tokenizer is not None
    for number, token in enumerate(new, known):
        if tokenizer.token_id(token) != number or number not in tokenizer.encode(f"a {token} b"):
            raise RecipeError(f"tokens: this tokenizer cannot hold {token!r} as one token")
    network.tokenizer = tokenizer
    _grow(network, known, known + len(new), rows)
    return grown


def _check(tokens: Sequence[str]) -> None:
    for place, token in enumerate(tokens):
        if not token or token != token.strip() or "<image>" in token or "<video>" in token:
            raise RecipeError(f"tokens: {token!r} cannot be a token")
        if token in tokens[:place]:
            raise RecipeError(f"tokens: {token!r} is given twice")


def _with_size(files: Mapping[str, bytes], rows: int) -> dict[str, bytes]:
    """The files with the new number of rows in config.json, by which some tokenizers are read."""
    config = json.loads(files[CONFIG])
    name = "llm_config" if "llm_config" in config else "text_config"
    config[name] = {**config[name], "vocab_size": rows}
    return {**files, CONFIG: json.dumps(config).encode()}


def _grow(network: ChatModel, known: int, used: int, rows: int) -> None:
    """Tables of `rows` rows, of which those from `known` to `used` are the mean of the known ones."""
    language: Any = network.language_model
    tied = language.lm_head.weight is language.get_input_embeddings().weight
    table = _grown(language.get_input_embeddings().weight.data, known, used)
    embedding = nn.Embedding(rows, table.shape[1], device="meta")
    embedding.weight = nn.Parameter(table)
    head = nn.Linear(table.shape[1], rows, bias=False, device="meta")
    head.weight = (
        embedding.weight if tied else nn.Parameter(_grown(language.lm_head.weight.data, known, used))
    )
    language.set_input_embeddings(embedding)
    language.lm_head = head
    language.config.update({"vocab_size": rows})
    network.config = replace(network.config, llm={**network.config.llm, "vocab_size": rows})


def _grown(table: Tensor, known: int, used: int) -> Tensor:
    """Padding behind the rows in use stays."""
    return torch.cat([with_rows(table, known, used), table[used:]])
