"""Does the embedded model see? Its scores on seven miniatures beside a blank image and the majority answer.

    python benchmarks/tiny_baselines.py [--checkpoint FOLDER] [--task NAME ...] [--output runs]

`blank` is the same model shown a grey image of the same size; `majority` answers every question with the
answer that is most frequent among questions of its kind, taken from the miniature's own labels. A metric
stands apart where the model's 95% interval lies wholly above both baselines' intervals, and the script ends
with status 1 unless every task's headline, its first metric, does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image

import evalkit
from evalkit import registry
from evalkit.contracts import (
    ImageHandle,
    MetricValue,
    Model,
    ModelInfo,
    ModelOptions,
    Request,
    Response,
    Sample,
)
from evalkit.data.locate import locate
from evalkit.task import MINIATURE

#: Task to its metrics; the first is the headline.
METRICS: Mapping[str, tuple[str, ...]] = {
    "mmbench": ("circular", "vanilla"),
    "chartqa": ("average", "human", "augmented"),
    "docvqa": ("anls",),
    "rsvqa-lr": ("average", "rural_urban", "presence", "compare"),
    "dior-rsvg": ("acc_0.5", "mean_iou"),
    "bdd-x": ("description_cider", "justification_cider", "speed_a_0.5", "angle_a_0.5"),
    "drivelm": ("accuracy", "language", "match_f1"),
}
#: Words of a question that tell its kind, besides the task's own tags.
_KIND_WORDS = {"mmbench": 2, "chartqa": 4, "docvqa": 4}


@dataclass(frozen=True, slots=True)
class BlankImage:
    """A grey image of the same size as another."""

    original: ImageHandle

    def open(self) -> Image.Image:
        """The grey image."""
        return Image.new("RGB", self.original.open().size, (128, 128, 128))

    def digest(self) -> str:
        """Differs from the original's."""
        return f"blank-{self.original.digest()}"

    def identity(self) -> str:
        """As the original's."""
        return self.original.identity()

    def paths(self) -> tuple[str, ...]:
        """No file."""
        return ()


class Blind:
    """A model that is shown blank images."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.info = replace(model.info, name=f"{model.info.name}-blank")

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """The model's answers without sight."""
        yield from self._model.generate(
            [replace(r, images=tuple(BlankImage(image) for image in r.images)) for r in requests]
        )

    def close(self) -> None:
        """Nothing to free."""


class Majority:
    """Answers by the question's kind alone."""

    def __init__(self, task: str, samples: Sequence[Sample]) -> None:
        self.info = ModelInfo(name="majority")
        answers: dict[str, list[str]] = defaultdict(list)
        for sample in samples:
            answers[_kind(task, sample)].append(_answer(task, sample))
        best = {kind: Counter(texts).most_common(1)[0][0] for kind, texts in answers.items()}
        self._answers = {sample.id: best[_kind(task, sample)] for sample in samples}

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        """The most frequent answer of each question's kind."""
        for request in requests:
            yield request.id, Response(self._answers[request.id], "stop")

    def close(self) -> None:
        """Nothing to free."""


def _kind(task: str, sample: Sample) -> str:
    words = sample.turns[-1].split()[: _KIND_WORDS.get(task, 0)]
    tags = {name: value for name, value in sample.tags.items() if name != "image"}
    return json.dumps([tags, words], sort_keys=True)


def _answer(task: str, sample: Sample) -> str:
    target = sample.target
    if task == "dior-rsvg":
        width, height = sample.data["size"]
        x1, y1, x2, y2 = (round(1000 * v / s) for v, s in zip(target, (width, height) * 2, strict=True))
        return f"<box>[[{x1}, {y1}, {x2}, {y2}]]</box>"
    if isinstance(target, dict):
        return str(next(iter(target.values())))
    return str(target[0] if isinstance(target, list) else target)


def above(ours: MetricValue, other: MetricValue) -> bool:
    """Whether our interval lies wholly above the other's, whose value stands for an interval it lacks."""
    if ours.ci95 is None:
        return False
    return ours.ci95[0] > (other.ci95[1] if other.ci95 else other.value or 0.0)


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint")
    parser.add_argument("--task", nargs="*", default=list(METRICS))
    parser.add_argument("--output", default="runs")
    options = parser.parse_args()
    spec = "mini-internvl-tiny"
    model = registry.model(spec, ModelOptions(checkpoint=options.checkpoint))
    failed = 0
    print(f"{'task':10} {'metric':20} {'model':>24} {'blank image':>24} {'majority answer':>24}")
    for name in options.task:
        task = registry.task(name)
        samples = list(task.samples(MINIATURE, locate(task, MINIATURE)))
        results = [
            evalkit.run(each, name, split=MINIATURE, output=options.output, quiet=True).metrics
            for each in (model, Blind(model), Majority(name, samples))
        ]
        for metric in METRICS[name]:
            ours, *others = (result[metric] for result in results)
            passed = all(above(ours, other) for other in others)
            failed += metric == METRICS[name][0] and not passed
            cells = " ".join(f"{figure(result[metric]):>24}" for result in results)
            print(f"{name:10} {metric:20} {cells} {'apart' if passed else 'overlaps'}", flush=True)
    sys.exit(1 if failed else 0)


def figure(value: MetricValue) -> str:
    """A value with its interval, in three digits."""
    if value.value is None:
        return "-"
    interval = "" if value.ci95 is None else f" [{value.ci95[0]:.3g}, {value.ci95[1]:.3g}]"
    return f"{value.value:.3g}{interval}"


if __name__ == "__main__":
    main()
