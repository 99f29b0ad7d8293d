"""The log of a training: `log.jsonl`, TensorBoard scalars; a progress bar, or lines without a terminal."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evalkit import environment
from evalkit.doors import cause
from evalkit.trackers.base import Trackers
from mini_internvl_train.errors import ResumeError

logger = logging.getLogger(__name__)

LOG = "log.jsonl"
INTERVAL = 10.0
"""Seconds between two lines where there is no terminal."""

Scores = Mapping[str, Mapping[str, float | None]]
"""Value by group (a task, for example) and metric."""


@dataclass(frozen=True, slots=True)
class StepLog:
    """One optimizer step, as a line of `log.jsonl`.

    Attributes:
        step: steps done. epoch: of the step's first pack.
        loss: weighted mean over the step. lr: of the step, the highest of all parts.
        grad_norm: before clipping.
        samples, tokens: of the step, over all ranks. seconds: it took.
        memory: peak bytes of this process so far (of the GPU if there is one); None where the
            system does not count them (Windows).
        losses: weighted mean of each data set that the step has samples of.
    """

    step: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    samples: int
    tokens: int
    seconds: float
    memory: int | None
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Validated:
    """The loss on held-out samples.

    Attributes:
        loss: weighted as in training. sets: loss and number of samples of each data set.
    """

    loss: float
    sets: Mapping[str, tuple[float, int]]


class TrainingLog:
    """Writes on the main process; on others every call does nothing.

    Args:
        output: folder of the training.
        total: steps of the whole training. done: steps done before; None begins anew.
        main: whether this is the main process. quiet: no progress bar.
        trackers: get every value too.
    """

    def __init__(
        self,
        output: Path,
        total: int,
        done: int | None,
        *,
        main: bool,
        quiet: bool,
        trackers: Trackers | None = None,
    ) -> None:
        self._main = main
        self._trackers = trackers
        if not main:
            return
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        output.mkdir(parents=True, exist_ok=True)
        if done is None:
            (output / LOG).unlink(missing_ok=True)
            done = 0
        truncate(output / LOG, done)
        self._file = (output / LOG).open("a", encoding="utf-8")
        self._board = SummaryWriter(output / "tensorboard", purge_step=done + 1)
        bar = not quiet and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, unit="step", disable=not bar, dynamic_ncols=True)
        self._lines = not quiet and not bar
        self._total, self._shown = total, time.monotonic()
        self._samples = self._tokens = 0
        self._seconds = 0.0

    def step(self, line: StepLog) -> None:
        """One step is done."""
        if not self._main:
            return
        self._write(asdict(line))
        fields = {name: getattr(line, name) for name in ("loss", "lr", "grad_norm", "seconds", "memory")}
        known = {f"train/{name}": value for name, value in fields.items() if value is not None}
        known |= {f"train/{name}/loss": value for name, value in line.losses.items()}
        self._scalars(known, line.step)
        self._samples += line.samples
        self._tokens += line.tokens
        self._seconds += line.seconds
        speed = {"samples": line.samples / line.seconds, "tokens": line.tokens / line.seconds}
        self._scalars({f"train/{name}_per_second": value for name, value in speed.items()}, line.step)
        rates = (
            f"loss {line.loss:.4f}, {self._samples / self._seconds:.1f} samples/s, "
            f"{self._tokens / self._seconds:.0f} tokens/s"
        )
        self._bar.set_postfix_str(rates)
        self._bar.update()
        now = time.monotonic()
        if self._lines and (now - self._shown >= INTERVAL or line.step == self._total):
            self._shown = now
            logger.info("step %d/%d: %s", line.step, self._total, rates)

    def validation(self, step: int, found: Validated) -> None:
        """The loss on held-out samples after a step."""
        if not self._main:
            return
        sets = {name: {"loss": loss, "samples": count} for name, (loss, count) in found.sets.items()}
        self._write({"step": step, "validation_loss": found.loss, "validation": sets})
        by_set = {f"validation/{name}/loss": loss for name, (loss, _) in found.sets.items()}
        self._scalars({"validation/loss": found.loss, **by_set}, step)

    def note(self, step: int, **content: Any) -> None:
        """A line on something that happened after a step: `best_step`, `resumed`, `final_step`."""
        if self._main:
            self._write({"step": step, **content})

    def empty(self, step: int) -> None:
        """A step of damaged samples alone, in which nothing was learned."""
        if self._main:
            self._write({"step": step, "samples": 0})
            self._bar.update()
            logger.warning("step %d: every sample of it is damaged; nothing is learned in it", step)

    def evaluation(self, step: int, scores: Scores) -> None:
        """Scores of a checkpoint by task and metric."""
        if not self._main:
            return
        self._write({"step": step, "evaluation": scores})
        values = {
            f"eval/{task}/{name}": value
            for task, metrics in scores.items()
            for name, value in metrics.items()
            if value is not None
        }
        self._scalars(values, step)

    def flush(self) -> None:
        """Flushes everything to the disk, as before a checkpoint."""
        if self._main:
            os.fsync(self._file.fileno())
            self._board.flush()

    def close(self) -> None:
        """Closes bar and files."""
        if self._main:
            self._bar.close()
            self._file.close()
            self._board.close()
            if self._trackers is not None:
                self._trackers.finish()

    def _write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content) + "\n")
        self._file.flush()

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._trackers is not None:
            self._trackers.log(values, step)


def peak_memory() -> int | None:
    """Peak bytes so far: of the GPU if one is used, otherwise of this process; None where nobody counts."""
    found = environment.peak_memory()
    return found.get("device_bytes", found.get("host_bytes"))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a torn last one is left out."""
    if not path.is_file():
        return []
    try:
        texts = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(text) for text in texts if text.endswith("\n")]
    except Exception as error:
        raise ResumeError(f"{path}: a log that cannot be read ({cause(error)}); move it away") from None


_MADE_AGAIN = {"evaluation", "validation", "best_step", "stopped_early", "final_step"}


def truncate(path: Path, done: int) -> None:
    """Drops what was logged after step `done`, and what is made again of that step."""
    if not path.is_file():
        return
    kept = [line for line in read_log(path) if _before(line, done)]
    temporary = path.with_suffix(".tmp")
    temporary.write_text(_joined(kept), encoding="utf-8")
    temporary.replace(path)


def _before(line: Mapping[str, Any], done: int) -> bool:
    step = int(line.get("step", 0))
    return step < done or (step == done and not _MADE_AGAIN & line.keys())


def _joined(lines: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)
