"""What the runner needs of a model that answers in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from evalkit.contracts import Json, Model, ModelInfo, ModelOptions, Request, Response
from evalkit.errors import EvalkitError, UsageError

#: Makes the model in worker `number`; it is pickled, so it is defined in a module.
Load = Callable[[int], Model]


class Answer(NamedTuple):
    """A response, the id of the sample and the content hash of the request that it answers."""

    id: str
    key: str
    response: Response


@runtime_checkable
class Pool(Protocol):
    """A model in several processes.

    Attributes:
        worker: names the responses file of the answer yielded last.
    """

    worker: str

    @property
    def info(self) -> ModelInfo:
        """Identity of the model, the same in every worker."""
        ...

    def answers(
        self, groups: Sequence[tuple[int, ...]], request: Callable[[int], Request]
    ) -> Iterator[Answer]:
        """Answer every position of the groups once, in whatever order the workers finish.

        Args:
            groups: positions that share their pictures; one group's requests meet one worker.
            request: makes the request of a position, when it is handed out.

        Raises:
            EvalkitError: no worker is left; whatever the model itself raises passes through.
        """
        ...

    def line(self) -> str:
        """Speed and load of the workers, for the progress line; empty where there is nothing to say."""
        ...

    def report(self) -> dict[str, Json]:
        """What the manifest keeps of the workers of one session."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


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

        device: Any = self.options.device
        if device in ("auto", "cuda"):
            import torch

            found = torch.cuda.device_count()
            if device == "cuda" or found:
                if number >= found:
                    raise UsageError(f"--devices: worker {number} has no GPU, there are {found}")
                device = f"cuda:{number}"
        return registry.model(self.spec, dataclasses.replace(self.options, device=device))
