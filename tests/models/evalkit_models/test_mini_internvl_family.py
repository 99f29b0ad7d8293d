"""The family of the in-repository Mini-InternVL: names, flags, turns, what it says of itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from evalkit.contracts import Generation, ImagePolicy, Message, ModelOptions, Request
from evalkit.data.images import ImageFile
from evalkit.errors import CheckpointError, UsageError
from evalkit_models.mini_internvl import FAMILY, MiniInternVLModel


@pytest.fixture(scope="module")
def model() -> MiniInternVLModel:
    loaded = FAMILY.load("mini-internvl-tiny", ModelOptions(dtype="float32", device="cpu", batch_size=3))
    assert isinstance(loaded, MiniInternVLModel)
    return loaded


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[ImageFile]:
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    handles = []
    for number, size in enumerate([(64, 64), (200, 60), (40, 130)]):
        path = folder / f"{number}.png"
        Image.new("RGB", size, (number * 80, 90, 200 - number * 60)).save(path)
        handles.append(ImageFile(str(path)))
    return handles


def ask(name: str, images: tuple[ImageFile, ...], *texts: str, tokens: int = 5, tiles: int = 2) -> Request:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(texts))  # type: ignore[arg-type]
    return Request(name, messages, images, Generation(max_new_tokens=tokens), ImagePolicy(max_tiles=tiles))


@pytest.mark.parametrize(
    ("spec", "ours"),
    [
        ("mini-internvl-2b", True),
        ("mini-internvl-tiny", True),
        ("OpenGVLab/InternVL2-2B", True),
        ("somebody/their-finetune", True),
        ("predictions:a/b", False),
        ("openai:x/y", False),
        ("mini-internvl-3b", False),
        ("a/b/c", False),
        ("./none/x", False),
    ],
)
def test_which_names_belong_to_the_family(spec: str, ours: bool) -> None:
    assert FAMILY.matches(spec) is ours


def test_a_folder_belongs_to_the_family(tmp_path: Path) -> None:
    assert FAMILY.matches(str(tmp_path))
    with pytest.raises(CheckpointError):
        FAMILY.load(str(tmp_path), ModelOptions())


def test_unlike_requests_get_the_answers_they_get_alone(model, pictures) -> None:
    requests = [
        ask("a", (pictures[0],), "What colour is it?"),
        ask("b", (pictures[1], pictures[2]), "Compare <image> and <image>."),
        ask("c", (), "No picture at all"),
        ask("d", (pictures[2],), "First?", "An answer.", "And then?"),
        ask("e", (pictures[1],), "What colour is it?", tokens=3, tiles=6),
        ask("f", (pictures[0],), "How many?"),
    ]
    together = dict(model.generate(requests))
    assert set(together) == set("abcdef")
    for request in requests:
        ((_, alone),) = model.generate([request])
        assert dataclasses.replace(alone, seconds=0) == dataclasses.replace(together[request.id], seconds=0)
        assert alone.error is None and 0 < alone.new_tokens <= request.generation.max_new_tokens
        assert (alone.visual_tokens > 0) == bool(request.images) and alone.prompt_tokens > 0


def test_a_system_message_takes_the_place_of_the_models_own(model, pictures) -> None:
    plain = ask("a", (pictures[0],), "What?")
    told = dataclasses.replace(plain, messages=(Message("system", "x" * 400), *plain.messages))
    answers = {request: next(model.generate([request]))[1].prompt_tokens for request in (plain, told)}
    assert answers[told] > answers[plain]


def test_an_unreadable_picture_fails_alone(model, pictures, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    requests = [
        ask("good", (pictures[0],), "What?"),
        ask("missing", (ImageFile(str(tmp_path / "none.png")),), "What?"),
        ask("text", (pictures[0], ImageFile(str(tmp_path / "text.png"))), "<image> <image>"),
        ask("marks", (pictures[0],), "<image> <image>"),
    ]
    answers = dict(model.generate(requests))
    assert answers["good"].error is None
    assert answers["missing"].error.kind == "image" and "none.png" in answers["missing"].error.message
    assert answers["text"].error.kind == "image" and "text.png" in answers["text"].error.message
    assert answers["marks"].error.kind == "prompt"


def test_identity(model) -> None:
    info = model.info
    assert info.name == "mini-internvl-tiny" and info.dtype == "float32" and info.device == "cpu"
    assert info.fingerprint and info.parameters and info.settings["template"]


def test_an_untrained_model_says_so(model, monkeypatch) -> None:
    network = model._network
    monkeypatch.setattr(network, "untrained", True)
    assert "untrained" in MiniInternVLModel(network, "x", ModelOptions()).info.notes[0]
    monkeypatch.setattr(network, "untrained", False)
    assert MiniInternVLModel(network, "x", ModelOptions()).info.notes == ()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (ModelOptions(base_url="http://x"), UsageError),
        (ModelOptions(extra={"colour": "red"}), UsageError),
        (ModelOptions(dtype="float7"), CheckpointError),
        (ModelOptions(device="abacus"), UsageError),
        (ModelOptions(checkpoint="/nowhere/at/all"), CheckpointError),
    ],
)
def test_what_cannot_be_honoured_is_one_line(options: ModelOptions, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        FAMILY.load("mini-internvl-tiny", options)
    assert "\n" not in str(caught.value)
