"""Conversation templates of the three families and of the V1.5 checkpoints. Imports nothing heavy.

All follow the style the reference calls MPT: every turn is a role mark, its text and the separator, with no
newline after the separator.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mini_internvl.errors import PromptError

IMAGE = "<image>"
IMAGE_START, IMAGE_CONTEXT, IMAGE_END = "<img>", "<IMG_CONTEXT>", "</img>"

INTERNVL_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，"
    "英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
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
        separator: ends every turn; the model stops at it, and an answer is cut at it.
    """

    name: str
    system: str
    user: str
    assistant: str
    separator: str

    def render(self, turns: Sequence[tuple[str, str | None]], system_message: str) -> str:
        """The whole text.

        Args:
            turns: (question, answer) pairs; the last answer is None where the model is to speak.
            system_message: begins the text.
        """
        text = f"{self.system}{system_message}{self.separator}"
        for question, answer in turns:
            text += f"{self.user}{question}{self.separator}{self.assistant}"
            text += "" if answer is None else f"{answer}{self.separator}"
        return text

    def trim(self, answer: str) -> str:
        """An answer as the reference returns it: cut at the separator, outer space removed."""
        return answer.split(self.separator)[0].strip()


def _chatml(name: str) -> Template:
    return Template(
        name, "<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>"
    )


TEMPLATES = {
    "Hermes-2": _chatml("Hermes-2"),
    "internlm2-chat": _chatml("internlm2-chat"),
    "phi3-chat": Template("phi3-chat", "<|system|>\n", "<|user|>\n", "<|assistant|>\n", "<|end|>"),
}


DEFAULT_TEMPLATES = {"qwen2": "Hermes-2", "internlm2": "internlm2-chat", "phi3": "phi3-chat"}
"""Template of each language model family, where config.json names none."""


def find_template(name: str) -> Template:
    """The template of a name.

    Raises:
        PromptError: there is none of that name.
    """
    if name not in TEMPLATES:
        raise PromptError(f"unknown conversation template {name!r}; known: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def build_prompt(
    template: Template,
    question: str,
    tile_counts: Sequence[int] = (),
    *,
    tokens_per_tile: int = 256,
    history: Sequence[tuple[str, str]] = (),
    system_message: str = INTERNVL_SYSTEM,
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
        system_message: begins the text.

    Raises:
        PromptError: the number of `<image>` differs from the number of images.
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
    return fill_images(template.render(turns, system_message), tile_counts, tokens_per_tile)


def fill_images(text: str, tile_counts: Sequence[int], tokens_per_tile: int = 256) -> str:
    """Replaces each `<image>`, in order, by start mark, visual tokens and end mark."""
    head, *rest = text.split(IMAGE)
    blocks = (f"{IMAGE_START}{IMAGE_CONTEXT * (tokens_per_tile * n)}{IMAGE_END}" for n in tile_counts)
    return head + "".join(block + part for block, part in zip(blocks, rest, strict=True))


def video_question(question: str, frames: int) -> str:
    """A question about a clip in the documented form: one line `Frame1: <image>` for each frame, then it."""
    return "".join(f"Frame{i}: {IMAGE}\n" for i in range(1, frames + 1)) + question


def choose_system_message(configured: str | None, folder: Path, template: str, released: str | None) -> str:
    """The system message of a checkpoint: the first that is set.

    Args:
        configured: of config.json.
        folder: of the checkpoint; its published conversation.py is read as text.
        template: name of the conversation template.
        released: of the release (`releases.Release.system_message`).
    """
    if configured is not None:
        return configured
    published = published_system_message(folder, template)
    if published is not None:
        return published
    return INTERNVL_SYSTEM if released is None else released


def published_system_message(folder: Path, template: str) -> str | None:
    """The system message in a checkpoint's own `conversation.py`, which is parsed and never run.

    Returns:
        The literal `system_message` of the template named, or None where there is no such file or literal.
    """
    try:
        tree = ast.parse((folder / "conversation.py").read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
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
