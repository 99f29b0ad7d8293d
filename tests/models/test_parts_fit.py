"""Merges, vocabulary and marks of a checkpoint are checked against each other when it is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import mini_internvl
from mini_internvl.releases import TINY_FOLDER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(TINY_FOLDER, tmp_path / "model"))


@pytest.mark.parametrize("kept", [0.1, 0.9])
def test_a_cut_list_of_merges_is_refused(kept: float, folder: Path) -> None:
    path = folder / "merges.txt"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: int(len(lines) * kept)]), encoding="utf-8")
    with pytest.raises(mini_internvl.TokenizerError, match="merges and vocabulary are not of the same"):
        mini_internvl.load(folder)


def test_merges_of_another_vocabulary_are_refused(folder: Path) -> None:
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    longest = max(vocabulary, key=len)
    vocabulary[f"{longest}x"] = vocabulary.pop(longest)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    with pytest.raises(mini_internvl.MiniInternVLError, match="tokenizer"):
        mini_internvl.load(folder)


def test_marks_of_the_template_must_be_tokens(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content["template"] = "phi3-chat"
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(mini_internvl.TokenizerError, match=r"has no <\|user\|>.*template phi3-chat"):
        mini_internvl.load(folder)


def test_the_model_as_it_is_loads(folder: Path) -> None:
    assert mini_internvl.load(folder).tokenizer is not None
