"""TOML and YAML of settings: nothing ambiguous is taken, and every fault is one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_training import write_recipe

from evalkit.comparison import policy
from evalkit.data import strict_settings
from evalkit.data.strict_settings import SettingsTextError
from evalkit.errors import UsageError
from mini_internvl_train.errors import RecipeError
from mini_internvl_train.recipe import read_recipe

DEEP = "[" * 2000 + "]" * 2000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 1", "line 3: key 'a' occurs twice"),
        ("a: {b: 1, b: 2}", "line 1: key 'b' occurs twice"),
        ("- {x: 1}\n- {x: 1, y: 2, x: 3}", "line 2: key 'x' occurs twice"),
        ("a: &a [*a]", "contains itself"),
        (f"a: {DEEP}", "nested too deeply"),
        (f"a: {'9' * 5000}", "4300 digits"),
        ("a: \0", "special characters"),
        ("a: [1", "line 1"),
        ("a: !!python/object/apply:os.system ['true']", "python/object"),
        ("a: *missing", "undefined alias"),
    ],
)
def test_yaml_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SettingsTextError, match=message) as error:
        strict_settings.yaml(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [f"a = {DEEP}", f"a = {'9' * 5000}", "a = 1\na = 2", "a = ", "\0"])
def test_toml_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SettingsTextError) as error:
        strict_settings.toml(text)
    assert "\n" not in str(error.value)


def test_good_settings_are_read() -> None:
    assert strict_settings.yaml("base: &b {x: 1}\nother: *b\nlist: [1, 1]") == {
        "base": {"x": 1},
        "other": {"x": 1},
        "list": [1, 1],
    }
    assert strict_settings.yaml("") is None
    assert strict_settings.toml("a.b = 1.5") == {"a": {"b": 1.5}}


def test_a_recipe_and_a_policy_name_their_file(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tmp_path, tmp_path / "meta.json")
    recipe.write_text(recipe.read_text() + "seed: 8\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml: .*key 'seed' occurs twice"):
        read_recipe(recipe)
    path = tmp_path / "evalkit.toml"
    path.write_text(f"baseline = {DEEP}")
    with pytest.raises(UsageError, match=r"evalkit\.toml: not TOML \(nested too deeply\)"):
        policy.load(path)
