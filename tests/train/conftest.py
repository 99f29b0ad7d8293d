"""Fixtures of the trainings' tests."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mini_internvl_train.errors import TrainingError
from mini_internvl_train.processes import train_here
from mini_internvl_train.recipe import Recipe


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains here: test_compare_methods has processes."""

    def failure(recipe: Recipe) -> str | None:
        try:
            train_here(recipe)
        except TrainingError as error:
            return str(error)
        return None

    def train(recipes: Sequence[Recipe], **others: object) -> dict[str, str | None]:
        return {recipe.output: failure(recipe) for recipe in recipes}

    monkeypatch.setattr("mini_internvl_train.sweep.train_apart", train)
