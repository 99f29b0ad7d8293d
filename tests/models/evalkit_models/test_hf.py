"""Any image-text model of transformers: small random LLaVA, Qwen2-VL and native InternVL."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from small_vlms import KINDS, make_vlm

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.contracts import Generation, Message, Model, ModelOptions, Request, Response
from evalkit.data.images import ImageBytes, ImageFile
from evalkit.errors import CheckpointError, UsageError
from evalkit.store import load_run
from evalkit_models.hf import FAMILY
from evalkit_models.hf_loading import _token_ids


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint of each kind."""
    return {kind: make_vlm(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def load(folder: Path, **options: Any) -> Model:
    return FAMILY.load(f"hf:{folder}", ModelOptions(**{"dtype": "float32", "device": "cpu", **options}))


def picture(seed: int, size: tuple[int, int] = (70, 40)) -> ImageBytes:
    import io

    import numpy as np

    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return ImageBytes(buffer.getvalue(), f"picture {seed}")


def ask(name: str, text: str, *images: Any, **generation: Any) -> Request:
    return Request(name, (Message("user", text),), images, Generation(**{"max_new_tokens": 12, **generation}))


def requests(**generation: Any) -> list[Request]:
    """Lengths, sizes and numbers of pictures of all sorts."""
    return [
        ask("one", "What is it?", picture(1), **generation),
        ask("long", "Tell me all about this, " * 6, picture(2, (30, 90)), **generation),
        ask("two", "<image>\nBefore, and <image> after?", picture(3), picture(4, (50, 50)), **generation),
        ask("none", "Nothing to see.", **generation),
        ask("same", "And now?", picture(1), **generation),
    ]


def answers(model: Model, asked: list[Request]) -> dict[str, Response]:
    found = dict(model.generate(asked))
    assert sorted(found) == sorted(request.id for request in asked)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_answers_as_each_alone(kind: str, folders: dict[str, Path]) -> None:
    asked = requests()
    together = answers(load(folders[kind], batch_size=5), asked)
    alone = answers(load(folders[kind], batch_size=1), asked)
    texts = {name: response.text for name, response in together.items()}
    assert texts == {name: response.text for name, response in alone.items()}
    assert len(set(texts.values())) == 5 and all(response.error is None for response in together.values())
    assert together["one"].visual_tokens > 0 and together["none"].visual_tokens == 0
    assert together["two"].visual_tokens > together["one"].visual_tokens
    for name, response in together.items():
        assert response.prompt_tokens == alone[name].prompt_tokens > 0
        assert 0 < response.new_tokens <= 12 and response.finish in ("stop", "length")


def test_it_is_what_transformers_says(folders: dict[str, Path]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = folders["llava"]
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    shown = picture(1)
    said = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
    ]
    text = processor.apply_chat_template(said, add_generation_prompt=True)
    inputs = processor(text=[text], images=[shown.open()], return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    (response,) = answers(load(folder), [ask("a", "What is it?", shown)]).values()
    assert response.text == processor.decode(tokens, skip_special_tokens=True)


def test_the_next_input_is_made_while_the_network_works(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = load(folders["internvl"], batch_size=1)
    begun, generate, make = threading.Semaphore(0), model._model.generate, model._inputs._make
    left = ["second", "third", ""]

    def counted(batch: Any) -> Any:
        begun.release()
        return make(batch)

    def slow(**inputs: Any) -> Any:
        assert begun.acquire(timeout=60)
        if left.pop(0):
            assert begun.acquire(timeout=60), "the input of the next batch waits for this one's answer"
            begun.release()
        return generate(**inputs)

    monkeypatch.setattr(model._inputs, "_make", counted)
    monkeypatch.setattr(model._model, "generate", slow)
    asked = [ask(name, "What is it?", picture(place)) for place, name in enumerate("abc")]
    assert all(response.error is None for response in answers(model, asked).values())


@pytest.mark.slow
def test_settings_of_generation_are_honoured(folders: dict[str, Path]) -> None:
    model = load(folders["llava"])

    def text(**generation: Any) -> Response:
        (response,) = answers(model, [ask("a", "What is it?", picture(1), **generation)]).values()
        return response

    plain = text()
    assert text(max_new_tokens=3).finish == "length" and text(max_new_tokens=3).new_tokens == 3
    assert plain.text.startswith(text(max_new_tokens=3).text[:1])
    mark = plain.text[2]
    stopped = text(stop=(mark,))
    assert stopped.text == plain.text[: plain.text.index(mark)] and stopped.finish == "stop"
    drawn = {text(temperature=1.5, seed=seed).text for seed in range(4)}
    assert len(drawn) > 1
    assert text(temperature=1.5, seed=2).text == text(temperature=1.5, seed=2).text
    assert text(num_beams=3).error is None


def test_the_checkpoint_s_own_ways_of_generating_are_left_out(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["llava"], tmp_path / "copy")
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 2.0, "repetition_penalty": 5.0, "max_length": 3}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    asked = requests()
    changed, plain = answers(load(folder), asked), answers(load(folders["llava"]), asked)
    assert [changed[name].text for name in plain] == [response.text for response in plain.values()]


def test_what_goes_wrong_with_one_is_its_own_error(folders: dict[str, Path], tmp_path: Path) -> None:
    asked = [
        ask("absent", "q", ImageFile(str(tmp_path / "absent.png"))),
        ask("marks", "<image><image>", picture(1)),
        ask("mark of its own", "The token <image_pad> and <|image_pad|>", picture(1)),
        ask("sliver", "q", picture(5, (1200, 3))),
        ask("fine", "What is it?", picture(1)),
    ]
    found = answers(load(folders["qwen2-vl"], batch_size=8), asked)
    kinds = {name: response.error.kind for name, response in found.items() if response.error}
    assert kinds == {"absent": "image", "marks": "prompt", "mark of its own": "model", "sliver": "model"}
    alone = answers(load(folders["qwen2-vl"]), asked[-1:])
    assert found["fine"].text == alone["fine"].text


def test_a_batch_that_does_not_fit_is_halved_and_one_question_fails_by_itself(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    model: Any = load(folders["llava"], batch_size=5)
    generate = model._model.generate

    def out_of_memory(**inputs: Any) -> Any:
        if inputs["input_ids"].shape[1] > 90 or len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(**inputs)

    asked = requests()
    plain = answers(load(folders["llava"], batch_size=5), asked)
    monkeypatch.setattr(model._model, "generate", out_of_memory)
    found = answers(model, asked)
    assert {name: found[name].error.kind for name in found if found[name].error} == {"long": "memory"}
    assert all(found[name].text == plain[name].text for name in found if name != "long")


@pytest.mark.parametrize(
    ("stored", "own", "ends", "pad"),
    [
        (
            {"eos_token_id": [7, 8], "pad_token_id": None},
            {"eos_token_id": 2, "pad_token_id": None},
            [7, 8],
            7,
        ),
        ({"eos_token_id": None, "pad_token_id": None}, {"eos_token_id": 2, "pad_token_id": None}, 2, 2),
        ({"eos_token_id": 7, "pad_token_id": None}, {"eos_token_id": 2, "pad_token_id": 0}, 7, 0),
        ({"eos_token_id": 7, "pad_token_id": 3}, {"eos_token_id": 2, "pad_token_id": 0}, 7, 3),
    ],
)
def test_answers_end_as_the_checkpoint_says_or_else_its_tokenizer(
    stored: dict[str, Any], own: dict[str, Any], ends: Any, pad: int
) -> None:
    settings = SimpleNamespace(generation_config=SimpleNamespace(bos_token_id=1, **stored))
    found = _token_ids(settings, SimpleNamespace(**own))
    assert (found.eos_token_id, found.pad_token_id, found.bos_token_id) == (ends, pad, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_miniatures(
    kind: str,
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "families", lambda: (FAMILY,))
    fixed = ["--split", "miniature", "--limit", "6", "--gen", "max_new_tokens=8", "--json", "-q"]
    chosen = ["-m", f"hf:{folders[kind]}", "-t", "drivelm,rsvqa-lr", "-o", str(tmp_path), "--device", "cpu"]
    assert invoke(["run", *chosen, *fixed]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["task"] for run in runs] == ["drivelm", "rsvqa-lr"]
    for run in runs:
        assert run["counts"]["answered"] == 6 and run["counts"]["errors"] == 0
        assert "|inputs:processor|" in run["signature"] and "|dtype:fp32|" in run["signature"]
        assert "|tiles:processor|" in run["signature"]
        assert run["model"] == f"hf:{folders[kind].name}"
        manifest = load_run(run["run"]).manifest
        assert len(manifest["model"]["fingerprint"]) == 64
        texts = {stored.response.text for stored in load_run(run["run"]).responses().values()}
        assert len(texts) > 1


# What is refused ------------------------------------------------------------------------------------------


def changed(folder: Path, copy: Path, **config: Any) -> Path:
    shutil.copytree(folder, copy)
    content = {**json.loads((copy / "config.json").read_text()), **config}
    (copy / "config.json").write_text(json.dumps(content))
    return copy


def test_code_of_a_repository_is_never_run(folders: dict[str, Path], tmp_path: Path) -> None:
    trap = "raise SystemExit('run!')"
    own = changed(
        folders["llava"],
        tmp_path / "own",
        model_type="internvl_chat",
        auto_map={"AutoConfig": "trap.Config", "AutoModelForImageTextToText": "trap.Model"},
    )
    (own / "trap.py").write_text(trap)
    with pytest.raises(CheckpointError, match=r"internvl_chat.*trust_remote_code.*never run"):
        load(own)
    known = changed(
        folders["llava"], tmp_path / "known", auto_map={"AutoModelForImageTextToText": "trap.Model"}
    )
    (known / "trap.py").write_text(trap)
    assert answers(load(known), requests())["one"].error is None
    processor = shutil.copytree(folders["llava"], tmp_path / "processor")
    settings = json.loads((processor / "processor_config.json").read_text())
    settings |= {"processor_class": "Trap", "auto_map": {"AutoProcessor": "trap.Trap"}}
    (processor / "processor_config.json").write_text(json.dumps(settings))
    (processor / "trap.py").write_text(trap)
    try:
        load(processor)  # transformers may know a class of its own for this model
    except CheckpointError as error:
        assert "trust_remote_code" in str(error)


def test_what_cannot_be_loaded_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load(tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(CheckpointError, match="model type 'bert' is not an image-text model"):
        load(changed(folders["llava"], tmp_path / "bert", model_type="bert"))
    pickled = changed(folders["llava"], tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is refused"):
        load(pickled)
    mute = changed(folders["llava"], tmp_path / "mute")
    (mute / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="no chat template"):
        load(mute)
    broken = changed(folders["llava"], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="the model cannot be loaded"):
        load(broken)


def test_flags_without_meaning(folders: dict[str, Path]) -> None:
    for options in ({"base_url": "http://x/v1"}, {"extra": {"a": "b"}}, {"dtype": "int8"}, {"compile": True}):
        with pytest.raises(UsageError):
            load(folders["llava"], **options)
    with pytest.raises(UsageError, match="give a hub id"):
        FAMILY.load("hf:", ModelOptions())


def test_the_revision_is_pinned(folders: dict[str, Path], tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--o--n" / "snapshots" / commit
    shutil.copytree(folders["llava"], place)
    assert load(place).info.revision == commit
    assert load(folders["llava"]).info.revision is None
    assert load(folders["llava"], checkpoint=str(place)).info.name.endswith(f"@{commit}")


def test_each_question_is_drawn_by_itself(folders: dict[str, Path]) -> None:
    """Not as its neighbours were, and alike whatever is asked before it."""
    model = load(folders["qwen2-vl"])
    same = [ask(name, "what is it", temperature=1.5, seed=1, max_new_tokens=8) for name in "abcd"]
    together = answers(model, same)
    assert len({found.text for found in together.values()}) > 1
    assert answers(model, same[2:3])["c"].text == together["c"].text


def test_repeats(
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "families", lambda: (FAMILY,))
    chosen = ["-m", f"hf:{folders['qwen2-vl']}", "-t", "rsvqa-lr", "-o", str(tmp_path), "--device", "cpu"]
    drawn = ["--repeats", "2", "--gen", "temperature=1.5", "--gen", "max_new_tokens=4"]
    assert invoke(["run", *chosen, *drawn, "--split", "miniature", "--limit", "2", "--json", "-q"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["repeats"]["seeds"] == [0, 1] and run["counts"]["answered"] == 2
    assert len(load_run(run["run"]).responses()) == 4
