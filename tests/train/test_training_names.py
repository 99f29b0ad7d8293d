"""Names of checkpoints: each contains its training, and two trainings never share one."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_training import make_recipe

from evalkit.contracts import ModelOptions
from evalkit_models.mini_internvl import FAMILY
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.fine_tuning import train

EVALUATION = {
    "evaluation__tasks": ["docvqa"],
    "evaluation__split": "miniature",
    "evaluation__limit": 2,
    "steps__max_steps": 1,
}


def test_a_checkpoint_is_named_by_its_training(tmp_path: Path) -> None:
    names = {}
    for kind in ("full", "projector"):
        output = tmp_path / kind
        recipe = make_recipe(
            tmp_path, name=f"mine-{kind}", output=str(output), trainable=kind, steps__max_steps=1
        )
        final = train(recipe, say=lambda line: None, quiet=True)
        options = ModelOptions(device="cpu", checkpoint=str(final))
        names[kind] = FAMILY.load(str(tmp_path / "model"), options).info.name
        alone = FAMILY.load(str(output / "step-000001"), ModelOptions(device="cpu")).info.name
        assert alone == f"mine-{kind}@step-000001"
    assert names == {"full": "mine-full@final", "projector": "mine-projector@final"}


def test_a_second_training_of_one_name_is_refused(tmp_path: Path) -> None:
    settings = {**EVALUATION, "evaluation__runs": str(tmp_path / "runs")}
    first = make_recipe(tmp_path, output=str(tmp_path / "first"), **settings)
    train(first, say=lambda line: None, quiet=True)
    train(first, say=lambda line: None, quiet=True)  # the same one goes on
    second = make_recipe(tmp_path, output=str(tmp_path / "second"), **settings)
    with pytest.raises(
        RecipeError, match=r"name: small is the name of another training, whose checkpoint .*first"
    ):
        train(second, say=lambda line: None, quiet=True)
    other = make_recipe(tmp_path, name="other", output=str(tmp_path / "second"), **settings)
    train(other, say=lambda line: None, quiet=True)
