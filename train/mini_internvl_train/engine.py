"""Accelerate's engine for this process, the lock on the output folder, and signals to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evalkit import environment
from mini_internvl_train.errors import TrainingError
from mini_internvl_train.precision import emulated
from mini_internvl_train.recipe import Precision
from mini_internvl_train.sharding import without_accelerates_own

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(precision: Precision, *, cpu: bool = False) -> Accelerator:
    """Accelerate's engine for this process: one device or torchrun, as it was launched.

    Args:
        precision: of products. cpu: never a GPU.

    Raises:
        TrainingError: several processes, on Windows.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState, GradientState

    if environment.is_windows() and int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise TrainingError("training in several processes is not supported on Windows: use one, or WSL")
    # one process may train several times, in different precisions
    AcceleratorState._reset_state()
    GradientState._reset_state()
    waits = InitProcessGroupKwargs(timeout=timedelta(hours=24))  # the others wait while one evaluates
    # without `cpu=True`, Accelerate starts no process group on a machine that has only CPUs
    cpu = cpu or not torch.accelerator.is_available()
    plain = precision == "float32" or (cpu and emulated(precision, torch.device("cpu")))
    mixed = "no" if plain else precision
    with without_accelerates_own():
        return Accelerator(cpu=cpu, mixed_precision=mixed, kwargs_handlers=[waits])


def gathered(value: Any) -> list[Any]:
    """A value of each rank, on all of them."""
    from accelerate.utils import gather_object

    found: list[Any] = gather_object([value])
    return found


@contextlib.contextmanager
def locked(output: Path, accelerator: Accelerator) -> Iterator[None]:
    """Keeps a second training out of the folder."""
    if not accelerator.is_main_process:
        yield
        return
    from evalkit.errors import RunFolderError
    from evalkit.store import lock

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{output}: the output folder cannot be created ({error.strerror})") from None
    try:
        held = lock.acquire(output, 0.0, "give another output")
    except lock.LockedError:
        raise TrainingError(
            f"{output}: another training writes here; wait for it or give another output"
        ) from None
    except RunFolderError as error:
        raise TrainingError(str(error)) from None
    try:
        yield
    finally:
        held.release()


class Interruption:
    """Notes SIGTERM and SIGINT, so that a step is finished and saved; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
