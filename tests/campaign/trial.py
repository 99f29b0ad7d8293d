"""What one try of the campaign is, and how it is judged.

A hostile input must give a message, or another value than the same input with the mutation undone, or the
mutation must touch nothing that is read. Anything else is silent.
"""

from __future__ import annotations

import logging
import random
import resource
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from evalkit.errors import EvalkitError
from mini_internvl import MiniInternVLError
from mini_internvl_train.errors import TrainingError

#: `held`, or what is wrong: work lost, a value without a word, an error of Python's own, no end.
Kind = Literal["held", "lost", "silent", "raw", "hang"]

#: Errors with a line for the user.
TYPED = (EvalkitError, MiniInternVLError, TrainingError)
#: Words by which evalkit says that some code failed in a way that nobody thought of.
_UNFORESEEN = ("an error in evalkit", "() fails", "stopped by ", "Traceback (most recent")
#: Bytes that no input of a few kilobytes may take.
MEMORY = 3 << 30
#: No expected value is known.
UNKNOWN = object()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a try, and the words for what is wrong.

    Attributes:
        count: kills, or inputs, that the try was made of.
    """

    kind: Kind = "held"
    note: str = ""
    count: int = 1


HELD = Verdict()


def told(verdict: Verdict, what: Callable[[], str]) -> Verdict:
    """The verdict, with what was done where something is wrong."""
    return verdict if verdict.kind == "held" else replace(verdict, note=f"{verdict.note}; {what()}")


class TooLong(BaseException):
    """A try that does not end; no `except Exception` may catch it."""


class Trial(ABC):
    """One row of the campaign's table.

    Attributes:
        name: of the row. share: of the campaign's time, relative to the others'.
        seconds: a try that takes longer hangs.
    """

    name: ClassVar[str]
    share: ClassVar[float] = 1.0
    seconds: ClassVar[float] = 20.0

    def __init__(self, folder: Path) -> None:
        """Makes the undisturbed inputs in an empty folder."""
        self.folder = folder

    @abstractmethod
    def once(self, rng: random.Random) -> Verdict:
        """One try; everything random is drawn from `rng`."""

    def close(self) -> None:  # noqa: B027  (most have nothing to end)
        """Ends what was started."""


@dataclass
class Said:
    """What evalkit made of an input: a value, a refusal or an error that nobody foresaw, and warnings."""

    value: Any = None
    refusal: str | None = None
    raw: str | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def spoke(self) -> bool:
        """Whether there was a message."""
        return self.refusal is not None or bool(self.warnings)


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0].startswith(("evalkit", "mini_internvl")):
            self.lines.append(record.getMessage())


def ask(work: Callable[[], Any]) -> Said:
    """Runs `work` and sorts what comes of it."""
    heard = _Warnings()
    logger = logging.getLogger()
    logger.addHandler(heard)
    try:
        said = Said(work(), warnings=heard.lines)
    except TYPED as error:
        text = str(error)
        raw = next((words for words in _UNFORESEEN if words in text), None)
        said = Said(refusal=text, raw=text if raw else None, warnings=heard.lines)
        if not text.strip():
            said.raw = f"{type(error).__name__} without a word"
    except Exception as error:
        said = Said(raw=f"{type(error).__name__}: {error} at {_place(error)}", warnings=heard.lines)
    finally:
        logger.removeHandler(heard)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if peak > MEMORY:
        said.raw = f"took {peak / 2**30:.1f} GiB of memory"
    return said


def _place(error: BaseException) -> str:
    """File and line of the innermost frame."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def judge(
    said: Said, base: Any, *, touched: Callable[[], bool], expected: Any = UNKNOWN, file: str = ""
) -> Verdict:
    """The verdict on a hostile input.

    Args:
        base: the value without the mutation.
        touched: whether the mutation changed something that is read; asked only where it matters.
        expected: the value by an independent reading, where there is one.
        file: a name that a refusal must hold.
    """
    if said.raw is not None:
        return Verdict("raw", said.raw)
    if said.refusal is not None:
        if file and file not in said.refusal:
            return Verdict("raw", f"names no file: {said.refusal}")
        return HELD
    if said.warnings:
        return HELD
    if said.value != base:
        if expected is not UNKNOWN and said.value != expected:
            return Verdict("silent", "read otherwise than it stands there, without a word")
        return HELD
    return Verdict("silent", "the same value, without a word") if touched() else HELD


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises `TooLong` in the block after so many seconds."""

    def stop(number: int, frame: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(trial: Trial, rng: random.Random) -> Verdict:
    """One try within its time. An error of the trial itself is told as raw, never swallowed."""
    try:
        with deadline(trial.seconds):
            return trial.once(rng)
    except TooLong:
        return Verdict("hang", f"no end after {trial.seconds:g} s")
    except Exception as error:
        return Verdict("raw", f"{type(error).__name__}: {error} at {_place(error)} (in the trial)")
