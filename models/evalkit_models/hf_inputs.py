"""Input of a transformers model, made by a thread while the network answers the batch before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from evalkit.contracts import Request

if TYPE_CHECKING:
    from PIL.Image import Image


class Prompt(NamedTuple):
    """A request, its prompt as text, and its images."""

    request: Request
    text: str
    images: Sequence[Image]


class InputMaker:
    """Runs a processor in one thread: cutting an image into tiles takes a tenth of what the network takes.

    Args:
        processor: of the checkpoint; nobody else may use its tokenizer, which is not made for two threads.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._thread = ThreadPoolExecutor(1, "inputs")

    def begin(self, batch: Sequence[Prompt]) -> Future[Any]:
        """Make the tensors of a batch, on the CPU; what the processor raises is the future's exception."""
        return self._thread.submit(self._make, batch)

    def ahead(self, batches: Iterable[Sequence[Prompt]]) -> Iterator[tuple[Sequence[Prompt], Future[Any]]]:
        """Each batch with its input, when that of the next one is begun."""
        waiting: tuple[Sequence[Prompt], Future[Any]] | None = None
        for batch in batches:
            begun = batch, self.begin(batch)
            if waiting is not None:
                yield waiting
            waiting = begun
        if waiting is not None:
            yield waiting

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _make(self, batch: Sequence[Prompt]) -> Any:
        images = [list(prompt.images) for prompt in batch]
        return self._processor(
            text=[prompt.text for prompt in batch],
            images=images if any(images) else None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
