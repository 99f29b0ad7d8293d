"""Numbers that are not numbers stop a run and are named, in every way of decoding."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from small_vlms import make_vlm

from evalkit.cli.main import invoke
from evalkit.contracts import Generation, Message, ModelOptions, Request
from evalkit.data.images import ImageBytes
from evalkit.errors import ModelError
from evalkit_models.hf import FAMILY
from mini_internvl.releases import TINY_FOLDER

PARTS = {
    "vision encoder": "vision_model.encoder.layers.0.norm1.weight",
    "projector": "mlp1.1.bias",
    "language model": "language_model.model.layers.0.mlp.down_proj.weight",
}


@pytest.fixture(params=PARTS)
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The part, and a copy of the small model with one of its tensors set to NaN."""
    folder = tmp_path / "damaged"
    shutil.copytree(TINY_FOLDER, folder)
    state = load_file(folder / "model.safetensors")
    state[PARTS[request.param]].fill_(float("nan"))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return request.param, folder


@pytest.mark.parametrize("how", [[], ["--gen", "temperature=1"], ["--gen", "num_beams=3"]])
def test_the_run_stops_and_names_sample_and_part(
    how: list[str], damaged: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part, folder = damaged
    chosen = ["-m", str(folder), "-t", "rsvqa-lr", "--split", "miniature", "--limit", "3"]
    status = invoke(["run", *chosen, *how, "--device", "cpu", "-o", str(tmp_path / "runs"), "--json", "-q"])
    captured = capsys.readouterr()
    assert status == 3, json.dumps(captured.err)
    assert f"the output of the {part} is not finite" in captured.err and "sample " in captured.err


@pytest.mark.parametrize(
    ("weight", "part"),
    [
        ("down_proj.weight", "language model"),
        ("merger.mlp.0.weight", "projector"),
        ("fc1.weight", "vision encoder"),
    ],
)
@pytest.mark.parametrize("generation", [{}, {"temperature": 1.0}, {"num_beams": 2}])
def test_hf_models_stop_too(generation: dict[str, float], weight: str, part: str, tmp_path: Path) -> None:
    folder = make_vlm("qwen2-vl", tmp_path / "vlm")
    (file,) = folder.glob("*.safetensors")
    state = load_file(file)
    name = next(name for name in state if name.endswith(weight))
    state[name].fill_(float("nan"))
    save_file(state, file, metadata={"format": "pt"})
    model = FAMILY.load(f"hf:{folder}", ModelOptions(dtype="float32", device="cpu"))
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    images = (ImageBytes(picture.getvalue(), "red"),)
    asked = Request("first", (Message("user", "What?"),), images, Generation(max_new_tokens=3, **generation))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=f"sample first: the output of the {part} .* is not finite"):
        list(model.generate([asked]))
