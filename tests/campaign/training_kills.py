"""Kills of a training that keeps fewer checkpoints than it is interrupted: it ends with the same weights."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from campaign.kills import Killed
from campaign.trial import Trial


class _TrainingKills(Killed):
    """Six short steps of a network of some ten thousand parameters, a checkpoint after each, one kept."""

    share = 1.0
    seconds = 300.0
    most_kills = 5
    settings: ClassVar[Mapping[str, Any]] = {}

    def prepare(self) -> None:
        from small_training import make_recipe

        changes = {"checkpoints__every": 1, "checkpoints__keep": 1, **self.settings}
        make_recipe(self.folder, samples=8, **changes)
        self.output = self.folder / "out"
        self.done = 0

    def begin(self) -> None:
        shutil.rmtree(self.output, ignore_errors=True)
        self.done = 0

    def work(self) -> Callable[[], int]:
        def train() -> int:
            import torch

            from mini_internvl_train import fine_tuning
            from mini_internvl_train.errors import Stopped
            from mini_internvl_train.recipe import read_recipe

            torch.set_num_threads(1)
            try:
                fine_tuning.train(read_recipe(self.folder / "recipe.yaml"), quiet=True)
            except Stopped as stopped:
                print(stopped)
                return 130
            return 0

        return train

    def arguments(self) -> list[str]:
        return []

    def lost(self) -> str | None:
        """The newest checkpoint is never older than one that was there before."""
        from mini_internvl_train.checkpoints import checkpoints, step_of

        before, self.done = self.done, max(map(step_of, checkpoints(self.output)), default=0)
        return f"step {before} was saved, {self.done} is left" if self.done < before else None

    def result(self) -> Any:
        """Hashes of everything in `final/`, and an answer of the model that lies there."""
        from campaign.processes import Child

        final = self.output / "final"
        files = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            for path in sorted(final.iterdir())
            if path.is_file()
        }
        told = self.folder / "answer.txt"

        def answer() -> int:
            import torch

            import mini_internvl

            torch.set_num_threads(1)
            print(mini_internvl.load(final).chat(None, "Which colour?", max_new_tokens=3))
            return 0

        child = Child(answer, told)
        if child.wait() != 0:
            return f"final/ does not answer: {child.text[-300:]}"
        leftovers = [path.name for path in self.output.iterdir() if path.name.endswith(".tmp")]
        return files, child.text, leftovers


class FullKills(_TrainingKills):
    name = "kills: train"


class LoraKills(_TrainingKills):
    name = "kills: train, LoRA in bfloat16"
    settings: ClassVar[Mapping[str, Any]] = {"trainable": "lora", "precision": "bf16"}


class HalfKills(_TrainingKills):
    name = "kills: train, bfloat16"
    settings: ClassVar[Mapping[str, Any]] = {"trainable": "frozen_vit", "precision": "bf16"}


TRIALS: tuple[Callable[[Path], Trial], ...] = (FullKills, LoraKills, HalfKills)
