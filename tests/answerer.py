"""A model that answers from the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from evalkit.contracts import ModelInfo, Request, Response, Sample


def boxed(sample: Sample, shift: float) -> str:
    """An answer to DIOR-RSVG: the target's box, moved by a part of the image."""
    width, height = sample.data["size"]
    scale = (1000 / width, 1000 / height)
    corners = [round(value * scale[place % 2] + 1000 * shift) for place, value in enumerate(sample.target)]
    return f"[[{', '.join(map(str, corners))}]]"


def spoken(sample: Sample, shift: float) -> str:
    """An answer to RSVQA: the target, or something else."""
    return "nonsense" if shift else str(sample.target)


def tagged(sample: Sample, shift: float) -> str:
    """An answer to DriveLM: the target with its camera pixels, or a letter."""
    return "A" if shift else str(sample.target)


def lettered(sample: Sample, shift: float) -> str:
    """An answer to MMBench: the target's letter, or another."""
    return "ABC"["ABC".find(str(sample.target)) - 1] if shift else str(sample.target)


ANSWERS: dict[str, Callable[[Sample, float], str]] = {
    "dior-rsvg": boxed,
    "rsvqa-lr": spoken,
    "drivelm": tagged,
    "mmbench": lettered,
}


class Answerer:
    """A model that answers a task's samples from its targets, every n-th one wrong."""

    def __init__(self, name: str, task: str, samples: Sequence[Sample], every: int) -> None:
        self.info = ModelInfo(name, fingerprint=name, dtype="float32", parameters=2_800_000)
        self._texts = {
            sample.id: ANSWERS[task](sample, 0.0 if (place + 1) % every else 0.4)
            for place, sample in enumerate(samples)
        }

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """The text that was made for each sample."""
        for request in requests:
            yield request.id, Response(self._texts[request.id], "stop", 12, 16, 8, 0.01)

    def close(self) -> None:
        """Nothing is held."""
