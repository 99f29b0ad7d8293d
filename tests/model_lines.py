"""The checkpoints of the family as miniatures: the table of docs/models.md, and what its tests build.

python tests/model_lines.py     prints the table
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import small_networks
import small_tokenizers

from mini_internvl.prompts import Template, find_template

LAYOUTS = ("released", "native")
COLUMNS = ("loads", "logits", "tokens", "trains", "exports")
"""What `tests/models/test_model_lines.py` holds every line to, in each layout."""

_DYNAMIC = {"rope_scaling": {"type": "dynamic", "rope_type": "dynamic", "factor": 2.0}}


@dataclass(frozen=True)
class Line:
    """Checkpoints that differ in size alone.

    Attributes:
        name: of the table's row.
        family: of `small_networks`.
        writer: of its tokenizer's files.
        template: of the released layout.
        unverified: what could not be compared with the published file.
        text: settings of its language model beside the family's.
    """

    name: str
    family: str
    writer: Callable[[Path], Path]
    template: str
    unverified: str = ""
    text: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def prompt(self, layout: str) -> Template:
        """How conversations are written in a layout; those of `*-hf` repositories have no system turn."""
        released = find_template(self.template)
        if layout == "released":
            return released
        return (
            replace(released, system_message=None)
            if self.family == "phi3"
            else find_template("internvl2_5-hf")
        )

    def exports(self, layout: str) -> bool:
        """Whether it is written in the other layout; Phi-3 has no native repositories, only exports."""
        return layout == "released" or self.family != "phi3"


LINES = (
    Line("InternVL2-1B, Mini-InternVL2-1B-DA-*", "qwen2", small_tokenizers.write_qwen2, "Hermes-2"),
    Line(
        "InternVL2-2B, Mini-InternVL2-2B-DA-*",
        "internlm2",
        small_tokenizers.write_internlm2,
        "internlm2-chat",
    ),
    Line("InternVL2-4B, Mini-InternVL2-4B-DA-*", "phi3", small_tokenizers.write_phi3, "phi3-chat"),
    Line(
        "InternVL2_5-1B, -4B, -MPO",
        "qwen2",
        small_tokenizers.write_qwen2,
        "internvl2_5",
        unverified="rope_scaling none; 4B: all of config.json",
    ),
    Line("InternVL2_5-2B, -MPO", "internlm2", small_tokenizers.write_internlm2, "internvl2_5"),
    Line(
        "InternVL3-1B, -2B, -Pretrained, -Instruct",
        "qwen2",
        small_tokenizers.write_qwen2,
        "internvl2_5",
        unverified="2B: rope_scaling dynamic",
        text=_DYNAMIC,
    ),
    Line(
        "InternVL3_5-1B, -2B, -4B, -Pretrained, -Instruct, -MPO",
        "qwen3",
        small_tokenizers.write_qwen3,
        "internvl2_5",
        unverified="all of config.json, ids of tokens, system message of conversation.py",
    ),
)


def chat_template(template: Template) -> str:
    """`chat_template.jinja` that writes as a template does, an image on a line of its own."""

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    marks = {"system": template.system, "user": template.user, "assistant": template.assistant}
    return "".join(
        (
            "{{ " + quoted(template.opening(template.system_message)) + " }}",
            "{% set marks = " + json.dumps(marks, ensure_ascii=False) + " %}",
            "{% for message in messages %}{{ marks[message.role] }}",
            "{% for part in message.content %}{% if part.type == 'image' %}",
            "{{ '<IMG_CONTEXT>\\n' }}{% else %}{{ part.text }}{% endif %}{% endfor %}",
            "{{ " + quoted(template.separator) + " }}{% endfor %}",
            "{% if add_generation_prompt %}{{ " + quoted(template.assistant) + " }}{% endif %}",
        )
    )


def build(line: Line, folder: Path) -> Any:
    """Writes the line into `folder`/native and `folder`/released; returns transformers' own model."""
    import mini_internvl

    tokenizer = mini_internvl.read_tokenizer(line.writer(folder / "tokenizer"))
    assert tokenizer is not None
    image_token = tokenizer.token_id("<IMG_CONTEXT>")
    assert image_token is not None
    theirs = small_networks.native_model(
        line.family, image_token=image_token, eos_token_id=tokenizer.eos_id, **line.text
    )
    native, released = folder / "native", folder / "released"
    theirs.save_pretrained(native)
    line.writer(native)
    written = chat_template(line.prompt("native"))
    (native / "chat_template.jinja").write_text(written, encoding="utf-8")
    mini_internvl.save_checkpoint(mini_internvl.load(native), released, tokenizer_from=native)
    path = released / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw |= {"template": line.template, "system_message": None}
    path.write_text(json.dumps(raw), encoding="utf-8")
    return theirs


def table() -> str:
    """The table of docs/models.md."""
    rows = [["checkpoints", "layout", *COLUMNS, "not verified against the published file"]]
    rows.append(["---"] * len(rows[0]))
    for line in LINES:
        for layout in LAYOUTS:
            exports = "yes" if line.exports(layout) else "no"
            rows.append([line.name, layout, "yes", "yes", "yes", "yes", exports, line.unverified])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
