"""Every checkpoint in both layouts, held to transformers' own InternVL as docs/models.md says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import model_lines
import pytest
import torch
from model_lines import LINES, Line
from PIL import Image
from small_training import write_data, write_recipe
from transformers import AutoModelForImageTextToText

import mini_internvl
from evalkit.contracts import ModelOptions
from evalkit_models.mini_internvl import FAMILY
from mini_internvl import GenerationSettings
from mini_internvl.model import normalise
from mini_internvl.prompts import THINKING_SYSTEM, fill_images
from mini_internvl_train.batches import collate
from mini_internvl_train.conversations import Conversation, Turn
from mini_internvl_train.export import export
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.recipe import read_recipe
from mini_internvl_train.start import load_start
from mini_internvl_train.step import TrainingStep

TOLERANCE = 1e-5
LONG = "the cat is a cat. " * 30


@pytest.fixture(scope="module", params=LINES, ids=str)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Line, Path, Any]:
    """A line, its folder, and transformers' own model of the same weights."""
    folder = tmp_path_factory.mktemp("line")
    return request.param, folder, model_lines.build(request.param, folder)


@pytest.fixture(scope="module", params=model_lines.LAYOUTS)
def pair(request: pytest.FixtureRequest, built: tuple[Line, Path, Any]) -> tuple[Line, Path, Any, Any]:
    """A line, the folder of one layout, transformers' model, and ours read from that folder."""
    line, folder, theirs = built
    ours = mini_internvl.load(folder / request.param, dtype="float32", device="cpu")
    return line, folder / request.param, theirs, ours


def prompts(ours: mini_internvl.ChatModel) -> list[mini_internvl.Prompt]:
    """Questions on one image, short and long, one on two images, and one without any."""
    images = [Image.new("RGB", size, colour) for size, colour in (((200, 100), "red"), ((64, 64), "blue"))]
    tiled = ours.tile(images[:1], max_tiles=3)
    questions = ("What is the cat?", "the cat is", LONG, "What 12")
    shared = [ours.render(tiled, question) for question in questions]
    return [*shared, ours.prompt(images, "Which?", max_tiles=1), ours.prompt([], "the 12", [("a", "cat")])]


def tensors(ours: mini_internvl.ChatModel, prompt: mini_internvl.Prompt) -> dict[str, Any]:
    """What transformers' model is given of a prompt."""
    assert ours.tokenizer is not None
    images = {} if prompt.tiles is None else {"pixel_values": normalise(prompt.tiles)}
    return {"input_ids": torch.tensor([ours.tokenizer.encode(prompt.text)]), **images}


def test_loads(pair: tuple[Line, Path, Any, Any]) -> None:
    line, folder, _, ours = pair
    assert ours.tokenizer is not None and ours.image_token_id == ours.tokenizer.token_id("<IMG_CONTEXT>")
    assert ours.config.family == line.family
    prompt = line.prompt(folder.name)
    text = prompt.render([("<image>\nWhat?", "a cat"), ("the", None)], prompt.system_message)
    tiled = ours.tile([Image.new("RGB", (56, 56))], max_tiles=1)
    assert ours.render(tiled, "the", [("What?", "a cat")]).text == fill_images(text, [1], 4)
    assert ours.tokenizer.token_id(ours.template.stop) in ours.rules.stop
    assert ours.image_token_id in ours.rules.forbidden


@torch.no_grad()
def test_logits(pair: tuple[Line, Path, Any, Any]) -> None:
    _, _, theirs, ours = pair
    for prompt in prompts(ours):
        inputs = tensors(ours, prompt)
        expected = theirs(**inputs).logits
        assert expected.std() > 0.5
        assert (ours(**inputs) - expected).abs().max() <= TOLERANCE


@torch.no_grad()
def test_tokens(pair: tuple[Line, Path, Any, Any]) -> None:
    """Greedy answers of transformers, alone and together: in one batch, with the image's prefix shared."""
    _, _, theirs, ours = pair
    settings = GenerationSettings(max_new_tokens=12)
    texts = []
    for prompt in prompts(ours):
        inputs = tensors(ours, prompt)
        found = theirs.generate(
            **inputs,
            max_new_tokens=12,
            do_sample=False,
            suppress_tokens=list(ours.rules.forbidden),
            eos_token_id=list(ours.rules.stop),
            pad_token_id=ours.rules.pad,
        )
        expected = found[0, inputs["input_ids"].shape[1] :].tolist()
        assert ours.generate(**inputs, max_new_tokens=12)[0].tolist() == expected
        stop = [token for token in expected if token not in ours.rules.stop]
        texts.append(ours.template.trim(ours.tokenizer.decode(stop)))
    ours.plan_batches(share=True)
    assert [answer.text for answer in ours.answer(prompts(ours), settings)] == texts
    ours.plan_batches(share=False)
    assert [answer.text for answer in ours.answer(prompts(ours), settings)] == texts
    assert len(set(texts)) > 2


def test_trains(pair: tuple[Line, Path, Any, Any], tmp_path: Path) -> None:
    """Loss and gradients of transformers on a conversation; a step is written and read back."""
    _, folder, theirs, _ = pair
    meta = write_data(tmp_path / "data", 4)
    recipe = read_recipe(write_recipe(tmp_path, folder, meta, steps__max_steps=1))
    start = load_start(recipe)
    network = start.network.requires_grad_(True)
    turns = (Turn("user", "<image>\nWhat is the cat?"), Turn("assistant", "the cat is a cat."))
    sample = start.encoder.encode(Conversation("x", turns), [2])
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8, generator=generator)
    loss = TrainingStep(network)(collate([[sample]], tiles, "token", start.pad_id), sample.trained)
    loss.backward()
    theirs.zero_grad()
    ids, labels = torch.tensor([sample.input_ids]), torch.tensor([sample.labels])
    expected = theirs(input_ids=ids, labels=labels, pixel_values=normalise(tiles)).loss
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=TOLERANCE)
    decoder = theirs.model.language_model
    for own, other in (
        (network.language_model.lm_head, theirs.lm_head),
        (network.mlp1[1], theirs.model.multi_modal_projector.linear_1),
        (network.language_model.model.layers[0].self_attn.o_proj, decoder.layers[0].self_attn.o_proj),
    ):
        assert (own.weight.grad - other.weight.grad).abs().max() <= 1e-4 * other.weight.grad.abs().max()
    trained = mini_internvl.load(train(recipe, say=lambda line: None, quiet=True))
    assert trained.config.template == network.config.template
    assert trained.system_message == start.encoder.system_message
    assert not torch.equal(trained.state_dict()["mlp1.1.weight"], start.network.state_dict()["mlp1.1.weight"])


@torch.no_grad()
def test_exports(pair: tuple[Line, Path, Any, Any], tmp_path: Path) -> None:
    """Each layout to the other one: the same logits here, and in transformers where it is the native one."""
    line, folder, theirs, ours = pair
    if not line.exports(folder.name):
        return
    layout = "hf" if folder.name == "released" else "released"
    exported = export(folder, tmp_path / "exported", layout).folder
    inputs = tensors(ours, prompts(ours)[0])
    expected = theirs(**inputs).logits
    again = mini_internvl.load(exported, dtype="float32", device="cpu")
    assert (again(**inputs) - expected).abs().max() <= TOLERANCE
    if layout == "hf":
        opened = AutoModelForImageTextToText.from_pretrained(exported).eval()
        assert (opened(**inputs).logits - expected).abs().max() <= TOLERANCE


def test_thinking_mode(built: tuple[Line, Path, Any]) -> None:
    """InternVL3.5's other prompt, the same in both layouts, which the signature names."""
    line, folder, _ = built
    if line.family != "qwen3":
        return
    for layout in model_lines.LAYOUTS:
        options = ModelOptions(dtype="float32", device="cpu", template="internvl2_5-thinking")
        assert FAMILY.load(str(folder / layout), options).info.template == "internvl2_5-thinking"
        ours = mini_internvl.load(folder / layout, template="internvl2_5-thinking")
        assert ours.prompt([], "Why?").text == (
            f"<|im_start|>system\n{THINKING_SYSTEM}<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
            "<|im_start|>assistant\n"
        )


def test_the_page_says_what_is_tested() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert model_lines.table() in page, "python tests/model_lines.py prints the table for docs/models.md"
    covered = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(model_lines.COLUMNS) <= covered
