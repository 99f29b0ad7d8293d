"""Commands as forks of this process, which has imported everything, so that a kill costs half a second."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from evalkit.store import load_run
from evalkit.store.records import read_table

#: How a command is ended: twice as often without warning.
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
#: Seconds after which a command that should end is said to hang.
PATIENCE = 60.0


class Child:
    """A fork that runs `work` and ends with the exit status that it returns.

    Attributes:
        pid: of the process. status: how it ended, None while it runs; minus the signal where one ended it.
    """

    def __init__(
        self, work: Callable[[], int], told: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.told = told
        self.status: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            self._work(work, environment or {})

    def _work(self, work: Callable[[], int], environment: Mapping[str, str]) -> NoReturn:
        status = 99
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sink = os.open(self.told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            os.environ.update(environment)
            status = work()
        except SystemExit as stop:
            status = int(stop.code or 0)
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def send(self, number: int) -> None:
        """Sends a signal, if it still runs."""
        if self.wait(0) is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Its status; None where it runs on."""
        end = time.monotonic() + seconds
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= end:
                break
            else:
                time.sleep(0.003)
        return self.status

    def end(self) -> None:
        """Kills it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(5)

    @property
    def text(self) -> str:
        """What it has said."""
        return self.told.read_text(errors="replace") if self.told.exists() else ""


def command(arguments: Sequence[str]) -> Callable[[], int]:
    """The command line with the fake model beside the installed ones."""

    def work() -> int:
        from toy import FakeFamily

        from evalkit import registry
        from evalkit.cli.main import invoke

        found = registry.families()
        registry.families = lambda: (FakeFamily(), *found)  # type: ignore[assignment]
        return invoke(list(arguments))

    return work


def interrupt(child: Child, rng: random.Random, within: float) -> tuple[int, str | None]:
    """Ends a child at a random moment; what is wrong with how it ended, if anything."""
    number = rng.choice(SIGNALS)
    child.wait(rng.uniform(0, within))
    child.send(number)
    status = child.wait()
    if status is None:
        child.end()
        return number, f"signal {number} does not end it"
    early = "" if child.text.strip() else " (nothing was said yet)"
    if number == signal.SIGKILL or status in (0, 130) or (status == -number and early):
        return number, None
    return number, f"signal {number} ended with {status}: {child.text[-300:]}"


def state_of(run: Path) -> Any:
    """Records and summary of a finished run, without times and places."""
    table = read_table(run).drop_columns(["seconds"]).to_pylist()
    summary = {**(load_run(run).summary or {}), "run": ""}
    return table, summary


def copied(source: Path, target: Path) -> Path:
    """A fresh copy of a tree."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def scratch_files(folder: Path) -> list[str]:
    """Hidden files that a finished command should not leave, locks aside."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob(".*")
        if path.name not in (".lock",) and not path.name.endswith(".lock")
    )


def warm_up(work: Callable[[], int], told: Path) -> None:
    """Imports here what a fork imports for `work`, so that later forks need not; runs it once, in a fork.

    Importing alone starts no threads, which a fork would lose.
    """
    listed = told.with_suffix(".modules")

    def listing() -> int:
        status = work()
        listed.write_text("\n".join(sys.modules))
        return status

    child = Child(listing, told)
    if child.wait(180) != 0:
        raise AssertionError(child.text)
    for name in listed.read_text().split("\n"):
        if name not in sys.modules and not name.startswith(("evalkit_included_", "__")):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
