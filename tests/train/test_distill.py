"""Vision distillation: zero where nothing is to be learned, falling where something is, resumed exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from small_training import SIZE, write_checkpoint

import mini_internvl
from mini_internvl.config import VisionConfig
from mini_internvl.vision import InternViT
from mini_internvl_train.distill import DistillationStep, distill, load_vision, read_distillation
from mini_internvl_train.errors import RecipeError, ResumeError, TrainingDataError

QUIET: dict[str, Any] = {"say": lambda line: None, "quiet": True}


def encoder(width: int = 16, layers: int = 2, seed: int = 0, **settings: Any) -> InternViT:
    torch.manual_seed(seed)
    return InternViT(
        VisionConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            patch_size=7,
            image_size=SIZE,
            **settings,
        )
    )


def test_a_student_equal_to_its_teacher_has_loss_zero() -> None:
    step = DistillationStep(encoder(), encoder(), 2)
    assert not list(step.projections.parameters())
    similar = step(torch.randn(3, 3, SIZE, SIZE))
    assert torch.allclose(similar, torch.ones(2), atol=1e-6)


def test_similarity_is_the_mean_over_all_patches_without_the_class_token_from_the_last_layer_back() -> None:
    student, teacher = encoder(16, 3, seed=3).double(), encoder(16, 2, seed=4).double()
    seen: dict[int, list[np.ndarray]] = {}
    for network in (student, teacher):
        for layer in network.encoder.layers:
            kept = seen.setdefault(id(network), [])
            layer.register_forward_hook(lambda _, __, out, kept=kept: kept.append(out.detach().numpy()))
    similar = DistillationStep(student, teacher, 2)(torch.randn(3, 3, SIZE, SIZE, dtype=torch.float64))
    for place, ours, theirs in zip(
        range(2), reversed(seen[id(student)]), reversed(seen[id(teacher)]), strict=False
    ):
        cosines = [
            a @ b / np.sqrt((a @ a) * (b @ b))
            for mine, other in zip(ours, theirs, strict=True)
            for a, b in zip(mine[1:], other[1:], strict=True)
        ]
        assert similar[place].item() == pytest.approx(np.mean(cosines), abs=1e-6)


def test_loss_falls_by_half_where_widths_and_depths_differ() -> None:
    teacher = encoder(24, 3, seed=1, qkv_bias=False, qk_normalization=True, norm_type="rms_norm")
    torch.manual_seed(2)
    step = DistillationStep(encoder(16, 2, seed=0), teacher, 2)
    assert [tuple(p.shape) for p in step.projections.parameters()] == [(24, 16)] * 2
    pixels = torch.randn(4, 3, SIZE, SIZE)
    moving = [p for p in step.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=1e-2)
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    losses = []
    for _ in range(50):
        loss = (1 - step(pixels)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert all(torch.equal(before[name], p) for name, p in teacher.named_parameters())


def test_encoders_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RecipeError, match="grids"):
        DistillationStep(encoder(), InternViT(VisionConfig(16, 32, 2, 2, patch_size=14, image_size=SIZE)), 1)
    with pytest.raises(RecipeError, match="cannot be matched"):
        DistillationStep(encoder(), encoder(), 3)


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "student")
    teacher = encoder(24, 3, seed=1, qkv_bias=False, qk_normalization=True, norm_type="rms_norm")
    (tmp_path / "teacher").mkdir()
    save_file(teacher.state_dict(), tmp_path / "teacher/model.safetensors")
    from dataclasses import asdict

    (tmp_path / "teacher/config.json").write_text(
        json.dumps({"model_type": "intern_vit_6b", **asdict(teacher.config)})
    )
    (tmp_path / "pictures/deep").mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (40, 20 + number), (50 * number, 90, 10)).save(
            tmp_path / f"pictures/deep/{number}.png"
        )
    path = tmp_path / "distill.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "small",
                "teacher": str(tmp_path / "teacher"),
                "student": str(tmp_path / "student"),
                "output": str(tmp_path / "out"),
                "pictures": str(tmp_path / "pictures"),
                "layers": 2,
                "optimizer": {"lr": 1e-2},
                "batch": 2,
                "steps": 6,
                "checkpoints": {"every": 3, "keep": 2},
                "precision": "float32",
            }
        )
    )
    return path


def test_from_recipe_to_model_and_resumed(recipe_path: Path, tmp_path: Path) -> None:
    whole = distill(read_distillation(recipe_path), **QUIET)
    parts = read_distillation(recipe_path, {"output": str(tmp_path / "parts")})
    distill(parts, **QUIET)
    import shutil

    shutil.rmtree(tmp_path / "parts/step-000006")
    distill(parts, **QUIET)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / "parts/final"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    start = load_file(tmp_path / "student/model.safetensors")
    changed = {name for name in one if not torch.equal(one[name], start[name])}
    assert changed
    assert all(name.startswith("vision_model.") for name in changed)
    model = mini_internvl.load(whole)
    assert model.chat(None, "Hi", max_new_tokens=2) is not None
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "evaluation" in line] == [3, 6]
    assert set(lines[-1]["evaluation"]["cosine"]) == {"layer -1", "layer -2"}
    with pytest.raises(ResumeError, match="layers was 2, is 1"):
        distill(read_distillation(recipe_path, {"layers": "1"}), **QUIET)


def test_no_images(recipe_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="no images"):
        distill(read_distillation(recipe_path, {"pictures": "/nowhere"}), **QUIET)


def test_the_packaged_recipe_and_a_mini_internvl_as_teacher(tmp_path: Path) -> None:
    assert read_distillation("distill").layers == 4
    folder = write_checkpoint(tmp_path / "model")
    assert load_vision(str(folder), torch.float32).config.hidden_size == 16
