"""What worker processes are asked and who answers, slowly or not at all; they import this and little else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evalkit.contracts import Model, ModelInfo, Request, Response
from evalkit.errors import CheckpointError


@dataclass(frozen=True)
class Named:
    """An image known by its name."""

    name: str

    def identity(self) -> str:
        """The name."""
        return self.name

    def digest(self) -> str:
        """The name."""
        return self.name


class Slow:
    """Answers after a moment with its process; may die, raise, or refuse to load."""

    info = ModelInfo(name="slow", fingerprint="0", dtype="float32", device="cpu")

    def __init__(self, delay: float, killer: str) -> None:
        self.delay, self.killer = delay, killer

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """In reverse order."""
        for request in reversed(requests):
            if request.id == self.killer:
                os.kill(os.getpid(), signal.SIGKILL)
            if request.id == "raise":
                raise ValueError("a bad day")
            time.sleep(self.delay)
            yield request.id, Response(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}", "stop")

    def close(self) -> None:
        """Nothing to free."""


@dataclass(frozen=True)
class Load:
    """Makes `Slow`."""

    delay: float = 0.0
    killer: str = ""
    refuse: bool = False

    def __call__(self, number: int) -> Model:
        if self.refuse:
            raise CheckpointError("no such checkpoint")
        return Slow(self.delay, self.killer)


class Deadly(Slow):
    """Kills its process whatever it is asked."""

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """Never."""
        os.kill(os.getpid(), signal.SIGKILL)
        yield "", Response()


def load_deadly(number: int) -> Model:
    """Makes `Deadly`."""
    return Deadly(0.0, "")
