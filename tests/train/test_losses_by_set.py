"""The loss of each data set, in the log and in TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_training import make_recipe, write_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mini_internvl_train.batches import collate
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.samples import read_training_set
from mini_internvl_train.start import load_start
from mini_internvl_train.step import TrainingStep


def test_a_set_has_the_share_that_its_samples_have_alone(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    start = load_start(recipe)
    samples = read_training_set(recipe.data, start.encoder, start.tiling)
    first, second, third = (samples.sample(index).encoded for index in range(3))
    step = TrainingStep(start.network, 3)

    def run(*rows: list[object], sets: list[list[int]] | None = None) -> float:
        batch = collate([*rows], None, "square", start.pad_id, sets)  # type: ignore[list-item]
        batch.input_ids[batch.input_ids == start.encoder.image_token_id] = 5
        return float(step(batch, 7.0))

    alone = [run([sample]) for sample in (first, second, third)]
    assert torch.allclose(step.shares, torch.tensor([alone[2], 0.0, 0.0]))
    total = run([first, second], [third], sets=[[2, 0], [2]])
    assert torch.allclose(step.shares, torch.tensor([alone[1], 0.0, alone[0] + alone[2]]), atol=1e-5)
    assert float(step.shares.sum()) == pytest.approx(total, abs=1e-5)
    assert not step.shares.requires_grad


def test_losses_are_logged_by_set(tmp_path: Path) -> None:
    general = write_data(tmp_path / "general", 8, seed=5, name="general")
    recipe = make_recipe(tmp_path, steps__max_steps=3, data__general_meta=str(general), data__general_ratio=1)
    train(recipe, say=lambda line: None, quiet=True)
    output = Path(recipe.output)
    lines = [json.loads(text) for text in (output / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert {name for line in steps for name in line["losses"]} == {"colours", "general"}
    for line in steps:
        known = line["losses"].values()
        assert min(known) - 1e-5 <= line["loss"] <= max(known) + 1e-5
    board = EventAccumulator(str(output / "tensorboard"))
    board.Reload()
    for unit in ("samples", "tokens"):
        speeds = [event.value for event in board.Scalars(f"train/{unit}_per_second")]
        assert speeds == pytest.approx([line[unit] / line["seconds"] for line in steps], rel=1e-3)
    for name in ("colours", "general"):
        drawn = [event.value for event in board.Scalars(f"train/{name}/loss")]
        assert drawn == pytest.approx([line["losses"][name] for line in steps if name in line["losses"]])
