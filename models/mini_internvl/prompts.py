"""Conversation templates of the Mini-InternVL family and its successors. Imports nothing heavy.

All follow the style the reference calls MPT: every turn is a role mark, its text and the separator. The
separator of InternVL2 is a mark alone, that of InternVL2.5 to 3.5 a mark and a newline.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mini_internvl.errors import PromptError

IMAGE = "<image>"
IMAGE_START, IMAGE_CONTEXT, IMAGE_END = "<img>", "<IMG_CONTEXT>", "</img>"
#: Kept in answers even where they are special tokens: without them reasoning would be read as the answer.
THINK_TAGS = ("<think>", "</think>")

INTERNVL_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，"
    "英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
INTERNVL2_5_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位"
    "联合开发的多模态大语言模型。"
)
THINKING_SYSTEM = (
    "You are an AI assistant that rigorously follows this response protocol:\n\n"
    "1. First, conduct a detailed analysis of the question. Consider different angles, potential solutions, "
    "and reason through the problem step-by-step. Enclose this entire thinking process within <think> and "
    "</think> tags.\n\n"
    "2. After the thinking section, provide a clear, concise, and direct answer to the user's question. "
    "Separate the answer from the think section with a newline.\n\n"
    "Ensure that the thinking process is thorough but remains focused on the query. The final answer should "
    "be standalone and not reference the thinking section."
)
"""InternVL3.5's thinking mode is this message in place of the usual one (VLMEvalKit e8e78f0)."""

INTERNLM_V15_SYSTEM = "You are an AI assistant whose name is InternLM (书生·浦语)."
PHI3_V15_SYSTEM = "You are an AI assistant whose name is Phi-3."


@dataclass(frozen=True)
class Template:
    """How a conversation becomes one text.

    Attributes:
        name: as `template` in config.json spells it.
        system: mark before the system message.
        user: mark before a question.
        assistant: mark before an answer.
        separator: ends every turn.
        system_message: where the checkpoint has none of its own; None leaves the system turn out.
    """

    name: str
    system: str
    user: str
    assistant: str
    separator: str
    system_message: str | None = INTERNVL_SYSTEM

    @property
    def stop(self) -> str:
        """The mark in the separator: the model stops at it, and an answer is cut at it."""
        return self.separator.strip()

    def opening(self, system_message: str | None) -> str:
        """The system turn, which begins the text; empty for None."""
        return "" if system_message is None else f"{self.system}{system_message}{self.separator}"

    def render(self, turns: Sequence[tuple[str, str | None]], system_message: str | None) -> str:
        """The whole text.

        Args:
            turns: (question, answer) pairs; the last answer is None where the model is to speak.
            system_message: of the system turn; None leaves it out.
        """
        text = self.opening(system_message)
        for question, answer in turns:
            text += f"{self.user}{question}{self.separator}{self.assistant}"
            text += "" if answer is None else f"{answer}{self.separator}"
        return text

    def trim(self, answer: str) -> str:
        """An answer as the reference returns it: cut at the mark that ends a turn, outer space removed."""
        return answer.split(self.stop)[0].strip()


def _chatml(name: str, separator: str, system_message: str | None) -> Template:
    marks = ("<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n")
    return Template(name, *marks, separator, system_message)


TEMPLATES = {
    template.name: template
    for template in (
        _chatml("Hermes-2", "<|im_end|>", INTERNVL_SYSTEM),
        _chatml("internlm2-chat", "<|im_end|>", INTERNVL_SYSTEM),
        Template("phi3-chat", "<|system|>\n", "<|user|>\n", "<|assistant|>\n", "<|end|>"),
        Template("phi3-chat-hf", "<|system|>\n", "<|user|>\n", "<|assistant|>\n", "<|end|>", None),
        _chatml("internvl2_5", "<|im_end|>\n", INTERNVL2_5_SYSTEM),
        _chatml("internvl2_5-hf", "<|im_end|>\n", None),
        _chatml("internvl2_5-thinking", "<|im_end|>\n", THINKING_SYSTEM),
    )
}
"""By name. Four names are published. `-hf` is the prompt of the `*-hf` repositories, without a system turn;
`-thinking` is InternVL3.5's thinking mode."""


DEFAULT_TEMPLATES = {
    "qwen2": "Hermes-2",
    "internlm2": "internlm2-chat",
    "phi3": "phi3-chat",
    "qwen3": "internvl2_5",
}
"""Template of each language model family, where config.json names none."""


NATIVE_TEMPLATES = {
    "qwen2": "internvl2_5-hf",
    "internlm2": "internvl2_5-hf",
    "phi3": "phi3-chat-hf",
    "qwen3": "internvl2_5-hf",
}
"""The prompt of each family's `*-hf` repositories; a folder's own chat template goes before it."""


def find_template(name: str) -> Template:
    """The template of a name.

    Raises:
        PromptError: there is none of that name.
    """
    if name not in TEMPLATES:
        raise PromptError(f"unknown conversation template {name!r}; known: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


class Rendering(Protocol):
    """What writes a conversation: a `Template`, or a checkpoint's own chat template."""

    def render(self, turns: Sequence[tuple[str, str | None]], system_message: str | None) -> str:
        """The whole text, with `<image>` for each image."""
        ...


def build_prompt(
    template: Rendering,
    question: str,
    tile_counts: Sequence[int] = (),
    *,
    tokens_per_tile: int = 256,
    history: Sequence[tuple[str, str]] = (),
    system_message: str | None,
) -> str:
    """The text the model is given, each `<image>` replaced by its visual tokens.

    A conversation with images whose first question has no `<image>` gets them in front of it, as the
    reference's `chat` does; several get the documented form `Image-1: <image>`.

    Args:
        template: of the checkpoint.
        question: the question to be answered.
        tile_counts: tiles of each image of the whole conversation, in order.
        tokens_per_tile: visual tokens of one tile.
        history: earlier (question, answer) pairs.
        system_message: begins the text; None leaves the system turn out.

    Raises:
        PromptError: the number of `<image>` differs from the number of images, or `check_text`.
    """
    turns: list[tuple[str, str | None]] = [*history, (question, None)]
    if tile_counts and not any(IMAGE in asked for asked, _ in turns):
        first, answer = turns[0]
        turns[0] = (_image_marks(len(tile_counts)) + first, answer)
    marks = sum(asked.count(IMAGE) + (answer or "").count(IMAGE) for asked, answer in turns)
    if marks != len(tile_counts):
        raise PromptError(
            f"the conversation holds {marks} {IMAGE} but {len(tile_counts)} images were given; "
            "there must be one for each"
        )
    text = template.render(turns, system_message)
    check_text(text)
    return fill_images(text, tile_counts, tokens_per_tile)


def check_text(text: str) -> None:
    """Raises PromptError for half of a UTF-16 pair, which JSON can spell and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the prompt holds half of a character (U+{ord(text[error.start]):04X}) after "
            f"{text[: error.start][-30:]!r}: fix the text"
        ) from None


def fill_images(text: str, tile_counts: Sequence[int], tokens_per_tile: int = 256) -> str:
    """Replaces each `<image>`, in order, by start mark, visual tokens and end mark."""
    head, *rest = text.split(IMAGE)
    blocks = (f"{IMAGE_START}{IMAGE_CONTEXT * (tokens_per_tile * n)}{IMAGE_END}" for n in tile_counts)
    return head + "".join(block + part for block, part in zip(blocks, rest, strict=True))


def video_question(question: str, frames: int) -> str:
    """A question about a clip in the documented form: one line `Frame1: <image>` for each frame, then it."""
    return "".join(f"Frame{i}: {IMAGE}\n" for i in range(1, frames + 1)) + question


def choose_system_message(
    configured: str | None, folder: Path, template: Template, released: str | None
) -> str | None:
    """The system message of a checkpoint: the first that is set, else the template's own.

    Args:
        configured: of config.json.
        folder: of the checkpoint; its published conversation.py is read as text.
        template: of its conversations.
        released: of the release (`releases.Release.system_message`).
    """
    if configured is not None:
        return configured
    published = published_system_message(folder, template.name)
    if published is not None:
        return published
    return template.system_message if released is None else released


def published_system_message(folder: Path, template: str) -> str | None:
    """The system message in a checkpoint's own `conversation.py`, which is parsed and never run.

    Returns:
        The literal `system_message` of the template named, or None where there is no such file or literal.
    """
    try:
        tree = ast.parse((folder / "conversation.py").read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            message = given.get("system_message")
            if given.get("name") == template and isinstance(message, str):
                return message
    return None


def _image_marks(count: int) -> str:
    if count == 1:
        return f"{IMAGE}\n"
    return "".join(f"Image-{i}: {IMAGE}\n" for i in range(1, count + 1))
