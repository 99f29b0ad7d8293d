"""A checkpoint's own chat template (`chat_template.jinja`), as the `*-hf` repositories hold it.

It is a program of the checkpoint's authors. It runs in jinja's immutable sandbox, which reaches no files and
no Python, and within bounds of steps and size.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mini_internvl.config import MiniInternVLConfig, read_json
from mini_internvl.errors import ConfigError, PromptError
from mini_internvl.prompts import IMAGE, IMAGE_CONTEXT, IMAGE_START, TEMPLATES, Template, find_template

AUTO, CHAT_TEMPLATE = "auto", "chat_template"
"""Choices of a prompt beside the names of templates."""

FILE = "chat_template.jinja"

MOST_SOURCE = 200_000
"""Characters of a template; published ones have 500 to 10,000."""

MOST_STEPS = 500_000
"""Lines of the compiled template that one conversation may run."""

MOST_TEXT = 5_000_000
"""Characters of one rendered conversation."""

#: A mark on a line of its own with its line end: how images are set apart is the template's business.
_MARK = re.compile(r"(?m)(^<image>\n|<image>)")
_ANSWER = "an answer of the assistant"


@dataclass(frozen=True)
class ChatTemplate:
    """A conversation as a checkpoint's own template writes it; stands in for `prompts.Template`.

    Attributes:
        source: text of the template. where: its file. tokens: special tokens by role, as templates know them.
    """

    source: str
    where: Path
    tokens: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """`chat_template.3fa1c2`, by its content."""
        return f"chat_template.{hashlib.sha256(self.source.encode()).hexdigest()[:6]}"

    @cached_property
    def stop(self) -> str:
        """The mark after an answer: the model stops at it, and an answer is cut at it; may be empty."""
        asked = {"role": "user", "content": [{"type": "text", "text": "a question"}]}
        said = {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]}
        text = self._run([asked, said], generates=False)
        if text.count(_ANSWER) != 1:
            raise PromptError(f"{self.where}: the chat template does not write the assistant's answers")
        return text.partition(_ANSWER)[2].strip()

    @cached_property
    def mark(self) -> str:
        """What it writes for an image: the image token, or `<image>`."""
        text = self._run([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}])
        found = [mark for mark in (IMAGE_CONTEXT, IMAGE) if text.count(mark) == 1]
        if len(found) != 1 or IMAGE_START in text:
            raise PromptError(
                f"{self.where}: the chat template writes neither {IMAGE_CONTEXT} nor {IMAGE} for an image"
            )
        return found[0]

    def check(self) -> None:
        """Renders conversations of the usual forms.

        Raises:
            PromptError: it cannot be rendered.
        """
        _ = self.mark, self.stop
        self.render([(f"{IMAGE}\nx", "y"), ("z", None)], None)

    def render(self, turns: Sequence[tuple[str, str | None]], system_message: str | None) -> str:
        """The whole text, with `<image>` for each image, as transformers' processor is given it.

        Args:
            turns: (question, answer) pairs; the last answer is None where the model is to speak.
            system_message: of the system turn; None leaves it to the template.

        Raises:
            PromptError: the template fails on this conversation, or exceeds its bounds.
        """
        messages = [] if system_message is None else [_message("system", system_message)]
        for question, answer in turns:
            messages.append(_message("user", question))
            if answer is not None:
                messages.append(_message("assistant", answer))
        return self._run(messages).replace(self.mark, IMAGE)

    def trim(self, answer: str) -> str:
        """An answer cut at the mark that ends a turn, outer space removed."""
        return (answer.split(self.stop)[0] if self.stop else answer).strip()

    def _run(self, messages: Sequence[Mapping[str, Any]], generates: bool = True) -> str:
        values = {"messages": messages, "add_generation_prompt": generates, **dict(self.tokens)}
        try:
            compiled = self._compiled
            with _bounded_steps():
                parts, size = [], 0
                for part in compiled.generate(**values):
                    size += len(part)
                    if size > MOST_TEXT:
                        raise PromptError(f"more than {MOST_TEXT:,} characters")
                    parts.append(part)
        except Exception as error:  # the template is a program of the checkpoint's authors
            cause = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
            raise PromptError(f"{self.where}: the chat template fails ({cause})") from error
        return "".join(parts)

    @cached_property
    def _compiled(self) -> Any:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Bounded(ImmutableSandboxedEnvironment):
            """Without products, which make endless texts of short ones."""

            intercepted_binops = frozenset(("*", "**", "%"))

            def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
                if all(isinstance(each, (int, float)) and abs(each) < 1e6 for each in (left, right)):
                    return super().call_binop(context, operator, left, right)
                raise PromptError(f"{operator} is allowed for small numbers alone")

        def fail(message: str) -> None:
            raise PromptError(message)

        environment = Bounded(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], autoescape=False
        )
        environment.globals["raise_exception"] = fail
        environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
        if len(self.source) > MOST_SOURCE:
            raise PromptError(f"more than {MOST_SOURCE:,} characters")
        return environment.from_string(self.source)


@contextmanager
def _bounded_steps() -> Iterator[None]:
    """Ends what runs after `MOST_STEPS` lines, in this thread."""
    left = MOST_STEPS

    def count(*_: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise PromptError(f"more than {MOST_STEPS:,} steps")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


def _message(role: str, text: str) -> dict[str, Any]:
    parts = [piece for piece in _MARK.split(text) if piece]
    content = [
        {"type": "image"} if piece.startswith(IMAGE) else {"type": "text", "text": piece} for piece in parts
    ]
    return {"role": role, "content": content}


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a folder, where transformers' processor looks for it; None where there is none.

    Raises:
        ConfigError: a file is broken, or the template cannot be rendered.
    """
    settings = _optional(folder / "tokenizer_config.json")
    tokens = {
        name: str(value.get("content", "") if isinstance(value, Mapping) else value)
        for name, value in {**_optional(folder / "special_tokens_map.json"), **settings}.items()
        if name.endswith("_token") and isinstance(value, (str, Mapping))
    }
    found: tuple[Any, Path] | None = None
    if (folder / FILE).is_file():
        found = (folder / FILE).read_text(encoding="utf-8"), folder / FILE
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        written = _optional(folder / name).get("chat_template")
        if found is None and written:
            found = written, folder / name
    if found is None:
        return None
    source, where = found
    if isinstance(source, list):  # several by name
        named = {each.get("name"): each.get("template") for each in source if isinstance(each, Mapping)}
        source = named.get("default")
    if not isinstance(source, str):
        raise ConfigError(f"{where}: the chat template is no text")
    template = ChatTemplate(source, where, tuple(sorted(tokens.items())))
    try:
        template.check()
    except PromptError as error:
        raise ConfigError(str(error)) from error
    return template


def find_prompt(
    folder: Path, config: MiniInternVLConfig, native: bool, chosen: str
) -> Template | ChatTemplate:
    """How conversations with a checkpoint are written.

    Args:
        folder, config, native: of the checkpoint. chosen: `auto`: in the released layout the template that
            config.json names, in the native one the folder's chat template; `chat_template`: that one; or
            the name of a template (`prompts.TEMPLATES`).

    Raises:
        ConfigError: there is no such template, or it cannot be rendered.
    """
    if chosen == CHAT_TEMPLATE or (chosen == AUTO and native):
        found = read_chat_template(folder)
        if found is None:
            raise ConfigError(
                f"{folder}: has no {FILE}, so its prompt is not known; choose one by --template "
                f"({', '.join(TEMPLATES)})"
            )
        return found
    try:
        return find_template(config.template if chosen == AUTO else chosen)
    except PromptError as error:
        where = f"{folder / 'config.json'}: " if chosen == AUTO else "--template: "
        raise ConfigError(f"{where}{error}") from error


def named_prompt(chat: ChatTemplate) -> tuple[Template, str | None] | None:
    """The template and the system message that write what a chat template writes, or None."""
    text = chat.render([("x", None)], None)
    for template in TEMPLATES.values():
        opening = text.removesuffix(f"{template.user}x{template.separator}{template.assistant}")
        message = opening.removeprefix(template.system).removesuffix(template.separator) if opening else None
        if (message is None) != (template.system_message is None):
            continue
        if opening == template.opening(message) and same_prompts(chat, template, message):
            return template, message
    return None


def same_prompts(chat: ChatTemplate, template: Template, system_message: str | None) -> bool:
    """Whether both write the usual conversations alike: one image before the first question, or none."""
    conversations: list[list[tuple[str, str | None]]] = [
        [(f"{IMAGE}\nWhat is it?", None)],
        [(f"{IMAGE}\nWhat is it?", "A cat."), ("Sure?", None)],
        [("Who?", None)],
    ]
    return chat.stop == template.stop and all(
        chat.render(turns, None) == template.render(turns, system_message) for turns in conversations
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
