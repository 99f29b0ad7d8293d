"""One recipe trained with every value of one or several settings (Fig. 4 and 5, Table 13 of the paper).

Every combination of values is a point. Values of `seed` are no points but repeats: a point is trained once
with each. Points are set against the first one (`sweep_scores`).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.store.atomic import write_json
from mini_internvl_train.errors import RecipeError, TrainingError
from mini_internvl_train.processes import train_apart
from mini_internvl_train.recipe import Recipe, read_recipe
from mini_internvl_train.settings import parsed, plain
from mini_internvl_train.sweep_outcomes import Outcome, read_outcome
from mini_internvl_train.sweep_plot import draw
from mini_internvl_train.sweep_scores import TaskScores, compare_points, evaluated_runs, unevaluated
from mini_internvl_train.sweep_table import table

logger = logging.getLogger(__name__)

METHODS = "trainable=full,frozen_vit,lora"
"""What `compare-methods` varies."""
SEED = "seed"
RESULT, TABLE, PLOT = "sweep.json", "sweep.md", "sweep.svg"


@dataclass(frozen=True, slots=True)
class Varied:
    """A setting and the values that it takes."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of values, trained once a seed.

    Attributes:
        values: of the settings varied, but the seed. recipes: one a seed.
    """

    values: Mapping[str, Any]
    recipes: tuple[Recipe, ...]

    @property
    def label(self) -> str:
        """`general_ratio=0.25`; the value alone of what learns."""
        return ", ".join(_named(key, value) for key, value in self.values.items()) or "all seeds"


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found.

    Attributes:
        varied: settings and values, the seeds among them. points: in the order of the values.
        outcomes: of each point's trainings that ended well. failures: why the others failed, or what their
            final model was not evaluated on, by output.
        scores: of each task that was evaluated, of the points whose trainings all ended well.
        notes: what readers must know.
    """

    varied: tuple[Varied, ...]
    points: tuple[Point, ...]
    outcomes: Mapping[str, Outcome]
    failures: Mapping[str, str]
    scores: tuple[TaskScores, ...]
    notes: tuple[str, ...] = ()


def parse_varied(text: str) -> Varied:
    """`KEY=V1,V2`; a value may be a list in brackets.

    Raises:
        RecipeError: it is of another form, or a value is given twice.
    """
    key, equals, values = text.partition("=")
    if not (key and equals and values):
        raise RecipeError(f"--vary {text}: write KEY=VALUE,VALUE, such as data.general_ratio=0,0.25,1")
    found = parsed(f"[{values}]", f"--vary {text}")
    twice = [value for place, value in enumerate(found) if value in found[:place]]
    if twice:
        raise RecipeError(f"--vary {text}: {_shown(twice[0])} is given twice")
    return Varied(key.replace("-", "_"), tuple(found))


def plan_sweep(
    source: str | Path, overrides: Mapping[str, str], varied: Sequence[Varied], output: Path | None = None
) -> tuple[Point, ...]:
    """Reads the recipe of every training, so that a wrong value is found before the first step.

    Args:
        source, overrides: as of `read_recipe`. varied: settings with their values.
        output: folder of all trainings, in place of the recipe's.

    Raises:
        RecipeError: nothing to vary, a setting twice or one that cannot be, or a recipe that is wrong.
    """
    keys = [each.key for each in varied]
    if not keys:
        raise RecipeError("--vary KEY=VALUE,VALUE: say what to vary")
    for key in keys:
        if keys.count(key) > 1:
            raise RecipeError(f"--vary {key}: is given twice; name all its values once")
        if key in ("name", "output") or key.split(".")[0] in ("evaluation", "checkpoints", "log_to"):
            raise RecipeError(f"--vary {key}: does not change what is learned")
    points = []
    seeds = next((each.values for each in varied if each.key == SEED), (None,))
    for chosen in itertools.product(*(each.values for each in varied if each.key != SEED)):
        values = dict(zip([key for key in keys if key != SEED], chosen, strict=True))
        settings = {key: json.dumps(value) for key, value in values.items()}
        recipes = tuple(
            _own(
                read_recipe(source, {**overrides, **settings, **({} if seed is None else {SEED: str(seed)})}),
                {**values, **({} if seed is None else {SEED: seed})},
                output,
            )
            for seed in seeds
        )
        points.append(Point(values, recipes))
    _check_distinct([recipe for point in points for recipe in point.recipes])
    return tuple(points)


def sweep(
    points: Sequence[Point],
    varied: Sequence[Varied],
    *,
    devices: int = 1,
    at_once: int = 1,
    say: Callable[[str], None] = logger.info,
) -> Sweep:
    """Trains every point and compares them; what is done already is only read.

    Args:
        points: of `plan_sweep`. varied: what makes them.
        devices: processes of each training, one a GPU. at_once: trainings at the same time.
        say: where progress goes.

    Returns:
        The result. `sweep.json`, `sweep.md` and `sweep.svg` are written to the folder of the trainings.

    Raises:
        TrainingError: every training failed. Stopped: a signal; the same call goes on.
    """
    recipes = [recipe for point in points for recipe in point.recipes]
    failures = {
        output: failure
        for output, failure in train_apart(recipes, devices=devices, at_once=at_once, say=say).items()
        if failure is not None
    }
    for recipe in recipes:
        if recipe.output not in failures and (lacking := unevaluated(recipe)):
            failures[recipe.output] = lacking
    done = [recipe for recipe in recipes if recipe.output not in failures]
    if not done:
        raise TrainingError(next(iter(failures.values())))
    whole = [point for point in points if not any(recipe.output in failures for recipe in point.recipes)]
    scores, notes = compare_points(
        [(point.label, [evaluated_runs(Path(recipe.output)) for recipe in point.recipes]) for point in whole],
        allow=("tiles",) if any(each.key == "data.max_tiles" for each in varied) else (),
    )
    outcomes = {recipe.output: read_outcome(recipe) for recipe in done}
    found = Sweep(tuple(varied), tuple(points), outcomes, failures, tuple(scores), tuple(notes))
    folder = Path(recipes[0].output).parent
    write_json(folder / RESULT, sweep_json(found))
    (folder / TABLE).write_text("\n".join(sweep_table(found)) + "\n", encoding="utf-8")
    if scores:
        labels = [point.label for point in points]
        (folder / PLOT).write_text(draw(scores, labels), encoding="utf-8")
    return found


def sweep_table(found: Sweep) -> list[str]:
    """Markdown of a whole sweep."""
    groups = [
        (point.label, [found.outcomes[r.output] for r in point.recipes if r.output in found.outcomes])
        for point in found.points
    ]
    lines = table([(label, own) for label, own in groups if own], found.scores)
    told = [*found.failures.values(), *found.notes]
    return [*lines, *(["", *(f"- {note}" for note in told)] if told else [])]


def sweep_json(found: Sweep) -> dict[str, Any]:
    """One document: what was varied, every training, every task's scores; full precision."""
    points = []
    for point in found.points:
        trainings = []
        for recipe in point.recipes:
            outcome = found.outcomes.get(recipe.output)
            trainings.append(
                {
                    "name": recipe.name,
                    "output": recipe.output,
                    "seed": recipe.seed,
                    "failure": found.failures.get(recipe.output),
                    **({} if outcome is None else dataclasses.asdict(outcome)),
                }
            )
        points.append({"label": point.label, "values": dict(point.values), "trainings": trainings})
    return {
        "varied": {each.key: list(each.values) for each in found.varied},
        "base": (found.scores[0].points if found.scores else found.points)[0].label,
        "points": points,
        "scores": [each.to_json() for each in found.scores],
        "notes": list(found.notes),
    }


def _own(recipe: Recipe, values: Mapping[str, Any], output: Path | None) -> Recipe:
    """The recipe of one training, with a name and a folder of its own.

    A folder of the form `general_ratio=0.25,seed=2`, as sweeps began with, is continued.
    """
    parent = output or Path(recipe.output)
    named = [_named(key, value) for key, value in values.items()]
    slug = re.sub(r"[^A-Za-z0-9._+-]+", "_", "--".join(named).replace("=", "-"))
    earlier = re.sub(r"[^A-Za-z0-9.=,_+-]+", "_", ",".join(named))
    slug = earlier if (parent / earlier).is_dir() else slug
    return dataclasses.replace(recipe, name=f"{recipe.name}-{slug}", output=str(parent / slug))


def _check_distinct(recipes: Sequence[Recipe]) -> None:
    """Refuses two trainings of equal settings, or two that would write into one folder."""
    seen: dict[str, str] = {}
    for recipe in recipes:
        body = {name: value for name, value in plain(recipe).items() if name not in ("name", "output")}
        for mark in (json.dumps(body, sort_keys=True), recipe.output):
            if mark in seen:
                raise RecipeError(f"--vary: {seen[mark]} and {recipe.name} are the same training")
            seen[mark] = recipe.name


def _named(key: str, value: Any) -> str:
    """`general_ratio=0.25`; what learns is named by its value alone."""
    return _shown(value) if key == "trainable" else f"{key.rpartition('.')[2]}={_shown(value)}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
