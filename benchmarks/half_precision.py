"""How many answers of the embedded model does bfloat16 change, and how many prefix caching in it?

    python benchmarks/half_precision.py [--task NAME ...] [--limit N] [--threads 1] [--checkpoint FOLDER]

Every task's miniature is answered greedily in float32 and in bfloat16, with prefix caching and with
`--no-prefix-caching` (batches, no work in common); in bfloat16 also one question at a time without prefix
caching. The last two both leave it out: their difference shows what the order of sums alone does. An answer
is unequal where its text is; it is unequal in the first token where the first tokens of the two texts are.
Shares carry 95% intervals clustered by image. The script ends with status 1 if prefix caching changes an
answer in float32.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tiny_baselines import figure

import evalkit
from evalkit import registry
from evalkit.contracts import MetricValue, ModelOptions, Record
from evalkit.metrics.base import Accuracy
from evalkit.pipeline.results import RunResult
from evalkit.statistics import estimate
from evalkit.task import MINIATURE

if TYPE_CHECKING:
    from mini_internvl import Tokenizer

MODEL = "mini-internvl-tiny"
#: Task to the metrics whose scores are printed.
TASKS = {
    "mmbench": ("circular",),
    "chartqa": ("average",),
    "docvqa": ("anls",),
    "rsvqa-lr": ("average",),
    "dior-rsvg": ("acc_0.5", "mean_iou"),
    "bdd-x": ("description_cider", "justification_cider", "speed_a_0.5"),
    "drivelm": ("accuracy", "language", "match_f1"),
}


@dataclass(frozen=True, slots=True)
class Way:
    """How a miniature is answered."""

    dtype: str
    sharing: bool
    batch_size: int | None = None

    def __str__(self) -> str:
        kind = "one by one" if self.batch_size == 1 else "shared" if self.sharing else "not shared"
        return f"{self.dtype} {kind}"


SINGLE, HALF = "float32", "bfloat16"
WAYS = (Way(SINGLE, True), Way(SINGLE, False), Way(HALF, True), Way(HALF, False), Way(HALF, False, 1))
#: Which ways are compared.
PAIRS = ((0, 1), (2, 3), (2, 4), (3, 4), (0, 2))


@dataclass(frozen=True, slots=True)
class Unequal:
    """Answers that differ between two ways.

    Attributes:
        records: one for each answer, with the scores `unequal` and `first`, 0 or 1.
    """

    records: Sequence[Record]

    @classmethod
    def between(cls, base: Sequence[Record], new: Sequence[Record], tokenizer: Tokenizer) -> Unequal:
        """Compare the texts of the same samples."""
        found = []
        for one, other in zip(base, new, strict=True):
            if one.id != other.id or one.failed or other.failed:
                raise ValueError(f"{one.id}, {other.id}: not two answers to one question")
            first = tokenizer.encode(one.text)[:1] != tokenizer.encode(other.text)[:1]
            scores = {"unequal": float(one.text != other.text), "first": float(first)}
            found.append(replace(one, scores=scores))
        return cls(found)

    def count(self, score: str) -> int:
        """How many."""
        return sum(record.scores[score] == 1 for record in self.records)

    def __str__(self) -> str:
        share = estimate(Accuracy("unequal"), self.records)
        return (
            f"{self.count('unequal'):4} of {len(self.records):4}  {figure(share):22} {self.count('first'):5}"
        )


def main() -> None:
    """Print both tables of every task, and the totals."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", action="append", choices=list(TASKS))
    parser.add_argument("--limit", type=int, help="samples a task; all by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before torch is imported
    tokenizer = _tokenizer(options.checkpoint)
    tasks = options.task or list(TASKS)
    started, totals = time.perf_counter(), {pair: list[Record]() for pair in PAIRS}
    with tempfile.TemporaryDirectory() as folder:
        results = [_answer(way, tasks, options, Path(folder) / str(way)) for way in WAYS]
    print(f"{'task':10} {'compared':44} {'unequal':>12}  {'share, %':22} first token")
    for task in tasks:
        for pair in PAIRS:
            base, new = (results[place][task].records for place in pair)
            unequal = Unequal.between(base, new, tokenizer)
            totals[pair] += [
                replace(record, cluster=f"{task} {record.cluster}") for record in unequal.records
            ]
            print(f"{task:10} {_names(pair):44} {unequal}")
    for pair, records in totals.items():
        print(f"{'all':10} {_names(pair):44} {Unequal(records)}")
    _print_scores(tasks, results)
    print(f"{time.perf_counter() - started:.0f} s, {options.threads} thread(s)")
    sys.exit(1 if Unequal(totals[0, 1]).count("unequal") else 0)


@dataclass(frozen=True, slots=True)
class Answers:
    """One way's answers to one task."""

    records: Sequence[Record]
    metrics: dict[str, MetricValue]
    seconds: float

    @classmethod
    def of(cls, result: RunResult, seconds: float) -> Answers:
        """What a run folder holds, in the order of the samples' ids."""
        return cls(sorted(result.stored.records(), key=lambda record: record.id), result.metrics, seconds)


def _answer(way: Way, tasks: Sequence[str], options: argparse.Namespace, output: Path) -> dict[str, Answers]:
    model = registry.model(
        MODEL,
        ModelOptions(
            checkpoint=options.checkpoint,
            dtype=way.dtype,
            prefix_caching=way.sharing,
            batch_size=way.batch_size,
        ),
    )
    found = {}
    for task in tasks:
        started = time.perf_counter()
        result = evalkit.run(model, task, split=MINIATURE, limit=options.limit, output=output, quiet=True)
        found[task] = Answers.of(result, time.perf_counter() - started)
        print(f"{way}: {task} {found[task].seconds:.0f} s", file=sys.stderr)
    model.close()
    return found


def _tokenizer(checkpoint: str | None) -> Tokenizer:
    from mini_internvl import load

    tokenizer = load(MODEL, folder=checkpoint).tokenizer
    if tokenizer is None:
        raise SystemExit(f"{checkpoint}: has no tokenizer files")
    return tokenizer


def _print_scores(tasks: Sequence[str], results: Sequence[dict[str, Answers]]) -> None:
    print(f"\n{'task':10} {'metric':20} " + " ".join(f"{way!s:>22}" for way in WAYS))
    for task in tasks:
        for metric in TASKS[task]:
            cells = (figure(answers[task].metrics[metric]) for answers in results)
            print(f"{task:10} {metric:20} " + " ".join(f"{cell:>22}" for cell in cells))


def _names(pair: tuple[int, int]) -> str:
    return " | ".join(str(WAYS[place]) for place in pair)


if __name__ == "__main__":
    main()
