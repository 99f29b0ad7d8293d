"""Adapters as PEFT stores them: written by a training, opened by PEFT, and folded from other programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import small_networks as networks
import torch
from safetensors.torch import load_file, save_file
from small_training import WRITERS, make_recipe, write_checkpoint
from torch import nn

import mini_internvl
from evalkit.cli.main import invoke
from mini_internvl.errors import CheckpointError
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.recipe import Lora
from mini_internvl_train.shared_lora import share_first_matrices

QUIET: dict[str, Any] = {"say": lambda line: None, "quiet": True}
FAMILIES = ("qwen2", "internlm2", "phi3", "qwen3")
IDS = torch.randint(3, 200, (1, 12), generator=torch.Generator().manual_seed(0))


def trained(folder: Path, family: str, trainable: str = "lora_projector") -> tuple[Path, Path]:
    """A step's folder and the final model, which is folded by the training itself."""
    recipe = make_recipe(folder, family=family, trainable=trainable, steps__max_steps=2, optimizer__lr=0.05)
    return folder / "out/step-000002", train(recipe, **QUIET)


def with_native_base(folder: Path, family: str) -> Path:
    """A base in transformers' own layout, with its tokenizer."""
    base = folder / "model"
    networks.save_native(family, base)
    WRITERS[family](base)
    return base


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_an_adapter_that_runs_on_its_base(family: str, tmp_path: Path) -> None:
    step, final = trained(tmp_path, family)
    names = {path.name for path in step.iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "adapter.safetensors"}
    expected = mini_internvl.load(final)(input_ids=IDS)
    for model in (mini_internvl.load(step), mini_internvl.load(step, folder=tmp_path / "model")):
        assert torch.allclose(model(input_ids=IDS), expected, atol=1e-5)
    stored = load_file(step / "adapter_model.safetensors")
    assert any("attention.wqkv.lora_B" in name for name in stored) == (family == "internlm2")
    assert "base_model.model.mlp1.3.weight" in stored
    assert {len(tensor) for name, tensor in stored.items() if name.endswith("lora_A.weight")} == {16}
    other = write_checkpoint(tmp_path / "other", family, seed=1)
    with pytest.raises(CheckpointError, match="other weights, settings or tokenizer than the base"):
        mini_internvl.load(step, folder=other)


@pytest.mark.parametrize("settings", [{}, {"rslora": True}, {"dora": True}])
def test_adapters_of_internlm2_are_those_of_its_fused_layer(settings: dict[str, bool]) -> None:
    """As PEFT adapts one layer that holds queries, keys and values: outputs and gradients, with dropout."""
    torch.manual_seed(0)
    attention: Any = nn.Module()
    for name, rows in (("q_proj", 8), ("k_proj", 4), ("v_proj", 4)):
        attention.add_module(name, nn.Linear(6, rows, bias=False))
    whole: Any = nn.Module()
    whole.add_module("qkv", nn.Linear(6, 16, bias=False))
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    whole.qkv.weight.data = torch.cat([part.weight.data for part in parts])
    lora = Lora(rank=3, alpha=4, dropout=0.5, **settings)
    for module, targets in ((attention, ["q_proj", "k_proj", "v_proj"]), (whole, ["qkv"])):
        peft.inject_adapter_in_model(peft.LoraConfig(target_modules=targets, **lora.peft_settings()), module)
    share_first_matrices(attention)
    a, b = whole.qkv.lora_A["default"].weight, whole.qkv.lora_B["default"].weight
    a.data.copy_(attention.q_proj.lora_A["default"].weight.data)
    b.data.normal_()
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    for part, rows in zip(parts, b.data.split([8, 4, 4]), strict=True):
        part.lora_B["default"].weight.data.copy_(rows)
    for _ in range(2):  # each pass draws anew
        x = torch.randn(5, 6)
        torch.manual_seed(1)
        expected = whole.qkv(x)
        torch.manual_seed(1)
        found = torch.cat([part(x) for part in parts], dim=-1)
        assert torch.allclose(found, expected, atol=1e-6)
        found.square().sum().backward()
        expected.square().sum().backward()
    shared = attention.v_proj.lora_A["default"].weight
    assert torch.allclose(shared.grad, a.grad, atol=1e-4)
    learned = sum(p.numel() for name, p in attention.named_parameters() if "lora_" in name)
    assert learned == sum(p.numel() for name, p in whole.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("family", ["qwen2", "phi3"])
def test_peft_opens_a_step_over_the_released_names(family: str, tmp_path: Path) -> None:
    step, final = trained(tmp_path, family)
    base = mini_internvl.read_network(tmp_path / "model", mini_internvl.MiniInternVL)
    opened = peft.PeftModel.from_pretrained(base, step).eval()
    expected = mini_internvl.load(final)(input_ids=IDS)
    assert torch.allclose(opened(input_ids=IDS), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_opens_a_step_over_transformers_own_class(family: str, tmp_path: Path) -> None:
    from transformers import InternVLForConditionalGeneration

    base = with_native_base(tmp_path, family)
    step, final = trained(tmp_path, family)
    network = InternVLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    plain = network(input_ids=IDS).logits
    opened = peft.PeftModel.from_pretrained(network, step).eval()(input_ids=IDS).logits
    assert torch.allclose(opened, mini_internvl.load(final)(input_ids=IDS), atol=2e-5)
    again = mini_internvl.load(step, template="phi3-chat-hf" if family == "phi3" else "internvl2_5-hf")
    assert torch.allclose(opened, again(input_ids=IDS), atol=2e-5)
    assert not torch.allclose(opened, plain, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_programs_adapter_is_folded_by_the_command(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step, _ = trained(tmp_path, family, "lora")
    (step / "adapter_settings.json").unlink()
    (step / "adapter.safetensors").unlink()  # as an adapter of peft
    weights = load_file(step / "adapter_model.safetensors")
    save_file(weights, step / "adapter_model.safetensors")  # without the base's identity
    base = shutil.move(tmp_path / "model", tmp_path / "moved")
    assert invoke(["train", "merge", str(step), "-o", str(tmp_path / "merged")]) == 3
    assert "give it by --checkpoint or --base" in capsys.readouterr().err
    assert invoke(["train", "merge", str(step), "--base", str(base), "-o", str(tmp_path / "merged")]) == 0
    merged = mini_internvl.load(tmp_path / "merged")
    assert torch.equal(merged(input_ids=IDS), mini_internvl.load(step, folder=base)(input_ids=IDS))
    assert merged.tokenizer is not None and merged.system_message == "Be short."
