"""Training end to end on a small network: resume, accumulation, ranks, stopping, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_training import make_recipe, write_data
from torch import nn
from torch.nn import functional
from training_scripts import run_script

import mini_internvl
from mini_internvl_train import fine_tuning
from mini_internvl_train.errors import DivergedError, ResumeError, Stopped, TrainingError
from mini_internvl_train.fine_tuning import FineTuning, train
from mini_internvl_train.loop import Loop
from mini_internvl_train.objective import StepResult
from mini_internvl_train.precision import store_frozen_layers
from mini_internvl_train.recipe import Recipe, read_recipe

QUIET: dict[str, Any] = {"say": lambda line: None, "quiet": True}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return tensors


def equal(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def distance(one: Path, other: Path) -> float:
    left, right = weights(one), weights(other)
    return max(float((left[k] - right[k]).abs().max()) for k in left)


def log_lines(recipe: Recipe) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(recipe.output) / "log.jsonl").read_text().splitlines()]


def test_one_batch_overfits(tmp_path: Path) -> None:
    recipe = make_recipe(
        tmp_path,
        samples=2,
        steps__max_steps=60,
        steps__packs_per_step=1,
        optimizer__lr=1e-2,
        checkpoints__every=1000,
        drop_path=0.0,
    )
    final = train(recipe, **QUIET)
    lines = log_lines(recipe)
    assert lines[0]["loss"] > 4
    assert lines[-1]["loss"] < 0.05
    model = mini_internvl.load(final)
    colour = json.loads((tmp_path / "data/colours.jsonl").read_text().splitlines()[1])
    picture = tmp_path / "data/pictures" / colour["image"]
    answer = model.chat([picture], "What colour?", max_tiles=2, max_new_tokens=10)
    assert answer == colour["conversations"][1]["value"]


def test_a_resumed_training_is_bit_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"augment__flip": 0.5, "augment__colour": 0.4, "augment__crop": 0.3}
    whole = make_recipe(tmp_path, output=str(tmp_path / "whole"), **changes)
    train(whole, **QUIET)
    broken = make_recipe(tmp_path, output=str(tmp_path / "broken"), **changes)
    step = Loop._step

    def fails_at_five(self: Loop, *arguments: Any) -> bool:
        if self.done == 4:
            raise KeyError("power cut")
        return step(self, *arguments)

    monkeypatch.setattr(Loop, "_step", fails_at_five)
    with pytest.raises(KeyError):
        train(broken, **QUIET)
    monkeypatch.undo()
    train(broken, **QUIET)
    assert equal(tmp_path / "whole/final", tmp_path / "broken/final")
    assert [line["step"] for line in log_lines(broken)] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in log_lines(broken)] == [line["loss"] for line in log_lines(whole)]


KILLED = """
import os, signal
from pathlib import Path
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.loop import Loop
from mini_internvl_train.recipe import read_recipe

recipe = read_recipe({recipe!r}, {{"output": {output!r}}})
step = Loop._step

def killed_at_six(self, *arguments):
    if self.done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)

Loop._step = killed_at_six
train(recipe, quiet=True)
"""


@pytest.mark.slow
def test_kill_9_and_the_same_command_again(tmp_path: Path) -> None:
    make_recipe(tmp_path)
    recipe = str(tmp_path / "recipe.yaml")
    broken = str(tmp_path / "broken")
    assert run_script(KILLED.format(recipe=recipe, output=broken), tmp_path).returncode == -9
    assert not (tmp_path / "broken/final").exists()
    train(read_recipe(recipe, {"output": broken}), **QUIET)
    train(make_recipe(tmp_path, output=str(tmp_path / "whole")), **QUIET)
    assert equal(tmp_path / "whole/final", tmp_path / "broken/final")


@pytest.mark.parametrize(
    "trainable", ["frozen_vit", pytest.param("lora_projector", marks=pytest.mark.slow), "projector"]
)
def test_resume_is_bit_equal_in_bf16_whatever_learns(tmp_path: Path, trainable: str) -> None:
    settings: dict[str, Any] = {"trainable": trainable, "precision": "bf16", "gradient_checkpointing": True}
    whole = make_recipe(tmp_path, output=str(tmp_path / "whole"), **settings)
    train(whole, **QUIET)
    parts = make_recipe(tmp_path, output=str(tmp_path / "parts"), **settings)
    train(parts, **QUIET)
    for folder in ("step-000006", "final"):
        shutil.rmtree(tmp_path / "parts" / folder)
    train(parts, **QUIET)
    assert equal(tmp_path / "whole/final", tmp_path / "parts/final")


def test_only_layers_that_do_not_learn_are_kept_in_half_precision() -> None:
    """On a CPU without half products; a layer that shares the embedding's weight stays float32 too."""
    network = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("learns", "frozen", "tied")})
    network["embedding"] = nn.Embedding(8, 8)
    network["tied"].weight = network["embedding"].weight
    network["frozen"].requires_grad_(False), network["tied"].requires_grad_(False)
    x = torch.randn(3, 8)
    rounded = functional.linear(x, network["frozen"].weight.bfloat16().float(), network["frozen"].bias)
    store_frozen_layers(network, torch.bfloat16)
    kept = {name: layer.weight.dtype for name, layer in network.items()}
    assert kept == {name: torch.bfloat16 if name == "frozen" else torch.float32 for name in network}
    assert torch.equal(network["frozen"](x), rounded) and type(network["learns"]) is nn.Linear


@pytest.mark.parametrize("slow", [True, False])
def test_what_is_frozen_is_kept_in_the_recipes_precision(
    slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also on a CPU without half products, where only its linear layers can be."""
    monkeypatch.setattr(fine_tuning, "emulated", lambda precision, device: slow)
    network = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8))
    network[0].requires_grad_(False), network[1].requires_grad_(False)
    start: Any = SimpleNamespace(network=network)
    recipe: Any = SimpleNamespace(precision="bf16")
    accelerator: Any = SimpleNamespace(device=torch.device("cpu"))
    fine_tuning._store_frozen(start, recipe, accelerator)
    norm = torch.float32 if slow else torch.bfloat16
    assert [layer.weight.dtype for layer in network] == [torch.bfloat16, norm, torch.float32]
    assert torch.equal(network[1].weight, network[1].weight.bfloat16().to(norm))
    assert ("no torch.bfloat16 matrix instructions" in caplog.text) == slow


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "drop_path": 0.0,
        "packing__enabled": False,
        "steps__packs_per_step": 8,
        "steps__max_steps": 2,
    }
    for output, micro in (("many", 2), ("one", 8)):
        recipe = make_recipe(
            tmp_path, output=str(tmp_path / output), steps__packs_per_micro_step=micro, **settings
        )
        train(recipe, **QUIET)
    assert distance(tmp_path / "many/final", tmp_path / "one/final") < 2e-6


def test_packed_training_equals_unpacked(tmp_path: Path) -> None:
    """All samples of the set in one step: packs only change how they lie in memory."""
    settings: dict[str, Any] = {"drop_path": 0.0, "steps__max_steps": 2, "samples": 4}
    packed = make_recipe(
        tmp_path,
        output=str(tmp_path / "packed"),
        steps__packs_per_step=1,
        packing__max_tiles=99,
        packing__max_tokens=4000,
        **settings,
    )
    train(packed, **QUIET)
    unpacked = make_recipe(
        tmp_path,
        output=str(tmp_path / "unpacked"),
        steps__packs_per_step=4,
        packing__enabled=False,
        **settings,
    )
    train(unpacked, **QUIET)
    assert distance(tmp_path / "packed/final", tmp_path / "unpacked/final") < 2e-6


#: Two ranks with a launcher's variables; what takes seconds to import is there before they part.
RANKS = """
import os, socket
import accelerate, transformers
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.recipe import read_recipe

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
other = os.fork()
rank = "0" if other else "1"
os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
train(read_recipe({recipe!r}, {{"output": {output!r}}}), quiet=True)
if other:
    assert os.waitpid(other, 0)[1] == 0
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Three packs a step for two ranks, and a sample without a picture: nobody waits for anybody."""
    make_recipe(tmp_path, drop_path=0.0, steps__packs_per_step=3, steps__max_steps=3, packing__enabled=False)
    write_data(tmp_path / "data", 12, text_only=(0, 3, 4))
    recipe = str(tmp_path / "recipe.yaml")
    train(read_recipe(recipe, {"output": str(tmp_path / "one")}), **QUIET)
    done = run_script(RANKS.format(recipe=recipe, output=str(tmp_path / "two")), tmp_path)
    assert done.returncode == 0, done.stderr[-6000:]
    assert distance(tmp_path / "one/final", tmp_path / "two/final") < 2e-6
    assert json.loads((tmp_path / "two/latest/training/state.json").read_text())["ranks"] == 2


def test_changed_recipe_or_data_is_refused(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, steps__max_steps=2)
    train(recipe, **QUIET)
    changed = read_recipe(tmp_path / "recipe.yaml", {"optimizer.lr": "1e-2"})
    with pytest.raises(ResumeError, match=r"optimizer\.lr was 0\.001, is 0\.01"):
        train(changed, **QUIET)
    write_data(tmp_path / "data", 12, seed=5)
    with pytest.raises(ResumeError, match="colours is not the same"):
        train(recipe, **QUIET)
    train(read_recipe(tmp_path / "recipe.yaml", {"output": str(tmp_path / "other")}), **QUIET)


def test_a_changed_picture_is_refused(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, steps__max_steps=2)
    train(recipe, **QUIET)
    path = next((tmp_path / "data/pictures").glob("*.png"))
    with Image.open(path) as picture:
        size = picture.size
    Image.effect_noise(size, 90).convert("RGB").save(path)
    with pytest.raises(ResumeError, match="colours is not the same"):
        train(recipe, **QUIET)


def test_saving_and_evaluation_settings_may_change(tmp_path: Path) -> None:
    first = make_recipe(tmp_path)
    train(first, **QUIET)
    before = weights(tmp_path / "out/final")
    shutil.rmtree(tmp_path / "out/step-000006")
    lines: list[str] = []
    changed = make_recipe(tmp_path, checkpoints__keep=1, checkpoints__every=1, name="other")
    train(changed, say=lines.append, quiet=True)
    assert f"continuing from {tmp_path / 'out/step-000004'}" in lines
    assert [path.name for path in (tmp_path / "out").glob("step-*")] == ["step-000006"]
    after = weights(tmp_path / "out/final")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_drop_path_acts_in_training(tmp_path: Path) -> None:
    losses = {}
    for rate in (0.0, 0.9):
        recipe = make_recipe(tmp_path, output=str(tmp_path / str(rate)), drop_path=rate, steps__max_steps=3)
        train(recipe, **QUIET)
        losses[rate] = [line["loss"] for line in log_lines(recipe)]
    assert losses[0.0] != losses[0.9]


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[str] = set()
    fsync, rename = os.fsync, Path.rename

    def noted(descriptor: int) -> None:
        flushed.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def checked(self: Path, target: Path) -> Path:
        if self.name.startswith(".step-"):
            assert {str(path) for path in self.rglob("*")} | {str(self)} <= flushed
            assert str(self.parent / "log.jsonl") in flushed
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", checked)
    train(make_recipe(tmp_path, steps__max_steps=1), **QUIET)
    assert str(tmp_path / "out/.step-000001.tmp/training/state.json") in flushed


def test_sigterm_finishes_the_step_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(tmp_path, checkpoints__every=100)
    step = Loop._step

    def told_in_step_three(self: Loop, *arguments: Any) -> bool:
        if self.done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Loop, "_step", told_in_step_three)
    with pytest.raises(Stopped, match="after step 3 of 6"):
        train(recipe, **QUIET)
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "out/step-000003").is_dir()
    monkeypatch.undo()
    with pytest.raises(ResumeError, match=r"steps\.max_steps was 6, is 5"):  # 3 steps of 6 were made
        train(read_recipe(tmp_path / "recipe.yaml", {"steps.max_steps": "5"}), **QUIET)
    train(recipe, **QUIET)
    whole = make_recipe(tmp_path, output=str(tmp_path / "whole"))
    train(whole, **QUIET)
    assert equal(tmp_path / "whole/final", tmp_path / "out/final")


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen2", {}),
        ("internlm2", {"tokens": ["<loc_0>", "<loc_1>"]}),
        ("qwen2", {"trainable": "lora", "precision": "bf16"}),
        ("qwen2", {"trainable": "frozen_vit", "precision": "bf16"}),
    ],
    ids=["qwen2", "internlm2", "lora", "bfloat16"],
)
def test_interrupted_more_often_than_checkpoints_are_kept(
    family: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a training continues from may be deleted while it goes on: nothing is copied from there."""
    changes = {**changes, "checkpoints__every": 1, "checkpoints__keep": 1}
    whole = make_recipe(tmp_path, family=family, output=str(tmp_path / "whole"), **changes)
    train(whole, **QUIET)
    recipe = make_recipe(tmp_path, family=family, **changes)
    step = Loop._step
    for stop in (2, 4, 5):

        def told(self: Loop, *arguments: Any, at: int = stop) -> bool:
            if self.done == at - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, *arguments)

        monkeypatch.setattr(Loop, "_step", told)
        with pytest.raises(Stopped, match=f"after step {stop} of 6"):
            train(recipe, **QUIET)
        monkeypatch.undo()
    train(recipe, **QUIET)
    assert equal(tmp_path / "whole/final", tmp_path / "out/final")
    loaded = mini_internvl.load(tmp_path / "out/final")
    assert loaded.tokenizer is not None
    assert isinstance(loaded.chat(None, "Which colour?", max_new_tokens=2), str)


@pytest.mark.parametrize("fault", ["cut", "nan"])
def test_a_checkpoint_that_does_not_answer_deletes_no_older_one(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tmp_path, checkpoints__every=2, checkpoints__keep=1)
    write = FineTuning.write_model

    def faulty(self: FineTuning, folder: Path, weights: Any) -> bool:
        if "step-000004" in folder.name and fault == "nan":
            weights = {name: tensor * float("nan") for name, tensor in weights.items()}
        exact = write(self, folder, weights)
        if "step-000004" in folder.name and fault == "cut":
            os.truncate(folder / "model.safetensors", 1000)
        return exact

    monkeypatch.setattr(FineTuning, "write_model", faulty)
    with pytest.raises(ResumeError, match="older checkpoints are kept"):
        train(recipe, **QUIET)
    monkeypatch.undo()
    assert (tmp_path / "out/step-000002").is_dir() and not (tmp_path / "out/step-000004").exists()
    train(recipe, **QUIET)
    assert mini_internvl.load(tmp_path / "out/final").tokenizer is not None


def test_a_checkpoint_without_tokenizer_deletes_no_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tmp_path, checkpoints__every=2, checkpoints__keep=1)
    write = FineTuning.write_model

    def forgetful(self: FineTuning, folder: Path, weights: Any) -> bool:
        if "step-000004" in folder.name:
            self.start = replace(self.start, files={})
        return write(self, folder, weights)

    monkeypatch.setattr(FineTuning, "write_model", forgetful)
    with pytest.raises(ResumeError, match="no tokenizer files; older checkpoints are kept"):
        train(recipe, **QUIET)
    assert (tmp_path / "out/step-000002/vocab.json").is_file()
    assert not (tmp_path / "out/step-000004").exists()


def test_nan_stops_with_the_samples_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(tmp_path, checkpoints__every=1)
    backward = FineTuning.backward

    def nan_in_step_two(self: FineTuning, loop: Loop, batches: Any) -> StepResult:
        result = backward(self, loop, batches)
        return replace(result, loss=result.loss * float("nan")) if loop.done == 1 else result

    monkeypatch.setattr(FineTuning, "backward", nan_in_step_two)
    with pytest.raises(DivergedError, match=r"step 2: loss nan; its samples: colours/\d+") as error:
        train(recipe, **QUIET)
    assert "\n" not in str(error.value)
    assert (tmp_path / "out/step-000001").is_dir()


def test_an_exploding_gradient_stops(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, optimizer__stop_norm=1e-6)
    with pytest.raises(DivergedError, match="step 1: gradient norm"):
        train(recipe, **QUIET)
    assert not list((tmp_path / "out").glob("step-*"))


def test_checkpoints_load_and_only_the_last_are_kept(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    final = train(recipe, **QUIET)
    kept = sorted(path.name for path in (tmp_path / "out").glob("step-*"))
    assert kept == ["step-000004", "step-000006"]
    assert (tmp_path / "out/latest").resolve().name == "step-000006"
    model = mini_internvl.load(final)
    again = mini_internvl.load(tmp_path / "out/latest")
    ids = torch.randint(0, 250, (1, 9))
    assert torch.equal(model(input_ids=ids), again(input_ids=ids))
    assert model.config.max_dynamic_patch == 2
    assert model.system_message == "Be short."
    assert model.config.template == "Hermes-2"


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, output=str(tmp_path / "whole"))
    train(recipe, **QUIET)
    broken = make_recipe(tmp_path)
    train(broken, **QUIET)
    out = tmp_path / "out"
    (out / "step-000006").rename(out / ".step-000006.tmp")
    (out / ".step-000006.tmp/training/state.json").unlink()
    train(broken, **QUIET)
    assert equal(tmp_path / "whole/final", out / "final")


def test_a_second_training_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    from filelock import FileLock

    recipe = make_recipe(tmp_path)
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.lock"), pytest.raises(TrainingError, match="another training"):
        train(recipe, **QUIET)


def test_tables_come_before_the_first_step(tmp_path: Path) -> None:
    lines: list[str] = []
    train(make_recipe(tmp_path, steps__max_steps=1, trainable="frozen_vit"), say=lines.append, quiet=True)
    text = "\n".join(lines)
    assert "vision encoder" in text
    assert "expected memory" in text
