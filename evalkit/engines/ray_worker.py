"""What runs in a Ray actor: it holds the model, answers chunks in a thread, and hands answers over.

The driver has one call to an actor under way at a time. `exchange` brings chunks and returns as soon as a
chunk is answered, or after a second with the answers so far, so that a lost actor takes few answers with it.
Images may travel with their requests (`--ship-data`), for actors that do not see the data root.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import queue
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.contracts import ImageHandle, Json, Model, ModelInfo, Request, Response
from evalkit.data.decoding import decode
from evalkit.data.images import ImageBytes, ImageFile, TableImage
from evalkit.engines.base import Load, is_bound_to_samples, portable
from evalkit.environment import git_revision, peak_memory, versions
from evalkit.errors import EvalkitError, ImageError, UsageError
from evalkit.task_files import TaskCode

if TYPE_CHECKING:
    from PIL.Image import Image

#: Seconds after which answers are handed over though their chunk is not finished.
_FLUSH = 1.0

#: Modes that PNG keeps as they are.
_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")

#: A request, and its content hash as the driver knows it.
Keyed = tuple[Request, str]


@dataclass(frozen=True)
class Report:
    """What an actor says of itself before it is given work."""

    info: ModelInfo
    versions: dict[str, str]
    commit: Json
    process: int
    accelerators: tuple[str, ...]


@dataclass
class Delivery:
    """What an actor hands over.

    Attributes:
        answers: (request id, response) in the order in which they were given.
        finished: chunks that are done. busy: seconds at work since the last delivery.
        fault: what ended the actor's work; `foreign` where its images are not the driver's,
            `broken` where the model failed, `raised` where `error` is for the user.
    """

    answers: list[tuple[str, Response]] = field(default_factory=list)
    finished: int = 0
    busy: float = 0.0
    fault: str = ""
    error: EvalkitError | None = None
    out_of_memory: bool = False
    memory: dict[str, int] = field(default_factory=dict)


class RayWorker:
    """A model in a process of a cluster."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._chunks: queue.Queue[Sequence[Keyed]] = queue.Queue()
        self._news = threading.Condition()
        self._next = Delivery()
        self._begun: float | None = None

    def load(self, load: Load, includes: Sequence[TaskCode], threads: int, accelerator: bool) -> Report:
        """Load the model and begin to wait for work.

        Args:
            includes: the task files whose image handles the requests may hold, with their helpers.
            threads: of arithmetic on the CPU. accelerator: whether the worker was given one.

        Raises:
            EvalkitError: what loading raised.
        """
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if not accelerator:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        try:
            _include(includes)
            self._model = load(0)
            if is_bound_to_samples(self._model):
                raise UsageError("--engine ray: stored predictions are read, not computed; leave it out")
        except Exception as error:
            raise portable(error) from None
        threading.Thread(target=self._work, daemon=True, name="evalkit-model").start()
        return Report(self._model.info, versions(), git_revision(), os.getpid(), _accelerators())

    def data_hash(self, requests: Sequence[Request]) -> tuple[str, tuple[str, ...]]:
        """See the function of this name."""
        return data_hash(requests)

    def exchange(self, chunks: Sequence[Sequence[Keyed]]) -> Delivery:
        """Take chunks, wait for news and hand it over."""
        for chunk in chunks:
            self._chunks.put(chunk)
        until = time.monotonic() + _FLUSH
        with self._news:
            while not (self._next.finished or self._next.fault):
                left = until - time.monotonic()
                if left <= 0 and self._next.answers:
                    break
                self._news.wait(max(left, 0.05))
            delivery, self._next = self._next, Delivery()
            if self._begun is not None:
                now = time.monotonic()
                delivery.busy += now - self._begun
                self._begun = now
        delivery.memory = peak_memory()
        return delivery

    def _work(self) -> None:
        while True:
            chunk = self._chunks.get()
            with self._news:
                self._begun = time.monotonic()
            memory = False
            try:
                fault, error = self._answer(chunk)
            except EvalkitError as raised:
                fault, error = "raised", portable(raised)
            except Exception as raised:
                fault, error, memory = "broken", portable(raised), _is_memory(raised)
            with self._news:
                self._next.out_of_memory = memory
                self._next.busy += time.monotonic() - (self._begun or 0.0)
                self._begun = None
                self._next.fault, self._next.error = fault, error
                self._next.finished += not fault
                self._news.notify()
            if fault:
                return

    def _answer(self, chunk: Sequence[Keyed]) -> tuple[str, EvalkitError | None]:
        assert self._model is not None  # `load` comes first
        for request, key in chunk:
            if request.key() != key:
                places = [path for image in request.images for path in image.paths()]
                where = f"the images of sample {request.id!r} ({', '.join(places) or 'none'})"
                return "foreign", EvalkitError(f"{where} are not what the driver reads")
        for answer in self._model.generate([request for request, _ in chunk]):
            with self._news:
                self._next.answers.append(answer)
        return "", None


def data_hash(requests: Sequence[Request]) -> tuple[str, tuple[str, ...]]:
    """Hash over the requests' content as this machine sees it, images included, and each one's own hash."""
    keys = tuple(request.key() for request in requests)
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:32], keys


def _include(sources: Sequence[TaskCode]) -> None:
    from evalkit import registry, task_files

    for code in sources:
        folder = Path(tempfile.mkdtemp(prefix="evalkit-tasks-"))  # stays: helpers may be imported later
        for path in task_files.unpack(code, folder):
            registry.include(path)


def _accelerators() -> tuple[str, ...]:
    from evalkit.environment import hardware

    return tuple(hardware().get("accelerators", ()))


def _is_memory(error: Exception) -> bool:
    """Whether host or device memory did not suffice; torch's own error is known by its name."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


@dataclass(frozen=True, slots=True)
class ShippedImage:
    """An encoded image under the name of the handle that it was read from.

    Attributes:
        data: the encoded image; empty where it could not be read, for the reason in `fault`.
        content: the handle's digest. name: its identity. places: its files, on the machine it came from.
    """

    data: bytes
    content: str
    name: str
    places: tuple[str, ...]
    fault: str = ""

    def open(self) -> Image:
        """See `evalkit.data.images.ImageHandle.open`."""
        if self.fault:
            raise ImageError(self.fault)
        return decode(self.data, self.name)

    def digest(self) -> str:
        """See `evalkit.data.images.ImageHandle.digest`."""
        return self.content

    def identity(self) -> str:
        """See `evalkit.data.images.ImageHandle.identity`."""
        return self.name

    def paths(self) -> tuple[str, ...]:
        """See `evalkit.data.images.ImageHandle.paths`."""
        return self.places


class Shipper:
    """Packs images, each once for all requests of a chunk."""

    def __init__(self) -> None:
        self._packed: dict[str, ShippedImage] = {}

    def pack(self, request: Request) -> Request:
        """The request with its images inside.

        Raises:
            UsageError: pixels that no lossless file holds.
        """
        if not request.images:
            return request
        return dataclasses.replace(request, images=tuple(map(self._shipped, request.images)))

    def _shipped(self, handle: ImageHandle) -> ShippedImage:
        name = handle.identity()
        if name not in self._packed:
            try:
                data, fault = _encoded(handle), ""
            except ImageError as error:
                data, fault = b"", str(error)
            self._packed[name] = ShippedImage(data, handle.digest(), name, handle.paths(), fault)
        return self._packed[name]


def _encoded(handle: ImageHandle) -> bytes:
    """The file's own bytes where there are such, otherwise the decoded pixels as PNG."""
    if isinstance(handle, ImageBytes):
        return handle.data
    if isinstance(handle, (ImageFile, TableImage)):
        return handle.encoded()
    pil_image = handle.open()
    if pil_image.mode not in _PNG:
        raise UsageError(
            f"--ship-data: {handle.identity()} has pixels of mode {pil_image.mode}, which cannot be sent "
            "without loss; put the data where all machines see it"
        )
    file = io.BytesIO()
    pil_image.save(file, "PNG", compress_level=1)
    return file.getvalue()
