"""What trainings leave in place of weights is named, and an absent device is not blamed on the files."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import small_networks as networks
import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

import mini_internvl
from evalkit.contracts import ModelOptions
from evalkit.errors import UsageError
from evalkit_models.hf import FAMILY as HF
from mini_internvl.errors import CheckpointError, ConfigError

FAMILIES = ("qwen2", "internlm2", "phi3")


class Bomb:
    """A pickle that says so when it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was read')",)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`FAMILY/` in the released layout."""
    folder = tmp_path_factory.mktemp("released")
    for family in FAMILIES:
        networks.save_native(family, folder / "native" / family)
        mini_internvl.save_checkpoint(mini_internvl.load(folder / "native" / family), folder / family)
    return folder


def leave(folder: Path, *names: str) -> None:
    """Files that a training leaves; reading any of them as a pickle ends the test."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pickle.dumps(Bomb()))


LEFTOVERS: dict[str, tuple[tuple[str, ...], str]] = {
    "deepspeed": (
        ("global_step20/mp_rank_00_model_states.pt", "zero_to_fp32.py", "latest"),
        "python -m deepspeed.utils.zero_to_fp32 .* --safe_serialization",
    ),
    "states alone": (("zero_pp_rank_0_mp_rank_00_optim_states.pt",), "is DeepSpeed's state"),
    "fsdp": (
        ("pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp"),
        "accelerate merge-weights .*pytorch_model_fsdp_0 ",
    ),
    "shards here": ((".metadata", "__0_0.distcp"), "holds shards of FSDP"),
    "pickle": (("pytorch_model.bin", "training_args.bin"), "pytorch_model.bin is refused"),
    "shards of pickles": (("pytorch_model-00001-of-00002.bin",), "weights_only=True"),
}


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_leftovers_are_named_with_the_command_that_converts_them(
    kind: str, released: Path, tmp_path: Path
) -> None:
    names, message = LEFTOVERS[kind]
    folder = tmp_path / "checkpoint"
    shutil.copytree(released / "qwen2", folder)
    leave(folder, *names)
    mini_internvl.load(folder)  # beside weights they are passed over
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=message):
        mini_internvl.load(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_shards_that_were_not_gathered_are_said_to_be_so(family: str, released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(released / family, folder)
    state = load_file(folder / "model.safetensors")
    save_file({name: torch.zeros(0) for name in state}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="shards of ZeRO-3 that were not gathered: python -m deepspeed"):
        mini_internvl.load(folder)


def test_the_folder_above_names_the_checkpoint_in_it(released: Path, tmp_path: Path) -> None:
    shutil.copytree(released / "qwen2", tmp_path / "out" / "checkpoint-20")
    with pytest.raises(ConfigError, match=r"did you mean .*out/checkpoint-20\?"):
        mini_internvl.load(tmp_path / "out")


class FakeMps(TorchFunctionMode):
    """Apple's GPU as far as code can tell: tensors go there, but none of a type that it lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def here(value: Any) -> Any:
            if value == "mps" or (isinstance(value, torch.device) and value.type == "mps"):
                self.moved += 1
                return torch.device("cpu")
            return value

        plain = [here(value) if isinstance(value, (str, torch.device)) else value for value in args]
        named = {k: here(v) if isinstance(v, (str, torch.device)) else v for k, v in (kwargs or {}).items()}
        result = func(*plain, **named)
        if isinstance(result, torch.Tensor) and result.dtype in (torch.float64, torch.complex128):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support it"
            )
        return result


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_apples_gpu_answers(dtype: str, family: str, released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = networks.inputs(((1, 6), (2, 9)))
    expected = mini_internvl.load(released / family, image_token_id=networks.IMAGE_TOKEN)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with FakeMps() as fake:
        model = mini_internvl.load(
            released / family, image_token_id=networks.IMAGE_TOKEN, dtype=dtype, device="mps"
        )
        assert fake.moved and str(model.dtype) == f"torch.{dtype}"
        logits = model(**batch)
        tokens = model.generate(**batch, max_new_tokens=5)
    if dtype == "float32":
        assert torch.equal(tokens, expected.generate(**batch, max_new_tokens=5))
    close = (logits.float() - expected(**batch))[batch["attention_mask"].bool()].abs().max()
    assert close < (1e-5 if dtype == "float32" else 0.2)


@pytest.mark.parametrize("device", ["cuda:3", "mps", "abacus"])
def test_hf_models_name_an_absent_device_too(
    device: str, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=f"--device: .*{device}"):
        HF.load(f"hf:{released / 'native/qwen2'}", ModelOptions(device=device))


def test_nothing_else_of_a_checkpoint_is_run(released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(released / "phi3", folder)
    for name in ("zero_to_fp32.py", "modeling_internvl_chat.py", "conversation.py", "sitecustomize.py"):
        (folder / name).write_text("raise SystemExit('was run')")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**raw, "auto_map": {"AutoModel": "modeling_internvl_chat.X"}})
    )
    mini_internvl.load(folder)
