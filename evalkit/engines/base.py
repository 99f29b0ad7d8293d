"""What the runner needs of whatever answers its requests, and the plain case: a model in this process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from evalkit.batch_config import BATCHING
from evalkit.contracts import Json, Model, ModelInfo, ModelOptions, Request
from evalkit.data.decoding import set_max_pixels
from evalkit.engines.scheduler import Answer, Assignment, Groups, Scheduler
from evalkit.errors import EvalkitError, UsageError

#: Makes the model in worker `number`; it is pickled, so it is defined in a module.
Load = Callable[[int], Model]


@runtime_checkable
class Engine(Protocol):
    """A model, wherever it runs."""

    @property
    def info(self) -> ModelInfo:
        """Identity of the model, the same in every worker."""
        ...

    def bind_samples(self, ids: Collection[str]) -> Mapping[str, int]:
        """Tell a model of stored answers the ids of the whole split; returns its counts for the summary."""
        ...

    def share(self, groups: Groups) -> Groups:
        """The groups that this process sees answered: all of them, except where ranks divide the work."""
        ...

    def answers(self, groups: Groups, request: Callable[[int], Request]) -> Iterator[Answer]:
        """Answer every position of the groups once, in the order in which answers come.

        Args:
            groups: positions that share their images; a group's requests are asked of one worker.
            request: makes the request of a position, when it is handed out.

        Raises:
            RankLost: a rank was lost with requests left.
            EvalkitError: no worker is left; whatever the model itself raises passes through.
        """
        ...

    def line(self) -> str:
        """Speed and load of the workers, for the progress line; empty where there is nothing to say."""
        ...

    def report(self) -> dict[str, Json] | None:
        """What the manifest keeps of the workers of one session; None where there are none."""
        ...

    def close(self) -> None:
        """End the workers and free the model."""
        ...


class SoleDriver:
    """What engines have in common whose process sees every answer: all but ranks."""

    def bind_samples(self, ids: Collection[str]) -> Mapping[str, int]:
        """Nothing: no worker reads stored answers."""
        return {}

    def share(self, groups: Groups) -> Groups:
        """All of them."""
        return groups


class InProcess(SoleDriver):
    """A model in this process, which is asked one window after another in plan order."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def info(self) -> ModelInfo:
        """See `Engine.info`."""
        return self._model.info

    def bind_samples(self, ids: Collection[str]) -> Mapping[str, int]:
        """See `Engine.bind_samples`."""
        # `announce` is the former name, kept for one release
        bind = getattr(self._model, "bind_samples", None) or getattr(self._model, "announce", None)
        counts: Mapping[str, int] = bind(ids) if bind else {}
        return counts

    def answers(self, groups: Groups, request: Callable[[int], Request]) -> Iterator[Answer]:
        """See `Engine.answers`."""
        scheduler = Scheduler(groups, request, self.info.name, BATCHING.window)
        assignment = Assignment("0")
        while window := scheduler.take(assignment):
            for identifier, response in self._model.generate([asked.request for asked in window]):
                yield scheduler.answer(assignment, identifier, response)
            yield from scheduler.finish(assignment)

    def line(self) -> str:
        """What the model says of itself (a served one: what sending again has cost)."""
        said = getattr(self._model, "line", None)
        return str(said()) if said else ""

    def report(self) -> dict[str, Json] | None:
        """What the model counted (a served one: requests and tokens)."""
        counted = getattr(self._model, "report", None)
        return dict(counted()) if counted else None

    def close(self) -> None:
        """See `Engine.close`."""
        self._model.close()


def as_engine(model: Model | Engine) -> Engine:
    """An engine as it is; a model answers in this process."""
    return model if isinstance(model, Engine) else InProcess(model)


def is_bound_to_samples(model: Model) -> bool:
    """Whether the model's answers are stored ones, which are read in the process that knows the samples."""
    return hasattr(model, "bind_samples") or hasattr(model, "announce")


def must_equal(there: Mapping[str, object], here: Mapping[str, object], where: str) -> None:
    """Raises EvalkitError, naming what differs."""
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if names:
        texts = (f"{name} {there.get(name)} there, {here.get(name)} {where}" for name in names[:5])
        raise EvalkitError(f"{'; '.join(texts)}; make them the same")


def portable(error: Exception) -> EvalkitError:
    """The error where it is one for the user and survives pickling; otherwise its text."""
    if isinstance(error, EvalkitError) and error.args == (str(error),):
        return error
    return EvalkitError(f"a worker stopped: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class LoadModel:
    """Loads the model that `spec` names on the device of a worker.

    Attributes:
        spec: as after `--model`. options: for its family; `device` is `auto`, `cuda` or `cpu`.
    """

    spec: str
    options: ModelOptions

    def __call__(self, number: int) -> Model:
        import dataclasses

        from evalkit import registry

        set_max_pixels(self.options.max_pixels)
        device: Any = self.options.device
        if device in ("auto", "cuda"):
            import torch

            found = torch.cuda.device_count()
            if device == "cuda" or found:
                if number >= found:
                    raise UsageError(f"--devices: worker {number} has no GPU, there are {found}")
                device = f"cuda:{number}"
        return registry.model(self.spec, dataclasses.replace(self.options, device=device))
