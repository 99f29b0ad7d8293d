"""The errors this package raises on purpose, each with one clear line: what, where, the fix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class MiniInternVLError(Exception):
    """Base of every error raised on purpose by this package."""


class ConfigError(MiniInternVLError):
    """A config.json that cannot be understood or that asks for something unsupported."""


class CheckpointError(MiniInternVLError):
    """A checkpoint that is missing, incomplete, corrupt or refused."""


class DeviceError(CheckpointError):
    """A device that is unknown, absent or too small for the weights; once a plain CheckpointError."""


class TokenizerError(MiniInternVLError):
    """Tokenizer files that are missing, corrupt or of an unknown kind."""


class ImageError(MiniInternVLError):
    """An image that cannot be read, is truncated or is absurdly large."""


class PromptError(MiniInternVLError):
    """A conversation that does not fit its images or its template."""


class ImageTokenMismatch(MiniInternVLError, ValueError):
    """The number of image tokens in the text differs from the number of visual features."""


class OutOfMemory(MiniInternVLError):
    """One sequence alone does not fit into the device's memory."""


class NotFiniteError(MiniInternVLError):
    """Numbers of the network that are not finite: its answers would mean nothing.

    Attributes:
        place: of the first sequence. part: of the network where it began.
    """

    def __init__(self, place: int, part: str = "language model") -> None:
        super().__init__(f"the output of the {part} is not finite (NaN or infinity)")
        self.place = place
        self.part = part


class CompileError(MiniInternVLError):
    """`torch.compile` does not work on this device or machine."""


@contextmanager
def reading(where: object, error: type[MiniInternVLError]) -> Iterator[None]:
    """Whatever files of others make go wrong in the block is an `error` that names `where`.

    Raises:
        MiniInternVLError: `error`, or one raised in the block, which says more already.
    """
    try:
        yield
    except (MiniInternVLError, MemoryError):
        raise
    except RecursionError:
        raise error(f"{where}: nested too deeply") from None
    except Exception as raised:
        if type(raised).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            raise
        text = " ".join(str(raised).split())[:200]
        raise error(
            f"{where}: cannot be read ({type(raised).__name__}: {text}); download it again"
        ) from raised


def first_error_raised(results: Iterable[T | MiniInternVLError]) -> list[T]:
    """The results; the first that is an error is raised."""
    found: list[T] = []
    for result in results:
        if isinstance(result, MiniInternVLError):
            raise result
        found.append(result)
    return found
