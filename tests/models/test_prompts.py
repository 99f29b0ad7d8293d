"""Conversation templates, against stored prompts of the released code and by themselves."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import write_checkpoint

import mini_internvl
from mini_internvl.errors import PromptError
from mini_internvl.prompts import (
    INTERNVL2_5_SYSTEM,
    INTERNVL_SYSTEM,
    TEMPLATES,
    THINKING_SYSTEM,
    build_prompt,
    choose_system_message,
    fill_images,
    find_template,
    published_system_message,
    video_question,
)


def test_equal_to_the_released_code(shared_dir: Path) -> None:
    families = json.loads((shared_dir / "oracle" / "prompts.json").read_text(encoding="utf-8"))
    checked = 0
    for family in (value for key, value in families.items() if not key.startswith("_")):
        template = find_template(family["template"])
        assert template.separator == family["sep"]
        for case in family["cases"].values():
            text = build_prompt(
                template,
                case["question"],
                case["num_patches_list"],
                tokens_per_tile=case["num_image_token"],
                history=[(q, a) for q, a in case["history"] or ()],
                system_message=family["system_message"],
            )
            assert len(text) == case["full_len"]
            assert hashlib.sha256(text.encode()).hexdigest() == case["full_sha256"]
            compact = re.sub(r"(<IMG_CONTEXT>)+", lambda m: f"<IMG_CONTEXT>*{len(m.group()) // 13}", text)
            assert compact == case["prompt_compact"]
            checked += 1
    assert checked == 30


def test_chatml_by_hand() -> None:
    text = build_prompt(
        TEMPLATES["Hermes-2"],
        "Why?",
        [2],
        tokens_per_tile=2,
        history=[("What?", "A cat.")],
        system_message=INTERNVL_SYSTEM,
    )
    assert text == (
        f"<|im_start|>system\n{INTERNVL_SYSTEM}<|im_end|><|im_start|>user\n"
        "<img><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT></img>\nWhat?<|im_end|>"
        "<|im_start|>assistant\nA cat.<|im_end|><|im_start|>user\nWhy?<|im_end|><|im_start|>assistant\n"
    )


def test_phi3_by_hand() -> None:
    text = build_prompt(TEMPLATES["phi3-chat"], "Hi", system_message="S")
    assert text == "<|system|>\nS<|end|><|user|>\nHi<|end|><|assistant|>\n"


@pytest.mark.parametrize(
    "name,opening",
    [
        ("internvl2_5", f"<|im_start|>system\n{INTERNVL2_5_SYSTEM}<|im_end|>\n"),
        ("internvl2_5-hf", ""),
        ("internvl2_5-thinking", f"<|im_start|>system\n{THINKING_SYSTEM}<|im_end|>\n"),
    ],
)
def test_successors_by_hand(name: str, opening: str) -> None:
    """As the released conversation code writes it: a newline after every end mark."""
    template = find_template(name)
    text = build_prompt(
        template,
        "Why?",
        [1],
        tokens_per_tile=2,
        history=[("What?", "A cat.")],
        system_message=template.system_message,
    )
    assert text == (
        f"{opening}<|im_start|>user\n<img><IMG_CONTEXT><IMG_CONTEXT></img>\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.stop == "<|im_end|>"


def test_system_messages_are_the_published_ones() -> None:
    """By hash, so that no letter is lost in an edit."""
    found = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in (INTERNVL2_5_SYSTEM, THINKING_SYSTEM)]
    assert found == ["bdb4d179c4c458dd", "a2cb9e8de918a3e3"]


def test_the_system_message_is_the_first_that_is_set(tmp_path: Path) -> None:
    template = find_template("internvl2_5")
    assert choose_system_message(None, tmp_path, template, None) == INTERNVL2_5_SYSTEM
    assert choose_system_message(None, tmp_path, find_template("internvl2_5-hf"), None) is None
    assert choose_system_message(None, tmp_path, template, "released") == "released"
    (tmp_path / "conversation.py").write_text("C(name='internvl2_5', system_message='hub')", encoding="utf-8")
    assert choose_system_message(None, tmp_path, template, "released") == "hub"
    assert choose_system_message("own", tmp_path, template, "released") == "own"


def test_several_pictures_without_marks_get_the_documented_form() -> None:
    text = build_prompt(TEMPLATES["phi3-chat"], "Differ?", [1, 1], tokens_per_tile=1, system_message="")
    assert "<|user|>\nImage-1: <img><IMG_CONTEXT></img>\nImage-2: <img><IMG_CONTEXT></img>\nDiffer?" in text


def test_video_frames() -> None:
    assert video_question("Why?", 2) == "Frame1: <image>\nFrame2: <image>\nWhy?"


@pytest.mark.parametrize(
    "question,tiles", [("<image> and <image>", [1]), ("<image>", [1, 1]), ("<image>", [])]
)
def test_marks_and_pictures_must_agree(question: str, tiles: list[int]) -> None:
    with pytest.raises(PromptError, match="must be one for each"):
        build_prompt(TEMPLATES["Hermes-2"], question, tiles, system_message="S")


def test_unknown_template() -> None:
    with pytest.raises(PromptError, match="unknown conversation template 'x'"):
        find_template("x")


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_are_cut_at_the_separator(name: str) -> None:
    template = TEMPLATES[name]
    assert template.trim(f" yes {template.stop} no") == "yes"
    assert template.trim(f"<think>\na\n</think>\nyes{template.separator}") == "<think>\na\n</think>\nyes"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=5), st.integers(1, 4))
def test_every_mark_becomes_its_own_tokens(tiles: list[int], tokens: int) -> None:
    text = fill_images("".join(f"{i}<image>" for i in range(len(tiles))) + "end", tiles, tokens)
    assert re.sub(r"<img>(<IMG_CONTEXT>)*</img>", "", text) == "".join(map(str, range(len(tiles)))) + "end"
    blocks = re.findall(r"<img>((?:<IMG_CONTEXT>)*)</img>", text)
    assert [len(block) // 13 for block in blocks] == [n * tokens for n in tiles]


def test_published_system_message_is_read_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "conversation.py").write_text(
        "raise SystemExit('was run')\n"
        "register(Conversation(name='phi3-chat', system_message='mine', sep='x'))\n"
        "register(Conversation(name='Hermes-2', system_message=f'{1}'))\n",
        encoding="utf-8",
    )
    assert published_system_message(tmp_path, "phi3-chat") == "mine"
    assert published_system_message(tmp_path, "Hermes-2") is None
    assert published_system_message(tmp_path / "none", "phi3-chat") is None


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3"])
def test_half_of_a_character_is_named_by_every_tokenizer(family: str, tmp_path: Path) -> None:
    model = mini_internvl.load(write_checkpoint(tmp_path / "model", family), device="cpu")
    with pytest.raises(PromptError, match=r"U\+DFFF\) after .*fix the text"):
        model.chat(None, "Is it \udfff?", max_new_tokens=1)
