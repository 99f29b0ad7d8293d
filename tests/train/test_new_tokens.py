"""Tokens added to the vocabulary: known to tokenizer, embedding and head of every language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import make_recipe, write_checkpoint

import mini_internvl
from evalkit.cli.main import invoke
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.new_tokens import _grown
from mini_internvl_train.start import load_start

QUIET: dict[str, Any] = {"say": lambda line: None, "quiet": True}
TOKENS = ["<loc_0>", "<loc_1>"]


def teach(folder: Path) -> None:
    """Every answer ends with a new token."""
    path = folder / "data/colours.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["conversations"][-1]["value"] += " <loc_1>"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("family", "tied"),
    [("qwen2", False), ("qwen2", True), ("internlm2", False), ("phi3", False), ("qwen3", False)],
)
def test_new_tokens_are_saved_and_exported(family: str, tied: bool, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", family, tied=tied)
    recipe = make_recipe(tmp_path, family=family, samples=1, tokens=TOKENS)
    base = mini_internvl.load(tmp_path / "model")
    start = load_start(recipe)
    known = len(base.tokenizer)  # type: ignore[arg-type]
    language, before = start.network.language_model, base.language_model
    tables = [(language.model.embed_tokens, before.model.embed_tokens), (language.lm_head, before.lm_head)]
    for new, old in tables:
        assert torch.equal(new.weight[:known], old.weight)
        assert torch.allclose(new.weight[known:], old.weight.mean(0).expand(2, -1), atol=1e-6)
    assert (language.lm_head.weight is language.model.embed_tokens.weight) == tied
    saved, hf = tmp_path / "saved", tmp_path / "hf"
    mini_internvl.save_checkpoint(start.network, saved, tokenizer_from=start.files)
    assert invoke(["train", "export", str(saved), "--to", "hf", "-o", str(hf)]) == 0
    template = "phi3-chat-hf" if family == "phi3" else "internvl2_5-hf"
    loaded = [mini_internvl.load(saved), mini_internvl.load(hf, template=template)]
    ids = torch.tensor([[*range(5, 15), known, known + 1]])
    for network in loaded:
        tokenizer: Any = network.tokenizer
        assert [tokenizer.token_id(token) for token in TOKENS] == [known, known + 1]
        spoken = tokenizer.encode("red <loc_1> blue")
        assert known + 1 in spoken and "<loc_1>" in tokenizer.decode(spoken)
        assert network.language_model.lm_head.weight.shape[0] == known + 2
        assert torch.allclose(network(ids), start.network(ids), atol=1e-5)


def test_rows_of_new_tokens_learn(tmp_path: Path) -> None:
    """That a training which is continued knows them is shown in test_loop."""
    recipe = make_recipe(tmp_path, steps__max_steps=1, tokens=TOKENS, optimizer__lr=0.05)
    teach(tmp_path)
    learned = mini_internvl.load(train(recipe, **QUIET)).language_model
    for table in (learned.lm_head.weight, learned.model.embed_tokens.weight):
        assert not torch.allclose(table[-1], table[:-2].mean(0), atol=1e-2)


def test_padding_behind_the_rows_in_use_stays() -> None:
    table = torch.tensor([[1.0], [3.0], [9.0], [9.0], [9.0]])
    assert _grown(table, 2, 4).flatten().tolist() == [1, 3, 2, 2, 9]
    assert _grown(table[:2], 2, 4).flatten().tolist() == [1, 3, 2, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": ["<a>"], "trainable": "lora"}, "full or frozen_vit alone"),
        ({"tokens": ["<a>", "<a>"]}, "given twice"),
        ({"tokens": [" a"]}, "cannot be a token"),
    ],
)
def test_what_cannot_be_a_new_token_is_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_start(make_recipe(tmp_path, **settings))
