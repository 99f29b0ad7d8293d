"""Full fine-tuning, frozen encoder and LoRA from one checkpoint on one data order (Table 13, Fig. 5).

Each method trains in a separate process, so that peak memory is measured for each.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.files import fields, read_json
from mini_internvl import MiniInternVLError
from mini_internvl_train.errors import Stopped, TrainingError
from mini_internvl_train.log import LOG, read_log
from mini_internvl_train.recipe import Recipe, Trainable
from mini_internvl_train.settings import plain

logger = logging.getLogger(__name__)

METHODS: tuple[Trainable, ...] = ("full", "frozen_vit", "lora")
FAILED = "evalkit train: "
"""Marks a child's last message among those of its launcher."""
SAYS_EVERY = 60.0
"""Seconds between two lines on a training's progress."""
WARM_UP = 10
"""First steps left out when speed is measured; a third of all steps if there are fewer than thirty."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One method.

    Attributes:
        learns: number of trainable parameters.
        memory: peak bytes before the first evaluation, of the GPU if there is one. memory_of: which.
        seconds: of a step, median. iterations: steps an hour. samples: a second.
        loss: mean of the last tenth of the steps.
        scores: by step, `task/metric` to value.
    """

    method: str
    learns: int
    memory: int
    memory_of: str
    seconds: float
    iterations: float
    samples: float
    loss: float
    scores: dict[int, dict[str, float | None]]


def compare_methods(
    recipe: Recipe,
    methods: Sequence[str] = METHODS,
    *,
    devices: int = 1,
    say: Callable[[str], None] = logger.info,
) -> list[Outcome]:
    """Trains every method and gathers its log; a method that is done already is only read.

    Args:
        recipe: of all methods; `trainable` is replaced, and each method gets its own folder in the output.
        methods: values of `trainable`; the first is what the others are set against.
        devices: processes of each training, one a GPU.
        say: where progress goes.

    Returns:
        One outcome a method. `comparison.json` and `comparison.md` are written to the output folder.

    Raises:
        TrainingError: a training failed.
    """
    output = Path(recipe.output)
    output.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for method in methods:
        own = dataclasses.replace(
            recipe,
            trainable=method,  # type: ignore[arg-type]
            name=f"{recipe.name}-{method.replace('_', '-')}",
            output=str(output / method),
        )
        say(f"{method}: training in {own.output}")
        _train_in_processes(own, output / f"{method}.yaml", devices, say)
        outcomes.append(read_outcome(own))
    content = [dataclasses.asdict(outcome) for outcome in outcomes]
    (output / "comparison.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (output / "comparison.md").write_text("\n".join(table(outcomes)) + "\n", encoding="utf-8")
    return outcomes


def read_outcome(recipe: Recipe) -> Outcome:
    """Reads a finished training from its log."""
    lines = read_log(Path(recipe.output) / LOG)
    steps = [line for line in lines if "loss" in line]
    if not steps:
        raise TrainingError(f"{recipe.output}: its log holds no step")
    if any(line["memory"] is None for line in steps):
        raise TrainingError("this system counts no peak memory, which is compared: use a GPU, Linux or macOS")
    timed = steps[min(WARM_UP, len(steps) // 3) :]
    seconds = statistics.median(line["seconds"] for line in timed)
    scores: dict[int, dict[str, float | None]] = {}
    for line in lines:
        if "evaluation" in line:
            scores[int(line["step"])] = {
                f"{task}/{metric}": value
                for task, metrics in line["evaluation"].items()
                for metric, value in metrics.items()
            }
    first = min((step for step in scores if step), default=math.inf)
    made = fields(read_json(Path(recipe.output) / "parts.json"), ("learns", "memory_of"), recipe.output)
    return Outcome(
        recipe.trainable,
        int(made["learns"]),
        max(int(line["memory"]) for line in steps if int(line["step"]) <= first),
        str(made["memory_of"]),
        seconds,
        3600 / seconds,
        statistics.median(line["samples"] for line in timed) / seconds,
        statistics.fmean(line["loss"] for line in steps[-max(1, len(steps) // 10) :]),
        scores,
    )


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Markdown: memory and speed (Table 13), then scores by step (Fig. 5)."""
    first = outcomes[0]
    rows = [
        f"| method | learns | peak memory ({first.memory_of}) | relative | steps/h | relative | samples/s | "
        "loss |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    rows += [
        f"| {o.method} | {o.learns:,} | {o.memory / 1e9:.2f} GB | {o.memory / first.memory:.2f} | "
        f"{o.iterations:,.0f} | {o.iterations / first.iterations:.2f} | {o.samples:.2f} | {o.loss:.4f} |"
        for o in outcomes
    ]
    metrics = sorted({name for o in outcomes for scores in o.scores.values() for name in scores})
    if not metrics:
        return rows
    rows += ["", "| metric | method | " + " | ".join(f"step {s}" for s in _steps(outcomes)) + " |"]
    rows.append("|---|---|" + "---:|" * len(_steps(outcomes)))
    for metric in metrics:
        for o in outcomes:
            shown = [_shown(o.scores.get(step, {}).get(metric)) for step in _steps(outcomes)]
            rows.append(f"| {metric} | {o.method} | " + " | ".join(shown) + " |")
    return rows


def _steps(outcomes: Sequence[Outcome]) -> list[int]:
    return sorted({step for outcome in outcomes for step in outcome.scores})


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _train_in_processes(recipe: Recipe, path: Path, devices: int, say: Callable[[str], None]) -> None:
    """Trains in separate processes; reports progress every minute."""
    import yaml

    from evalkit.registry import included_files

    path.write_text(yaml.safe_dump(_absolute(recipe), sort_keys=False), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"]
    command = [sys.executable, *(launcher if devices > 1 else []), "-m", __name__, str(path)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        child = subprocess.Popen([*command, *map(str, included_files())], stderr=errors)
        try:
            while not _ended(child):
                if steps := [line for line in read_log(Path(recipe.output) / LOG) if "loss" in line]:
                    say(f"{recipe.trainable}: step {steps[-1]['step']}, loss {steps[-1]['loss']:.4f}")
        except BaseException:
            child.terminate()  # it finishes its step and saves
            child.wait()
            raise
        errors.seek(0)
        messages = [line for line in errors.read().splitlines() if line.strip()]
    if child.returncode:
        last = next(
            (line for line in reversed(messages) if line.startswith(FAILED)), messages[-1] if messages else ""
        )
        raise TrainingError(
            f"{recipe.output}: training ended with status {child.returncode}: {last.removeprefix(FAILED)}"
        )


def _ended(child: subprocess.Popen[bytes]) -> bool:
    try:
        child.wait(timeout=SAYS_EVERY)
    except subprocess.TimeoutExpired:
        return False
    return True


def _absolute(recipe: Recipe) -> Mapping[str, Any]:
    """The recipe as plain YAML values, its data where it was found."""
    content = plain(recipe)
    for name in ("meta", "general_meta", "validation"):
        if isinstance(content["data"][name], str):
            content["data"][name] = str(Path(content["data"][name]).resolve())
    return content


def _child(path: str, *included: str) -> None:
    import torch

    from evalkit import registry
    from mini_internvl_train.fine_tuning import train
    from mini_internvl_train.recipe import read_recipe
    from mini_internvl_train.start import learned_parameters, load_start, prepare

    for file in included:
        registry.include(Path(file))
    recipe = read_recipe(path)
    output = Path(recipe.output)
    output.mkdir(parents=True, exist_ok=True)
    if os.environ.get("RANK", "0") == "0":
        start = load_start(recipe)
        prepare(start.network, recipe)
        learns = sum(p.numel() for _, p in learned_parameters(start.network))
        memory_of = "GPU" if torch.cuda.is_available() else "process"
        (output / "parts.json").write_text(json.dumps({"learns": learns, "memory_of": memory_of}))
        del start
    train(recipe, say=lambda line: None, quiet=True)


if __name__ == "__main__":
    try:
        _child(*sys.argv[1:])
    except Stopped as stopped:
        sys.exit(f"{FAILED}{stopped}")
    except (EvalkitError, MiniInternVLError, TrainingError) as error:
        sys.exit(f"{FAILED}{error}")
