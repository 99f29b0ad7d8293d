"""The embedded model's tokenizer: byte-level BPE on the drawn worlds' texts, single digits, Qwen2's files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from evalkit_tasks.miniatures import drawing
from mini_internvl_train.lessons import LESSONS
from tiny_model.shapes import SYSTEM_MESSAGE

END_OF_TEXT, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IMAGE_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
SPECIAL = (END_OF_TEXT, TURN, END, *IMAGE_TOKENS)
#: The lessons whose texts make the vocabulary; it stays what it is when others are added.
_SPOKEN = ("mmbench", "chartqa", "docvqa", "rsvqa-lr", "dior-rsvg", "bdd-x", "drivelm", "repeat")
#: Enough for every word of the worlds to be one token.
SIZE = 768


def texts(seed: int = 0, lessons: int = 300) -> Iterator[str]:
    """Prompts and answers of training lessons, without special tokens."""
    yield from (f"system\n{SYSTEM_MESSAGE}", "user\n", "assistant\n")
    for name in _SPOKEN:
        draw = LESSONS[name]
        rng = drawing.generator(f"texts/{name}", seed, training=True)
        for _ in range(lessons if name != "drivelm" else lessons // 3):
            lesson = draw(rng, True)
            yield lesson.opening.replace("<image>", "")
            for ask in lesson.asks:
                for text in (ask.text, ask.answer):
                    for token in IMAGE_TOKENS:
                        text = text.replace(token, "\n")
                    yield text


def write(folder: Path) -> None:
    """Trains the vocabulary and writes vocab.json, merges.txt and the settings of transformers' class."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "vocab.json", model["vocab"])
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    first = max(model["vocab"].values()) + 1
    ids = {token: first + i for i, token in enumerate(SPECIAL)}
    _write(folder / "added_tokens.json", ids)
    _write(
        folder / "special_tokens_map.json",
        {"eos_token": END, "pad_token": END_OF_TEXT, "additional_special_tokens": list(SPECIAL[1:])},
    )
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_prefix_space": False,
            "added_tokens_decoder": {str(i): {"content": token, **flags} for token, i in ids.items()},
            "additional_special_tokens": list(SPECIAL[1:]),
            "eos_token": END,
            "pad_token": END_OF_TEXT,
            "bos_token": None,
            "unk_token": None,
            "errors": "replace",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
        },
    )


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
