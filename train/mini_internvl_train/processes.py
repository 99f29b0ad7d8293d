"""Trainings in processes of their own: each with its own peak memory, none ended by another's failure."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from evalkit.errors import EvalkitError
from mini_internvl import MiniInternVLError
from mini_internvl_train.engine import Interruption
from mini_internvl_train.errors import Stopped, TrainingError
from mini_internvl_train.log import LOG, read_log
from mini_internvl_train.recipe import Recipe
from mini_internvl_train.settings import plain

PARTS = "parts.json"
"""What a training says of itself beside its log: how many parameters learn, and whose memory is counted."""
SHARED = "base"
"""Beside the trainings' folders: scores of the base model, which all of them need."""
FAILED = "evalkit train: "
"""Marks a child's last message among those of its launcher."""
SAYS_EVERY = 60.0
"""Seconds between two lines on a training's progress."""
LOOKS_EVERY = 0.2
"""Seconds between two looks at what runs."""

Say = Callable[[str], None]


@dataclass(slots=True)
class _Child:
    recipe: Recipe
    process: subprocess.Popen[bytes]
    errors: IO[str]
    place: int
    said: float

    def failure(self) -> str | None:
        """Why it ended otherwise than well."""
        status = self.process.returncode
        if not status:
            return None
        self.errors.seek(0)
        lines = [line for line in self.errors.read().splitlines() if line.strip()]
        own = [line for line in lines if line.startswith(FAILED)]
        last = (own or lines or ["no message"])[-1].removeprefix(FAILED)
        return f"{self.recipe.output}: training ended with status {status}: {last}"


def train_apart(
    recipes: Sequence[Recipe], *, devices: int = 1, at_once: int = 1, say: Say
) -> dict[str, str | None]:
    """Trains every recipe in processes of its own; a finished one is only looked at.

    Args:
        recipes: each with an output folder of its own.
        devices: processes of each training, one a GPU. at_once: trainings at the same time, each on GPUs of
            its own.
        say: where progress goes.

    Returns:
        By output folder, why the training failed, or None.

    Raises:
        Stopped: SIGTERM or SIGINT; the trainings finished their steps and were saved.
    """
    waiting, running = list(recipes), list[_Child]()
    failures: dict[str, str | None] = {}
    with contextlib.ExitStack() as stack, Interruption() as interruption:
        try:
            while (waiting or running) and not interruption.requested:
                while waiting and len(running) < at_once:
                    taken = {child.place for child in running}
                    place = next(place for place in range(at_once) if place not in taken)
                    errors = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
                    running.append(_start(waiting.pop(0), devices, at_once, place, errors))
                    say(f"{running[-1].recipe.name}: training in {running[-1].recipe.output}")
                time.sleep(LOOKS_EVERY)
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    failures[child.recipe.output] = failure = child.failure()
                    if failure:
                        say(f"{child.recipe.name}: {failure}")
                _say_progress(running, say)
        finally:
            for child in running:
                child.process.terminate()  # it finishes its step and saves
            for child in running:
                child.process.wait()
    if interruption.requested:
        raise Stopped("stopped; the same command goes on")
    return failures


def _start(recipe: Recipe, devices: int, at_once: int, place: int, errors: IO[str]) -> _Child:
    import yaml

    from evalkit.registry import included_files

    output = Path(recipe.output)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "recipe.yaml"
    path.write_text(yaml.safe_dump(_absolute(recipe), sort_keys=False), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"]
    command = [sys.executable, *(launcher if devices > 1 else []), "-m", __name__, str(path)]
    process = subprocess.Popen(
        [*command, *map(str, included_files())], stderr=errors, env=_environment(devices, at_once, place)
    )
    return _Child(recipe, process, errors, place, time.monotonic())


def _environment(devices: int, at_once: int, place: int) -> dict[str, str]:
    """This process's environment; of trainings at the same time, each sees its own share of the GPUs."""
    values = dict(os.environ)
    if at_once == 1:
        return values
    import torch

    count = torch.cuda.device_count()
    if not count:
        return values
    if count < at_once * devices:
        raise TrainingError(
            f"{at_once} trainings at once on {devices} GPUs each need {at_once * devices}, there are {count}"
        )
    visible = (values.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))).split(",")
    values["CUDA_VISIBLE_DEVICES"] = ",".join(visible[place * devices : (place + 1) * devices])
    return values


def _say_progress(running: Sequence[_Child], say: Say) -> None:
    now = time.monotonic()
    for child in running:
        if now - child.said < SAYS_EVERY:
            continue
        child.said = now
        if steps := [line for line in read_log(Path(child.recipe.output) / LOG) if "loss" in line]:
            say(f"{child.recipe.name}: step {steps[-1]['step']}, loss {steps[-1]['loss']:.4f}")


def _absolute(recipe: Recipe) -> Mapping[str, Any]:
    """The recipe as plain YAML values, its data where it was found."""
    content = plain(recipe)
    for name in ("meta", "general_meta", "validation"):
        if isinstance(content["data"][name], str):
            content["data"][name] = str(Path(content["data"][name]).resolve())
    return content


def train_here(recipe: Recipe) -> None:
    """Trains in this process, and notes what learns beside the log."""
    import torch

    from mini_internvl_train.checkpoints import newest
    from mini_internvl_train.fine_tuning import train
    from mini_internvl_train.start import learned_parameters, load_start, prepare

    output = Path(recipe.output)
    output.mkdir(parents=True, exist_ok=True)
    begun = (output / PARTS).is_file() and newest(output) is not None  # of this recipe, or it is refused
    if os.environ.get("RANK", "0") == "0" and not begun:
        start = load_start(recipe)
        prepare(start.network, recipe)
        learns = sum(p.numel() for _, p in learned_parameters(start.network))
        memory_of = "GPU" if torch.cuda.is_available() else "process"
        (output / PARTS).write_text(json.dumps({"learns": learns, "memory_of": memory_of}), encoding="utf-8")
        del start
    train(recipe, say=lambda line: None, quiet=True, shared=output.parent / SHARED)


def _child(path: str, *included: str) -> None:
    from evalkit import registry
    from mini_internvl_train.recipe import read_recipe

    for file in included:
        registry.include(Path(file))
    train_here(read_recipe(path))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Ends the process with one marked line where training fails."""
    try:
        yield
    except (Stopped, EvalkitError, MiniInternVLError, TrainingError, OSError) as error:
        sys.exit(f"{FAILED}{' '.join(str(error).split())}")


if __name__ == "__main__":
    with _told():
        _child(*sys.argv[1:])
