"""Native folders are asked by their own chat template and processor settings, or refused at load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_networks as networks
import small_tokenizers
from PIL import Image

import mini_internvl
from evalkit.cli.main import invoke
from evalkit.contracts import Message, ModelOptions, Request
from evalkit.data.images import ImageFile
from evalkit.errors import CheckpointError as RefusedByEvalkit
from evalkit_models.hf import FAMILY as HF
from evalkit_models.messages import messages
from evalkit_models.mini_internvl import FAMILY
from mini_internvl.chat_template import ChatTemplate, read_chat_template, same_prompts
from mini_internvl.errors import ConfigError, MiniInternVLError
from mini_internvl.prompts import INTERNVL_SYSTEM, TEMPLATES

FAMILIES = ("qwen2", "internlm2", "phi3")
WRITERS = {
    "qwen2": small_tokenizers.write_qwen2,
    "internlm2": small_tokenizers.write_internlm2,
    "phi3": small_tokenizers.write_phi3,
}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}{{ 'MARK\n' }}{% elif c.type == 'text' %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% for c in m.content %}"
    "{% if c.type == 'image' %}<IMG_CONTEXT>\n{% else %}{{ c.text }}{% endif %}{% endfor %}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PROCESSOR = {
    "image_processor_type": "GotOcr2ImageProcessor",
    "size": {"height": 56, "width": 56},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "do_resize": True,
    "crop_to_patches": True,
}


def chatml(mark: str = "<IMG_CONTEXT>") -> str:
    return CHATML.replace("MARK", mark)


def native(folder: Path, family: str = "qwen2", template: str | None = None) -> Path:
    """A native folder with tokenizer, chat template and processor settings."""
    networks.save_native(family, folder)
    WRITERS[family](folder)
    written = (PHI3 if family == "phi3" else chatml()) if template is None else template
    (folder / "chat_template.jinja").write_text(written, encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def request(turns: list[str], images: list[Path]) -> Request:
    roles = ["user", "assistant"] * len(turns)
    said = tuple(Message(role, text) for role, text in zip(roles, turns, strict=False))  # type: ignore[arg-type]
    return Request("1", said, tuple(ImageFile(str(path)) for path in images))


def draw(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((40, 60 + 30 * i, 3), 40 * i, dtype=np.uint8)).save(path)
    return paths


CONVERSATIONS = {
    "one image": (["What is it?"], 1),
    "marked": (["<image>\nWhat is it?"], 1),
    "inside": (["Look at <image> and say."], 1),
    "two images": (["What differs?"], 2),
    "text": (["Who are you?"], 0),
    "history": (["<image>\nWhat is it?", "A cat.", "Sure?"], 1),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", CONVERSATIONS)
def test_the_prompt_is_the_processors(kind: str, family: str, tmp_path: Path) -> None:
    """transformers' own rendering, with each image token expanded as its processor does it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    folder = native(tmp_path / "model", family)
    turns, count = CONVERSATIONS[kind]
    asked = request(turns, draw(tmp_path, count))
    spoken: list[dict[str, Any]] = [
        {
            "role": role,
            "content": [
                {"type": "image"} if isinstance(p, int) else {"type": "text", "text": p} for p in parts
            ],
        }
        for role, parts in messages(asked)
    ]
    source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    rendered, _ = render_jinja_template([spoken], chat_template=source, add_generation_prompt=True)
    model = mini_internvl.load(folder)
    *history, question = turns
    pairs = list(zip(history[::2], history[1::2], strict=True))
    prompt = model.prompt(list(draw(tmp_path, count)), question, pairs)
    counts = iter(model.tile(draw(tmp_path, count)).counts)
    expected = ""
    for i, part in enumerate(rendered[0].split("<IMG_CONTEXT>")):
        tokens = "" if i == 0 else f"<img>{'<IMG_CONTEXT>' * 4 * next(counts)}</img>"
        expected += tokens + part
    assert prompt.text == expected
    assert INTERNVL_SYSTEM not in prompt.text


@pytest.mark.parametrize("mark", ["<IMG_CONTEXT>", "<image>"])
def test_both_marks_of_images_are_known(mark: str, tmp_path: Path) -> None:
    model = mini_internvl.load(native(tmp_path, template=chatml(mark)))
    text = model.prompt(draw(tmp_path, 1), "What?").text
    tokens = "<IMG_CONTEXT>" * 4 * model.tile(draw(tmp_path, 1)).counts[0]
    assert text == f"<|im_start|>user\n<img>{tokens}</img>\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    assert model.template.stop == "<|im_end|>" and model.template.trim("A cat.<|im_end|>\n") == "A cat."


@pytest.mark.parametrize("name", ["chat_template.json", "tokenizer_config.json", "processor_config.json"])
def test_older_places_of_the_template(name: str, tmp_path: Path) -> None:
    folder = native(tmp_path)
    (folder / "chat_template.jinja").unlink()
    path = folder / name
    old = json.loads(path.read_text()) if path.is_file() else {}
    written: Any = chatml()
    if name == "tokenizer_config.json":
        written = [{"name": "tools", "template": "x"}, {"name": "default", "template": chatml()}]
    path.write_text(json.dumps({**old, "chat_template": written}))
    assert mini_internvl.load(folder).template.name.startswith("chat_template.")


@pytest.mark.parametrize(
    "template,message",
    [
        ("{% for m in messages %}", "the chat template fails"),
        ("{{ raise_exception('no') }}", "the chat template fails"),
        ("{{ strftime_now('%d') }}", "the chat template fails"),
        ("{{ messages[0].content.pop() }}" + chatml(), "the chat template fails"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}" + chatml(), "the chat template fails"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "500,000 steps"),
        ("{{ 'x' * 99999999 }}" + chatml(), "small numbers alone"),
        ("{% for i in range(9999) %}" + "y" * 9999 + "{% endfor %}" + chatml(), "5,000,000 characters"),
        ("{% include 'x' %}", "the chat template fails"),
        (chatml("<picture>"), "writes neither <IMG_CONTEXT> nor <image>"),
        (chatml("<img><IMG_CONTEXT></img>"), "writes neither"),
        (
            chatml().replace("{{ c.text }}", "{% if m.role == 'user' %}{{ c.text }}{% endif %}"),
            "does not write",
        ),
        ("z" * 300_000 + chatml(), "200,000 characters"),
    ],
)
def test_templates_that_cannot_be_rendered_are_refused_at_load(
    template: str, message: str, tmp_path: Path
) -> None:
    folder = native(tmp_path, template=template)
    (folder / "model.safetensors").unlink()  # before weights are looked for
    with pytest.raises(ConfigError, match=message):
        mini_internvl.load(folder)


def test_a_native_folder_without_a_template_needs_a_choice(tmp_path: Path) -> None:
    folder = native(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"has no chat_template\.jinja, .* choose one by --template"):
        mini_internvl.load(folder)
    model = mini_internvl.load(folder, template="internvl2_5-hf")
    assert model.prompt([], "Hi").text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"size": {"height": 448, "width": 448}}, "size.height 448 is not supported, only 56"),
        ({"image_mean": [0.5, 0.5, 0.5]}, "image_mean"),
        ({"image_std": [1, 1]}, "image_std"),
        ({"resample": 2}, "resample 2 is not supported, only 3"),
        ({"do_normalize": False}, "do_normalize False"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"size": {"height": "x"}}, "another type"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_other_processor_settings_are_refused(
    nested: bool, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = native(tmp_path)
    (folder / "preprocessor_config.json").unlink()
    settings = {**PROCESSOR, **changes}
    if nested:
        content: dict[str, Any] = {"image_processor": settings, "image_seq_length": 4}
        (folder / "processor_config.json").write_text(json.dumps(content))
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=message):
        mini_internvl.load(folder)


def test_two_prompts_for_the_same_weights_differ_in_signature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = native(tmp_path / "native")
    model = mini_internvl.load(folder)
    mini_internvl.save_checkpoint(model, tmp_path / "released", tokenizer_from=folder)
    config = tmp_path / "released/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "template": "Hermes-2"}))

    def signature(name: str, *more: str) -> str:
        chosen = ["-m", str(tmp_path / name), "-t", "rsvqa-lr", "--split", "miniature", "--limit", "1"]
        fixed = ["--gen", "max_new_tokens=1", "--device", "cpu", "-o", str(tmp_path / "runs"), "--json", "-q"]
        assert invoke(["run", *chosen, *fixed, *more]) == 0
        return str(json.loads(capsys.readouterr().out)["runs"][0]["signature"])

    assert "|template:" not in signature("released")
    assert "|template:internvl2_5-hf|" in signature("released", "--template", "internvl2_5-hf")
    assert f"|template:{model.template.name}|" in signature("native")
    assert "|template:Hermes-2|" in signature("native", "--template", "Hermes-2")
    assert (
        invoke(["run", "-m", str(folder), "-t", "rsvqa-lr", "--split", "miniature", "--template", "nil"]) == 3
    )
    assert "unknown conversation template 'nil'" in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chosen_template_brings_its_own_system_message(family: str, tmp_path: Path) -> None:
    folder = native(tmp_path, family)
    name = {"qwen2": "Hermes-2", "internlm2": "internlm2-chat", "phi3": "phi3-chat"}[family]
    info = FAMILY.load(str(folder), ModelOptions(template=name, device="cpu")).info
    assert (
        info.settings["template"] == name == info.template
        and info.settings["system_message"] == INTERNVL_SYSTEM
    )
    plain = FAMILY.load(str(folder), ModelOptions(device="cpu")).info
    assert plain.settings["system_message"] is None and plain.template == plain.settings["template"]


def test_other_models_refuse_the_choice() -> None:
    with pytest.raises(Exception, match="--template"):
        HF.load("hf:x/y", ModelOptions(template="Hermes-2"))


def test_the_published_hf_prompt_is_known_by_name(tmp_path: Path) -> None:
    chat = ChatTemplate(chatml(), tmp_path)
    assert same_prompts(chat, TEMPLATES["internvl2_5-hf"], None)
    assert not same_prompts(chat, TEMPLATES["Hermes-2"], INTERNVL_SYSTEM)
    assert read_chat_template(tmp_path) is None
    assert issubclass(ConfigError, MiniInternVLError) and issubclass(RefusedByEvalkit, Exception)
