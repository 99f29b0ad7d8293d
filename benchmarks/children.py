"""What a command costs: processor seconds of the process with its children, and the clock."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Timed(NamedTuple):
    """A process that has ended, with its seconds."""

    done: subprocess.CompletedProcess[str]
    processor: float
    clock: float


def storing_compiled(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Python stores the modules that it has compiled, as it does for a user."""
    return {name: text for name, text in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}


def timed(command: Sequence[str | Path], **settings: Any) -> Timed:
    """Run a command; settings are those of `subprocess.run`. No other child may end meanwhile."""
    settings["env"] = storing_compiled(settings.get("env", os.environ))
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, text=True, **settings)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed(done, spent, clock)
