"""Tokenizers from published files, against ids and texts recorded from the reference's slow tokenizers.

`golden_tokenizers.json` was recorded with transformers 4.37.2 (InternLM2's own class, LlamaTokenizer,
Qwen2Tokenizer) on the folders that `small_tokenizers` writes.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_internvl.errors import TokenizerError
from mini_internvl.tokenizers import Tokenizer, control_ids, read_tokenizer

GOLDEN = json.loads((Path(__file__).parent / "golden_tokenizers.json").read_text(encoding="utf-8"))
WRITERS: dict[str, Callable[..., Path]] = {
    "qwen2": small_tokenizers.write_qwen2,
    "internlm2": small_tokenizers.write_internlm2,
    "phi3": small_tokenizers.write_phi3,
    "qwen3": small_tokenizers.write_qwen3,
}


def build(name: str, folder: Path) -> Tokenizer:
    """The tokenizer that a golden entry names: family, then flags of its writer."""
    family, _, flags = name.partition("_")
    found = read_tokenizer(WRITERS[family](folder, *(flag == "1" for flag in flags)))
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(GOLDEN["tokenizers"]))
def test_ids_and_texts_equal_the_reference(name: str, tmp_path: Path) -> None:
    tokenizer = build(name, tmp_path)
    golden = GOLDEN["tokenizers"][name]
    assert len(golden["ids"]) == len(GOLDEN["texts"]) > 40
    for text, ids in zip(GOLDEN["texts"], golden["ids"], strict=True):
        assert tokenizer.encode(text) == ids, text
    for ids, text in golden["decoded"]:
        assert tokenizer.decode(ids) == text, ids


def test_control_tokens_lie_on_unused_pieces(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(small_tokenizers.write_internlm2(tmp_path))
    assert tokenizer is not None
    assert tokenizer.token_id("<|im_end|>") == 263
    assert tokenizer.encode("<|im_end|>")[1:] == [263]
    assert tokenizer.token_id("<IMG_CONTEXT>") == len(tokenizer) - 7
    assert tokenizer.token_id("no such token") is None
    assert tokenizer.eos_id == tokenizer.pad_id == 2
    assert tokenizer.special_ids["<box>"] == len(tokenizer) - 2


def test_phi3_roles(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(small_tokenizers.write_phi3(tmp_path))
    assert tokenizer is not None
    assert tokenizer.eos_id == tokenizer.pad_id == tokenizer.token_id("<|endoftext|>")
    assert "<|end|>" in tokenizer.special_ids


@pytest.mark.parametrize("family", WRITERS)
def test_works_without_added_tokens_decoder(family: str, tmp_path: Path) -> None:
    """Files of transformers before 4.34 name added tokens in added_tokens.json alone."""
    folder = WRITERS[family](tmp_path)
    path = folder / "tokenizer_config.json"
    settings_ = json.loads(path.read_text(encoding="utf-8"))
    before = read_tokenizer(folder)
    del settings_["added_tokens_decoder"]
    path.write_text(json.dumps(settings_), encoding="utf-8")
    after = read_tokenizer(folder)
    assert before is not None and after is not None
    text = "the<img><IMG_CONTEXT></img>cat<box>"
    assert after.encode(text) == before.encode(text)


@pytest.mark.parametrize("family", WRITERS)
def test_no_code_of_the_folder_is_run(family: str, tmp_path: Path) -> None:
    folder = WRITERS[family](tmp_path)
    for name in ("tokenization_internlm2.py", "configuration_internvl_chat.py", "conversation.py"):
        (folder / name).write_text("raise SystemExit('was run')\n", encoding="utf-8")
    config: dict[str, Any] = {
        "model_type": "internvl_chat",
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read_tokenizer(folder) is not None


def test_a_folder_without_files_has_no_tokenizer(tmp_path: Path) -> None:
    assert read_tokenizer(tmp_path) is None


@pytest.mark.parametrize("family", WRITERS)
def test_broken_files_are_named(family: str, tmp_path: Path) -> None:
    folder = WRITERS[family](tmp_path)
    (folder / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(TokenizerError, match="cannot be read"):
        read_tokenizer(folder)


def test_a_broken_model_file_is_named(tmp_path: Path) -> None:
    folder = small_tokenizers.write_phi3(tmp_path)
    (folder / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(TokenizerError, match="cannot be read"):
        read_tokenizer(folder)


def test_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = small_tokenizers.write_phi3(tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("<IMG_CONTEXT>", "<other>"), encoding="utf-8")
    with pytest.raises(TokenizerError, match="has no <IMG_CONTEXT>"):
        read_tokenizer(folder)


@pytest.mark.parametrize("name", ["qwen2", "internlm2_0", "phi3_100", "qwen3"])
def test_plain_text_comes_back(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = build(name, tmp_path_factory.mktemp("tokenizer"))

    @settings(max_examples=60, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="▁<"), max_size=30))
    def check(text: str) -> None:
        # composed, as the 1B's tokenizer makes it; without spaces, whose ends and clean-up are its own matter
        plain = unicodedata.normalize("NFC", "x" + text.replace(" ", ""))
        assert tokenizer.decode(tokenizer.encode(plain)) == plain

    check()


def resave(folder: Path, target: Path, **changes: Any) -> Path:
    """A folder as transformers 5 saves it again: tokenizer.json and tokenizer_config.json alone."""
    from transformers import LlamaTokenizer, Qwen2Tokenizer

    kind = Qwen2Tokenizer if (folder / "vocab.json").is_file() else LlamaTokenizer
    kind.from_pretrained(folder).save_pretrained(target)
    assert not (target / "tokenizer.model").exists() and not (target / "vocab.json").exists()
    path = target / "tokenizer_config.json"
    found = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(found), encoding="utf-8")
    return target


@pytest.mark.parametrize("name", ["qwen2", "internlm2_0", "phi3_100", "phi3_101"])
def test_saved_again_by_transformers_5_it_gives_the_same_ids(name: str, tmp_path: Path) -> None:
    build(name, tmp_path / "published")
    tokenizer = read_tokenizer(resave(tmp_path / "published", tmp_path / "saved"))
    assert tokenizer is not None
    golden = GOLDEN["tokenizers"][name]
    for text, ids in zip(GOLDEN["texts"], golden["ids"], strict=True):
        assert tokenizer.encode(text) == ids, text
    for ids, text in golden["decoded"]:
        assert tokenizer.decode(ids) == text, ids
    if name != "qwen2":
        assert tokenizer.decode(tokenizer.encode("a\n\tb")).endswith("a\n\tb")


@pytest.mark.parametrize("family", ["internlm2", "phi3", "qwen2", "qwen3"])
def test_the_files_tell_where_the_class_is_a_base_class(family: str, tmp_path: Path) -> None:
    published = read_tokenizer(WRITERS[family](tmp_path / "published"))
    config = {"llm_config": {"model_type": family}}
    saved = resave(tmp_path / "published", tmp_path / "saved", tokenizer_class="TokenizersBackend")
    (saved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    again = read_tokenizer(saved)
    assert published is not None and again is not None
    for text in ("What is the cat\n", "<|im_start|>the", "<img><IMG_CONTEXT></img>\nthe", "你好 12"):
        assert again.encode(text) == published.encode(text)


@pytest.mark.parametrize("family", ["internlm2", "phi3"])
def test_a_class_that_the_files_contradict_is_refused(family: str, tmp_path: Path) -> None:
    WRITERS[family](tmp_path / "published")
    saved = resave(tmp_path / "published", tmp_path / "saved", tokenizer_class="Qwen2Tokenizer")
    with pytest.raises(TokenizerError, match="Qwen2Tokenizer but the files hold a sentencepiece vocabulary"):
        read_tokenizer(saved)
    saved = resave(tmp_path / "published", tmp_path / "saved", tokenizer_class="GemmaTokenizer")
    with pytest.raises(TokenizerError, match="'GemmaTokenizer' is not one of"):
        read_tokenizer(saved)


def test_moved_control_tokens_hold_where_the_embedding_has_their_rows(tmp_path: Path) -> None:
    WRITERS["internlm2"](tmp_path / "published")
    saved = resave(tmp_path / "published", tmp_path / "saved")
    config = {"llm_config": {"model_type": "internlm2", "vocab_size": 512}}
    (saved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = read_tokenizer(saved)
    assert tokenizer is not None and tokenizer.token_id("<|im_end|>") == 359


def test_phi3_tokens_take_the_space_after_them_in_every_form(tmp_path: Path) -> None:
    folder = WRITERS["phi3"](tmp_path)
    before = read_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    del found["added_tokens_decoder"]
    path.write_text(json.dumps(found), encoding="utf-8")
    after = read_tokenizer(folder)
    assert before is not None and after is not None
    prompt = "<|system|>\nthe<|end|><|user|>\n<img><IMG_CONTEXT></img>\nWhat<|end|><|assistant|>\n"
    assert after.encode(prompt) == before.encode(prompt)


def test_think_tags_stay_in_the_text_and_may_be_generated(tmp_path: Path) -> None:
    """They are added tokens of Qwen3 that are not special."""
    for folder in (tmp_path, resave(small_tokenizers.write_qwen3(tmp_path), tmp_path / "saved")):
        tokenizer = read_tokenizer(folder)
        assert tokenizer is not None
        ids = tokenizer.encode("<think>\nthe\n</think>\na cat<|im_end|>")
        assert tokenizer.decode(ids) == "<think>\nthe\n</think>\na cat"
        tags = {tokenizer.token_id("<think>"), tokenizer.token_id("</think>")}
        assert tags <= set(ids) and not tags & control_ids(tokenizer)


@pytest.mark.parametrize("family", WRITERS)
def test_only_control_tokens_are_forbidden(family: str, tmp_path: Path) -> None:
    """Special tokens that a fine-tuning added behind the published ones belong into answers."""
    folder = WRITERS[family](tmp_path)
    before = read_tokenizer(folder)
    assert before is not None
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    token = dict(found["added_tokens_decoder"][str(before.token_id("<box>"))])
    for place, text in enumerate(("<loc>", "</loc>", "<|point|>")):
        found["added_tokens_decoder"][str(len(before) + place)] = {**token, "content": text}
        found["additional_special_tokens"].append(text)
    path.write_text(json.dumps(found), encoding="utf-8")
    after = read_tokenizer(folder)
    assert after is not None and after.token_id("<loc>") == len(before)
    assert "<loc>" in after.special_ids
    assert control_ids(after) == control_ids(before)
    stop = "<|end|>" if family == "phi3" else "<|im_end|>"
    assert {after.token_id(t) for t in ("<img>", "</img>", "<IMG_CONTEXT>", stop)} <= control_ids(after)


def test_normalizers_of_tokenizer_json_are_followed_or_refused(tmp_path: Path) -> None:
    """The form before transformers 5 has Llama's prefix in the normalizer; another one is refused."""
    published = read_tokenizer(small_tokenizers.write_phi3(tmp_path / "published", legacy=True))
    saved = resave(tmp_path / "published", tmp_path / "saved", legacy=True)
    path = saved / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps = [{"type": "Prepend", "prepend": "▁"}, replace]
    content |= {"normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None}
    path.write_text(json.dumps(content), encoding="utf-8")
    again = read_tokenizer(saved)
    assert published is not None and again is not None
    for text in ("What is the cat", "the cat\n", "你好 12"):
        assert again.encode(text) == published.encode(text)
    content["normalizer"]["normalizers"].append({"type": "NFKC"})
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError, match="normalizer NFKC is not supported"):
        read_tokenizer(saved)
