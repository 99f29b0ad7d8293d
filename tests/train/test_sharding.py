"""FSDP2 in two processes of a CPU: weights are sharded, and training equals that of one process."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from small_training import make_recipe, write_data
from training_scripts import REPOSITORY, run_script

from mini_internvl_train.errors import TrainingError
from mini_internvl_train.fine_tuning import train
from mini_internvl_train.recipe import read_recipe
from mini_internvl_train.sharding import LAYERS, Sharding

QUIET: dict[str, Any] = {"say": lambda line: None, "quiet": True}

SCRIPT = """
import json
from accelerate import PartialState
from torch.distributed.tensor import DTensor
from mini_internvl_train import fine_tuning
from mini_internvl_train.loop import Loop
from mini_internvl_train.recipe import read_recipe
from mini_internvl_train.sharding import is_sharded

step = Loop._step
found = {{}}

def looks(self, *arguments):
    parameters = dict(self.module.named_parameters())
    assert all(isinstance(p, DTensor) for p in parameters.values())
    own = sum(p.to_local().numel() for p in parameters.values())
    names = {{type(m).__name__ for m in self.module.modules() if is_sharded(m)}}
    kinds = sorted(name.removeprefix("FSDP") for name in names)
    found[self.settings.output] = (own, sum(p.numel() for p in parameters.values()), kinds)
    done = step(self, *arguments)
    kept = [s for o in self._optimizers() for s in o.state.values()]
    assert kept and all(isinstance(s["exp_avg"], DTensor) for s in kept)
    return done

Loop._step = looks
PartialState.destroy_process_group = lambda self, group=None: None  # one launch, several trainings
for recipe in {recipes!r}:
    fine_tuning.train(read_recipe(recipe, {{"output": recipe + "-two", "steps.max_steps": "1"}}), quiet=True)
if PartialState().is_main_process:
    json.dump(found, open({found!r}, "w"))
"""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2-lora": ("qwen2", {"trainable": "lora", "precision": "bf16", "lora__encoder": True}),
    "internlm2-full": ("internlm2", {"precision": "bf16", "gradient_checkpointing": True}),
    "phi3-lora": ("phi3", {"trainable": "lora", "precision": "bf16"}),
}


@pytest.mark.slow
def test_sharded_training_equals_that_of_one_process(tmp_path: Path) -> None:
    """Three packs a step for two ranks; the launch configuration is that of docs/training.md.

    One step is taken by two processes, another by one process from their checkpoint.
    """
    recipes = {}
    for name, (family, settings) in CASES.items():
        (tmp_path / name).mkdir()
        make_recipe(
            tmp_path / name, family=family, drop_path=0.0, lora__dropout=0.0, steps__packs_per_step=3,
            steps__max_steps=2, packing__enabled=False, **settings,
        )  # fmt: skip
        write_data(tmp_path / name / "data", 12, text_only=(0, 3, 4))
        recipes[name] = str(tmp_path / name / "recipe.yaml")
    page = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8")
    found = re.search(r'```yaml title="fsdp.yaml"\n(.*?)```', page, re.DOTALL)
    assert found is not None
    (tmp_path / "fsdp.yaml").write_text(found.group(1))
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "fsdp.yaml")]
    script = SCRIPT.format(recipes=list(recipes.values()), found=str(tmp_path / "found.json"))
    done = run_script(script, tmp_path, [*launcher, "--num_processes", "2"])
    assert done.returncode == 0, done.stderr[-6000:]
    shards = json.loads((tmp_path / "found.json").read_text())
    for name, recipe in recipes.items():
        own, whole, kinds = shards[f"{recipe}-two"]
        assert 0.4 * whole < own < 0.6 * whole, name
        assert set(kinds) & set(LAYERS) and len(set(kinds) & set(LAYERS)) == 2, (name, kinds)
        one = train(read_recipe(recipe, {"output": f"{recipe}-one"}), **QUIET)
        said: list[str] = []
        two = train(read_recipe(recipe, {"output": f"{recipe}-two"}), say=said.append, quiet=True)
        assert any(line.startswith("was trained by 2 processes") for line in said)
        left, right = (load_file(folder / "model.safetensors") for folder in (one, two))
        coarse = "precision: bf16" in Path(recipe).read_text()  # a rounded weight may fall on the other side
        apart = max(float((left[key].float() - right[key].float()).abs().max()) for key in left)
        assert apart < (4e-3 if coarse else 5e-6), (name, apart)
        logs = [
            [json.loads(line) for line in Path(f"{recipe}-{kind}/log.jsonl").read_text().splitlines()]
            for kind in ("one", "two")
        ]
        for key in ("loss", "validation_loss"):
            values = [[line[key] for line in log if key in line] for log in logs]
            assert values[1] == pytest.approx(values[0], rel=1e-4), (name, key)


@pytest.mark.parametrize(
    ("variables", "precision", "message"),
    [
        ({"FSDP_VERSION": "1"}, "bf16", "fsdp_version: 2"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "bf16", "offload"),
        ({}, "fp16", "precision: bf16"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], precision: Any, message: str
) -> None:
    assert Sharding.asked(precision) is None
    for name, value in {"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=message):
        Sharding.asked(precision)
