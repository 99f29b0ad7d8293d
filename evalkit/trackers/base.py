"""What evalkit needs of a tracker, which ones there are, and how several are kept from stopping a run."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from evalkit.contracts import Json
from evalkit.errors import UsageError
from evalkit.installation import install_command
from evalkit.registry import nearest

log = logging.getLogger(__name__)

#: Entry point group of further trackers: a class or function without arguments that makes a `Tracker`.
GROUP = "evalkit.trackers"


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is told of a run or a training.

    Attributes:
        id: equal for what is to be one run in the tracker (a run that is resumed or scored again).
        name: for people. config: settings by name; small values are texts or numbers.
        folder: where the results are. offline: nothing may be sent.
    """

    id: str
    name: str
    config: Mapping[str, Json]
    folder: Path
    offline: bool = False
    tags: tuple[str, ...] = field(default=())


class Tracker(Protocol):
    """One run in a tracker. Whatever a method raises is reported, and the run goes on without the tracker."""

    def start(self, run: TrackedRun) -> None:
        """Begin the run, or go on with the one of the same id."""
        ...

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Values by name; of a training with its step."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> None:
        """A table."""
        ...

    def finish(self) -> None:
        """End the run and send what is not sent."""
        ...


#: Module and class of each tracker that comes with evalkit, and the package that it needs.
_BUILT_IN = {
    "wandb": ("evalkit.trackers.wandb_tracker:WandbTracker", "wandb"),
    "mlflow": ("evalkit.trackers.mlflow_tracker:MlflowTracker", "mlflow"),
    "trackio": ("evalkit.trackers.trackio_tracker:TrackioTracker", "trackio"),
    "tensorboard": ("evalkit.trackers.tensorboard_tracker:TensorboardTracker", "tensorboard"),
}


def names() -> list[str]:
    """Every tracker that can be named."""
    return [*_BUILT_IN, *(point.name for point in entry_points(group=GROUP) if point.name not in _BUILT_IN)]


def check(asked: Sequence[str]) -> None:
    """Refuse trackers that are not there, before any work is done.

    Raises:
        UsageError: an unknown name, or a package that is not installed.
    """
    for name in asked:
        if name not in names():
            raise UsageError(f"--log-to {name}: there are {', '.join(names())}{nearest(name, names())}")
        if name in _BUILT_IN and find_spec(package := _BUILT_IN[name][1]) is None:
            raise UsageError(f"--log-to {name}: needs the package {package}: {install_command(name)}")


def make(name: str) -> Tracker:
    """A new tracker of that name."""
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name][0].partition(":")
        tracker: Tracker = getattr(import_module(module), attribute)()
        return tracker
    (point,) = entry_points(group=GROUP, name=name)
    made: Tracker = point.load()()
    return made


class Trackers:
    """Several trackers as one; one that raises is named in a warning and left out from then on."""

    def __init__(self, asked: Sequence[str], run: TrackedRun) -> None:
        self._run = run
        self._trackers: dict[str, Tracker] = {}
        for name in dict.fromkeys(asked):
            self._try(name, lambda name=name: self._begin(name))  # type: ignore[misc]

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """See `Tracker.log`."""
        self._each(lambda tracker: tracker.log(values, step))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> None:
        """See `Tracker.table`."""
        self._each(lambda tracker: tracker.table(name, columns, rows))

    def finish(self) -> None:
        """See `Tracker.finish`."""
        self._each(lambda tracker: tracker.finish())
        self._trackers.clear()

    def _begin(self, name: str) -> None:
        tracker = make(name)
        tracker.start(self._run)
        self._trackers[name] = tracker

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            self._try(name, lambda tracker=tracker: act(tracker))  # type: ignore[misc]

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results: some print there
                act()
        except Exception as error:
            self._trackers.pop(name, None)
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            log.warning("--log-to %s: %s; %s holds everything all the same", name, cause, self._run.folder)
