"""What a command costs: processor seconds of the process with its children, and the clock."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Timed(NamedTuple):
    """A process that has ended, with its seconds."""

    done: subprocess.CompletedProcess[str]
    processor: float
    clock: float


def timed(command: Sequence[str | Path], **settings: Any) -> Timed:
    """Run a command; settings are those of `subprocess.run`. No other child may end meanwhile."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, text=True, **settings)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed(done, spent, clock)
