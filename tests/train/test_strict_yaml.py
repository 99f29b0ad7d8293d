"""YAML of recipes: nothing ambiguous is taken, and every fault is one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_training import write_recipe

from mini_internvl_train import strict_yaml
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.recipe import read_recipe


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("seed: 8", "line 25: key 'seed' occurs twice"),
        ("lora: {rank: 8, alpha: 4, rank: 9}", "key 'rank' occurs twice"),
        ("lora: &a {rank: *a}", "contains itself"),
        (f"lora: {'[' * 2000 + ']' * 2000}", "nested too deeply"),
        (f"lora: {'9' * 5000}", "4300"),
        ("lora: \0", "special characters"),
        ("lora: [1", "while parsing"),
        ("lora: *missing", "undefined alias"),
    ],
)
def test_a_recipe_is_refused_in_one_line(tmp_path: Path, lines: str, message: str) -> None:
    recipe = write_recipe(tmp_path, tmp_path, tmp_path / "meta.json")
    recipe.write_text(recipe.read_text() + lines + "\n")
    with pytest.raises(RecipeError, match=rf"recipe\.yaml: .*{message}") as error:
        read_recipe(recipe)
    assert "\n" not in str(error.value)


def test_good_settings_are_read() -> None:
    text = "base: &b {x: 1}\nother: *b\nlist: [1, 1]"
    assert strict_yaml.loads(text) == {"base": {"x": 1}, "other": {"x": 1}, "list": [1, 1]}
    assert strict_yaml.loads("") is None
