"""What one training of a sweep took: parameters that learn, peak memory, speed, loss, scores by step."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from evalkit.files import fields, read_json
from mini_internvl_train.errors import TrainingError
from mini_internvl_train.log import LOG, read_log
from mini_internvl_train.processes import PARTS
from mini_internvl_train.recipe import Recipe

WARM_UP = 10
"""First steps left out when speed is measured; a third of all steps if there are fewer than thirty."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One training.

    Attributes:
        learns: number of trainable parameters.
        memory: peak bytes before the first evaluation, of the GPU if there is one; None where the system
            counts none. memory_of: which.
        seconds: of a step, median. iterations: steps an hour. samples: a second.
        loss: mean of the last tenth of the steps.
        scores: by step, `task/metric` to value.
    """

    learns: int
    memory: int | None
    memory_of: str
    seconds: float
    iterations: float
    samples: float
    loss: float
    scores: dict[int, dict[str, float | None]]


def read_outcome(recipe: Recipe) -> Outcome:
    """Reads a finished training from its log."""
    lines = read_log(Path(recipe.output) / LOG)
    steps = [line for line in lines if "loss" in line]
    if not steps:
        raise TrainingError(f"{recipe.output}: its log holds no step")
    timed = steps[min(WARM_UP, len(steps) // 3) :]
    seconds = statistics.median(line["seconds"] for line in timed)
    scores = {
        int(line["step"]): {
            f"{task}/{metric}": value
            for task, metrics in line["evaluation"].items()
            for metric, value in metrics.items()
        }
        for line in lines
        if "evaluation" in line
    }
    made = fields(read_json(Path(recipe.output) / PARTS), ("learns", "memory_of"), recipe.output)
    first = min((step for step in scores if step), default=math.inf)
    memory = [line["memory"] for line in steps if int(line["step"]) <= first]
    return Outcome(
        int(made["learns"]),
        None if None in memory else max(memory),
        str(made["memory_of"]),
        seconds,
        3600 / seconds,
        statistics.median(line["samples"] for line in timed) / seconds,
        statistics.fmean(line["loss"] for line in steps[-max(1, len(steps) // 10) :]),
        scores,
    )
