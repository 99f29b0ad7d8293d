"""Adapters: what learns, and the merged model equal to the unmerged one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import make_recipe

import mini_internvl
from mini_internvl_train import merge as merge_module
from mini_internvl_train.errors import ResumeError, TrainingError
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.merge import load_adapted, merge
from mini_internvl_train.start import count, learned_parameters, load_start, prepare

QUIET: dict[str, Any] = {"say": lambda line: None, "quiet": True}


@pytest.mark.parametrize("family", ["qwen2", "internlm2", "phi3", "qwen3"])
def test_merged_logits_equal_unmerged(tmp_path: Path, family: str) -> None:
    recipe = make_recipe(
        tmp_path, family=family, trainable="lora_projector", steps__max_steps=3, optimizer__lr=0.05
    )
    final = train(recipe, **QUIET)
    step = tmp_path / "out/step-000003"
    assert not (step / "model.safetensors").exists()
    merged = merge(step, tmp_path / "merged")
    assert merged.difference < 1e-5
    ids = torch.randint(3, 200, (1, 12), generator=torch.Generator().manual_seed(0))
    unmerged = load_adapted(step)(input_ids=ids)
    one = mini_internvl.load(merged.folder)(input_ids=ids)
    base = mini_internvl.load(tmp_path / "model")(input_ids=ids)
    assert torch.allclose(one, unmerged, atol=1e-5)
    assert torch.equal(one, mini_internvl.load(final)(input_ids=ids))
    assert not torch.allclose(one, base, atol=1e-3)


def test_a_merged_model_that_answers_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(make_recipe(tmp_path, trainable="lora", steps__max_steps=1), **QUIET)
    fold = merge_module.merge_lora

    def fold_wrongly(network: Any) -> None:
        fold(network)
        network.language_model.lm_head.weight.data[0] += 1.0

    monkeypatch.setattr(merge_module, "merge_lora", fold_wrongly)
    with pytest.raises(TrainingError, match="merged logits differ by"):
        merge(tmp_path / "out/step-000001", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_what_learns(tmp_path: Path) -> None:
    learns = {}
    for trainable in ("full", "frozen_vit", "lora", "lora_projector", "projector"):
        recipe = make_recipe(tmp_path, trainable=trainable)
        start = load_start(recipe)
        prepare(start.network, recipe)
        learns[trainable] = {name for name, _ in learned_parameters(start.network)}
        parts = {part.part: part.trainable for part in count(start.network)}
        assert sum(parts.values()) == sum(p.numel() for _, p in learned_parameters(start.network))
        assert (parts.get("LoRA adapters", 0) > 0) == trainable.startswith("lora")
    assert len(learns["full"]) > len(learns["frozen_vit"])
    assert not any(name.startswith("vision_model") for name in learns["frozen_vit"])
    assert all("lora_" in name for name in learns["lora"])
    assert learns["projector"] == {n for n in learns["full"] if n.startswith("mlp1.")}
    assert learns["lora_projector"] == learns["lora"] | learns["projector"]


def test_a_model_is_refused_by_merge(tmp_path: Path) -> None:
    train(make_recipe(tmp_path, trainable="lora", steps__max_steps=1), **QUIET)
    with pytest.raises(ResumeError, match="only LoRA"):
        merge(tmp_path / "out/final", tmp_path / "merged")


def test_another_base_is_refused(tmp_path: Path) -> None:
    train(make_recipe(tmp_path, trainable="lora", steps__max_steps=1), **QUIET)
    settings = tmp_path / "out/step-000001/adapter_settings.json"
    content = json.loads(settings.read_text())
    content["base"]["fingerprint"] = "0" * 64
    settings.write_text(json.dumps(content))
    with pytest.raises(ResumeError, match="other weights"):
        merge(tmp_path / "out/step-000001", tmp_path / "merged")
