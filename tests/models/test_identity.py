"""A checkpoint's identity covers every file that decides an answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import small_networks as networks
import small_tokenizers
from small_vlms import make_vlm

import mini_internvl
from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.contracts import ModelOptions
from evalkit_models.hf import FAMILY
from mini_internvl.identity import checkpoint_identity, deciding_files
from mini_internvl.releases import TINY_FOLDER

WRITERS: dict[str, Callable[[Path], Path]] = {
    "qwen2": small_tokenizers.write_qwen2,
    "internlm2": small_tokenizers.write_internlm2,
    "phi3": small_tokenizers.write_phi3,
}


@pytest.mark.parametrize("family", WRITERS)
def test_every_small_file_counts_in_every_family(family: str, tmp_path: Path) -> None:
    folder = WRITERS[family](tmp_path)
    for name in ("config.json", "generation_config.json", "preprocessor_config.json", "chat_template.jinja"):
        (folder / name).write_text("{}")
    before = checkpoint_identity(folder, "0")
    named = {path.name for path in deciding_files(folder)}
    assert named == {path.name for path in folder.iterdir()}
    for path in deciding_files(folder):
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert checkpoint_identity(folder, "0") != before, path.name
        path.unlink()
        assert checkpoint_identity(folder, "0") != before, path.name
        path.write_bytes(content)
    assert checkpoint_identity(folder, "0") == before != checkpoint_identity(folder, "1")


def test_what_decides_nothing_does_not_count(tmp_path: Path) -> None:
    before = checkpoint_identity(small_tokenizers.write_qwen2(tmp_path), "0")
    for name in ("README.md", "modeling.py", "trainer_state.json", "training_args.bin"):
        (tmp_path / name).write_text("{}")
    assert checkpoint_identity(tmp_path, "0") == before


@pytest.mark.parametrize("family", WRITERS)
def test_a_loaded_model_has_the_identity_of_its_files(family: str, tmp_path: Path) -> None:
    networks.save_native(family, tmp_path / "native")
    model = mini_internvl.load(tmp_path / "native")
    mini_internvl.save_checkpoint(model, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    config = json.loads((tmp_path / "two/config.json").read_text())
    (tmp_path / "two/config.json").write_text(json.dumps({**config, "select_layer": -2}))
    one, two = (mini_internvl.load(tmp_path / name) for name in ("one", "two"))
    assert one.weights_fingerprint == two.weights_fingerprint
    assert one.fingerprint != two.fingerprint


def test_hf_models_have_it_too(tmp_path: Path) -> None:
    folder = make_vlm("qwen2-vl", tmp_path / "vlm")
    options = ModelOptions(dtype="float32", device="cpu")
    before = FAMILY.load(f"hf:{folder}", options).info
    with (folder / "generation_config.json").open("a") as file:
        file.write("\n")
    after = FAMILY.load(f"hf:{folder}", options).info
    assert before.weights == after.weights and before.fingerprint != after.fingerprint


def test_a_repaired_checkpoint_does_not_get_its_old_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(TINY_FOLDER, folder)

    def run() -> str:
        chosen = ["-m", str(folder), "-t", "rsvqa-lr", "--split", "miniature", "--limit", "2"]
        fixed = ["--device", "cpu", "-o", str(tmp_path / "runs"), "--json", "-q"]
        assert invoke(["run", *chosen, *fixed]) == 0
        return str(json.loads(capsys.readouterr().out)["runs"][0]["run"])

    registry.tasks()
    good = folder / "tokenizer_config.json"
    content = json.loads(good.read_text())
    good.write_text(json.dumps({**content, "model_max_length": 77}))
    broken = run()
    assert run() == broken
    good.write_text(json.dumps(content))
    assert run() != broken
