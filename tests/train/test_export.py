"""`evalkit train export`: transformers' own classes open the folder and answer the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from real_serve import needs_serve, served
from small_training import write_checkpoint, write_data, write_recipe
from transformers.utils import is_torchvision_available

import mini_internvl
from evalkit.cli.main import invoke
from evalkit.store.records import read_records
from evalkit_models.hf_loading import _processor
from mini_internvl.native import write_native
from mini_internvl_train.errors import ResumeError, TrainingError
from mini_internvl_train.export import export

FAMILIES = ("qwen2", "internlm2", "phi3", "qwen3")


@pytest.fixture(scope="module", params=FAMILIES)
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A released checkpoint and its export."""
    folder = tmp_path_factory.mktemp(request.param)
    base = write_checkpoint(folder / "base", request.param)
    return base, export(base, folder / "hf", "hf").folder


def opened(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText

    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    return model.eval(), _processor(folder)


@torch.no_grad()
def test_prompt_tiles_logits_and_answers_are_those_of_the_checkpoint(folders: tuple[Path, Path]) -> None:
    base, exported = folders
    network = mini_internvl.load(base, dtype="float32", device="cpu")
    model, processor = opened(exported)
    image = Image.effect_mandelbrot((70, 40), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What colour, 你好?"}]}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=text, images=[image], return_tensors="pt")
    prompt = network.prompt([image], "<image>\nWhat colour, 你好?")
    assert inputs["input_ids"][0].tolist() == network.tokenizer.encode(prompt.text)  # type: ignore[union-attr]
    ours = network(input_ids=inputs["input_ids"], pixel_values=prompt.tiles)
    theirs = model(**inputs).logits
    assert (ours - theirs).abs().max() < 1e-5
    again = mini_internvl.load(exported, dtype="float32", device="cpu")
    assert torch.equal(again(input_ids=inputs["input_ids"], pixel_values=prompt.tiles), ours)
    assert again.rules.stop == network.rules.stop


def spread(folder: Path) -> None:
    """Larger random weights, so that answers differ from image to image."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    state = {n: w * 8 if w.dim() > 1 else w for n, w in load_file(path).items()}
    save_file(state, path, metadata={"format": "pt"})


def test_the_way_back_gives_the_same_weights(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, exported = folders
    back = export(exported, tmp_path / "back", "released").folder
    one, two = (mini_internvl.load(folder, dtype="float32", device="cpu") for folder in (base, back))
    for (name, left), right in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(left, right), name
    assert json.loads((back / "config.json").read_text())["model_type"] == "internvl_chat"


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    (tmp_path / "out").mkdir()
    with pytest.raises(TrainingError, match="exists already"):
        export(base, tmp_path / "out", "hf")
    with pytest.raises(TrainingError, match="'released' already"):
        export(base, tmp_path / "new", "released")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    with pytest.raises(ResumeError, match="evalkit train merge"):
        export(tmp_path / "adapter", tmp_path / "new", "hf")
    for lacking in ("tokenizer", "folder"):
        network = mini_internvl.load(base, dtype="float32", device="cpu")
        setattr(network, lacking, None)
        with pytest.raises(mini_internvl.CheckpointError, match="with its tokenizer files"):
            write_native(network, tmp_path / "new")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "ps_version": "v1"}))
    with pytest.raises(mini_internvl.CheckpointError, match="ps_version v1"):
        export(base, tmp_path / "new", "hf")
    assert not (tmp_path / "new").exists()


def test_a_trained_network_answers_alike_in_both_layouts_and_both_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_checkpoint(tmp_path / "base")
    spread(base)
    recipe = write_recipe(
        tmp_path, base, write_data(tmp_path / "data"), steps__max_steps=20, optimizer__lr=1e-4
    )
    assert invoke(["train", str(recipe), "-q"]) == 0
    final = tmp_path / "out/final"
    assert invoke(["train", "export", str(final), "--to", "hf", "-o", str(tmp_path / "hf")]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    two = ("--dtype", "float32", "--max-tiles", "2")  # as it was trained
    texts = {
        "released": answers(str(final), tmp_path / "released", *two),
        "native": answers(str(tmp_path / "hf"), tmp_path / "native", *two),
        "hf": answers(f"hf:{tmp_path / 'hf'}", tmp_path / "run-hf", "--dtype", "float32"),
    }
    assert texts["released"] == texts["native"] == texts["hf"]
    assert len(set(texts["hf"].values())) > 1


def answers(model: str, output: Path, *more: str) -> dict[str, str]:
    """Twelve answers of a miniature by sample."""
    common = ["--split", "miniature", "--limit", "12", "--gen", "max_new_tokens=6", "-q", "-o", str(output)]
    assert invoke(["run", "-m", model, "-t", "chartqa", *common, *more]) == 0, model
    return {record.id: record.text for record in read_records(next(output.rglob("summary.json")).parent)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_native_folder_is_trained_by_its_own_prompt(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_checkpoint(tmp_path / "base", family)
    exported = export(base, tmp_path / "hf", "hf").folder
    recipe = write_recipe(tmp_path, exported, write_data(tmp_path / "data"), steps__max_steps=1)
    assert invoke(["train", str(recipe), "-q"]) == 0
    image = Image.new("RGB", (40, 40))
    asked = {
        mini_internvl.load(at).prompt([image], "Why?").text for at in (base, exported, tmp_path / "out/final")
    }
    assert len(asked) == 1 and "Be short." in asked.pop()
    chat = exported / "chat_template.jinja"
    chat.write_text(chat.read_text().replace("assistant", "helper"))
    shutil.rmtree(tmp_path / "out")
    assert invoke(["train", str(recipe), "-q"]) == 2
    assert "start from the released layout" in capsys.readouterr().err


@pytest.mark.slow
@needs_serve
def test_a_real_server_answers_as_the_checkpoint(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    spread(base)
    exported = export(base, tmp_path / "hf", "hf").folder
    with served(exported, tmp_path) as url:
        theirs = answers(f"openai:{exported}", tmp_path / "served", "--base-url", url)
    # The server's own images may be prepared by torchvision, whose pixels differ by one level here and there:
    # so do those of `hf:` in the same environment.
    assert theirs == answers(f"hf:{exported}", tmp_path / "inside", "--dtype", "float32")
    if not is_torchvision_available():
        assert theirs == answers(str(base), tmp_path / "native", "--dtype", "float32")
    assert len(set(theirs.values())) > 1
