"""What `--judge-gen` may set for a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evalkit.contracts import Json
from evalkit.key_values import number, split_items
from evalkit.near_names import unknown_setting
from evalkit.request_form import KEYS, RequestForm
from evalkit.task_parts import JudgeQuestion

FLAG = "--judge-gen"
#: Settings that decide no reply.
_FREE = ("timeout", "attempts", "extra_headers", "token_field")
#: Least token limit of a judge that reasons before it answers: its thoughts count.
_LEAST = 4096


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How a judge is asked.

    Attributes:
        form: of its requests. generation: what takes the place of a question's own settings.
        timeout: seconds for one attempt. attempts: how often a question is asked before it counts as failed.
        decides: the settings that may change a reply, as one line; empty where none is given.
    """

    form: RequestForm = field(default_factory=RequestForm)
    generation: Mapping[str, Json] = field(default_factory=dict)
    timeout: float = 60.0
    attempts: int = 6
    decides: str = ""

    @classmethod
    def parse(cls, model: str, items: Sequence[str]) -> JudgeSettings:
        """From KEY=VALUE.

        Raises:
            UsageError: an unknown key, or a value that cannot be.
        """
        given = split_items(items, FLAG)
        generation: dict[str, Json] = {}
        limits = {"timeout": 60.0, "attempts": 6}
        for key, text in given.items():
            if key == "max_new_tokens":
                generation["max_tokens"] = number(f"{FLAG} {key}", text, int, 1, 10**6)
            elif key in ("temperature", "top_p"):
                generation[key] = number(
                    f"{FLAG} {key}", text, float, 0.0, 2.0 if key == "temperature" else 1.0
                )
            elif key == "seed":
                generation[key] = number(f"{FLAG} {key}", text, int, 0, 2**63)
            elif key == "timeout":
                limits[key] = number(f"{FLAG} {key}", text, float, 0.001, 86400.0)
            elif key == "attempts":
                limits[key] = number(f"{FLAG} {key}", text, int, 1, 1000)
            elif key not in KEYS:
                known = ("max_new_tokens", "temperature", "top_p", "seed", "timeout", "attempts", *KEYS)
                raise unknown_setting(FLAG, key, known, "a judge")
        form = RequestForm.parse(model, given, FLAG)
        deciding = {key: text for key, text in sorted(given.items()) if key not in _FREE}
        return cls(
            form,
            generation,
            limits["timeout"],
            int(limits["attempts"]),
            ",".join(f"{key}={text}" for key, text in deciding.items()),
        )

    def body(self, model: str, question: JudgeQuestion) -> dict[str, Json]:
        """What is sent for a question."""
        messages = [{"role": "user", "content": question.user}]
        if question.system:
            messages.insert(0, {"role": "system", "content": question.system})
        least = _LEAST if self.form.preset else 0
        settings: dict[str, Json] = {
            "temperature": question.temperature,
            "max_tokens": max(question.max_tokens, least),
            **self.generation,
        }
        return self.form.body(model, messages, settings)

    def to_json(self) -> dict[str, Json]:
        """What is not usual, for the manifest."""
        content = {**self.form.to_json(), **self.generation}
        if self.form.preset and "max_tokens" not in self.generation:
            content["least_tokens"] = _LEAST
        return content
