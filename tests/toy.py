"""A toy benchmark and a fake model, for the tests of the harness; `command` runs them in a process."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from evalkit.contracts import Failure, Model, ModelInfo, ModelOptions, Request, Response
from evalkit.errors import ImageError

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "adding-a-task.md"


def task_source() -> str:
    """The task file of docs/adding-a-task.md."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found.group(1)


def make_benchmark(folder: Path, samples: int = 20, per_image: int = 4) -> Path:
    """Write `yes_no.py` and its data; returns the task file. `per_image` samples share each image."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(samples):
        image = f"p{number // per_image}.png"
        if number % per_image == 0:
            shade = (number * 7) % 256
            Image.new("RGB", (8, 8), (shade, 255 - shade, number % 256)).save(folder / image)
        answer = "yes" if number % 3 else "no"
        kind = "odd" if number % 2 else "even"
        question = f"Is {number} it?"
        lines.append({"id": number, "image": image, "question": question, "answer": answer, "kind": kind})
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = folder / "yes_no.py"
    task.write_text(task_source())
    return task


class FakeModel:
    """Answers `yes` to most questions, after `delay` seconds; opens the images as a model does."""

    def __init__(self, delay: float = 0.0, answers: dict[str, str] | None = None) -> None:
        self.delay = delay
        self.answers = answers or {}
        self.asked: list[str] = []
        self.closed = False

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(name="fake", fingerprint="0", dtype="float32", device="cpu")

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        for request in requests:
            self.asked.append(request.id)
            if self.delay:
                time.sleep(self.delay)
            yield request.id, self.answer(request)

    def answer(self, request: Request) -> Response:
        try:
            for image in request.images:
                image.open()
        except ImageError as error:
            return Response(error=Failure("image", str(error)))
        text = self.answers.get(request.id, "No." if sum(map(ord, request.id)) % 5 == 0 else "Yes")
        return Response(text=text, finish="stop", prompt_tokens=9, visual_tokens=256, new_tokens=2)

    def close(self) -> None:
        self.closed = True


class FakeFamily:
    """`fake` or `fake:DELAY`; keeps the last model that it loaded."""

    def __init__(self, model: FakeModel | None = None) -> None:
        self.model = model
        self.options: ModelOptions | None = None

    def names(self) -> Sequence[str]:
        return ("fake",)

    def matches(self, spec: str) -> bool:
        return spec.partition(":")[0] == "fake"

    def load(self, spec: str, options: ModelOptions) -> Model:
        self.options = options
        self.model = self.model or FakeModel(float(spec.partition(":")[2] or 0))
        return self.model


def command(*arguments: str) -> list[str]:
    """The `evalkit` command as a process with the fake model in place of the installed ones.

    This folder comes last in the path: it holds a folder `evalkit` of tests.
    """
    start = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; sys.path.append({str(ROOT / 'tests')!r})"
    return [sys.executable, "-c", f"{start}; import toy; toy.main()", *arguments]


def main() -> None:
    """The command line with the fake model."""
    from evalkit import registry
    from evalkit.cli.main import invoke
    from evalkit_models.predictions import FAMILY

    registry.families = lambda: (FakeFamily(), FAMILY)  # type: ignore[assignment]
    sys.exit(invoke(sys.argv[1:]))
