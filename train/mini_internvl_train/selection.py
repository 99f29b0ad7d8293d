"""The best checkpoint by one value, and when to stop early."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mini_internvl_train.errors import RecipeError
from mini_internvl_train.recipe import Evaluation, Validation

LOSS = "loss"


@dataclass(slots=True)
class Selection:
    """Values of the checkpoints so far.

    Attributes:
        by: `loss`, or `task/metric`. higher: whether more is better.
        patience: values without a new best after which training stops; None never does.
        data: fingerprint of what the values rest on: others are not compared with them.
        values: by step.
    """

    by: str
    higher: bool
    patience: int | None
    data: str
    values: dict[int, float] = field(default_factory=dict)

    @property
    def best(self) -> int | None:
        """The step of the best value; of equal ones the first."""
        sign = -1.0 if self.higher else 1.0
        return min(self.values, key=lambda step: (sign * self.values[step], step), default=None)

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        best = self.best
        return (
            self.patience is not None
            and best is not None
            and sum(step > best for step in self.values) >= self.patience
        )

    def add(self, step: int, value: float | None) -> bool:
        """Notes a value; returns whether it is the best so far. One that is not a number is no value."""
        if value is None or not math.isfinite(value):
            return False
        self.values[step] = value
        return self.best == step

    def value_in(self, scores: Mapping[str, Mapping[str, float | None]]) -> float:
        """The value among scores by task and metric; not a number where it could not be computed."""
        task, _, metric = self.by.partition("/")
        value = scores.get(task, {}).get(metric)
        return math.nan if value is None else value

    def state(self) -> dict[str, Any]:
        """As a checkpoint stores it."""
        return {"by": self.by, "data": self.data, "values": {str(k): v for k, v in self.values.items()}}

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Takes over a checkpoint's values; False where they rest on something else and are forgotten."""
        if not state:
            return True
        if (state["by"], state["data"]) != (self.by, self.data):
            return False
        self.values = {int(step): float(value) for step, value in state["values"].items()}
        return True


def make_selection(validation: Validation, evaluation: Evaluation, data: str) -> Selection | None:
    """What the recipe asks for, or None.

    Args:
        validation, evaluation: of the recipe. data: fingerprint of the held-out samples.

    Raises:
        RecipeError: the task has no such metric. EvalkitError: there is no such task.
    """
    if not validation.best:
        return None
    if validation.best == LOSS:
        return Selection(LOSS, False, validation.patience, data)
    from evalkit import registry
    from evalkit.registry import nearest

    name, _, metric = validation.best.partition("/")
    metrics = {item.name: item for item in registry.task(name, evaluation.protocol).metrics()}
    if metric not in metrics:
        raise RecipeError(
            f"validation.best: {name} has no metric {metric!r}{nearest(metric, list(metrics))}; "
            f"it has {', '.join(metrics)}"
        )
    limits = f"{evaluation.split}/{evaluation.limit}"
    return Selection(validation.best, metrics[metric].higher_is_better, validation.patience, limits)
