"""ChartQA (Masry et al. 2022): questions about charts, asked by people and generated.

Protocols differ in prompt, length of the answer and the direction of the 5 % rule; see docs/protocols.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from evalkit.contracts import ImageHandle, Record, Response, Sample
from evalkit.errors import DataError
from evalkit.files import fields, read_jsonl, text_of, texts_of
from evalkit.metrics.base import Accuracy, Metric, macro_mean
from evalkit.metrics.relaxed_accuracy import internvl_relaxed, lmms_relaxed, vlmevalkit_relaxed
from evalkit.task import MINIATURE, DataFile, DataSource, HubSource, record
from evalkit.task_parts import find
from evalkit_tasks.base import INTERNVL_IS_PAPER, drawn
from evalkit_tasks.general.rows import listed_items, parquet_files, parquet_rows
from evalkit_tasks.general.settings import (
    SHORT_ANSWER,
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    ImageFiles,
    ProtocolTask,
    Settings,
    lacking,
)

SUBSETS = ("human", "augmented")
_SOURCE = "https://github.com/vis-nlp/ChartQA (ChartQA Dataset.zip), or hub ahmed-masry/ChartQA"
_LICENCE = "GPL-3.0"
_SCORERS = {"paper": internvl_relaxed, "vlmevalkit": vlmevalkit_relaxed, "lmms-eval": lmms_relaxed}


def _names(split: str, subset: str) -> tuple[str, ...]:
    official = f"{split}/{split}_{subset}.json"
    return official, f"ChartQA Dataset/{official}", f"{split}_{subset}.jsonl", f"{split}_{subset}.json"


def _files(split: str) -> Sequence[DataFile]:
    annotations = [_names(split, subset) for subset in SUBSETS]
    files = [DataFile(names[0], _SOURCE, _LICENCE, alternatives=names[1:]) for names in annotations]
    png = DataFile(f"{split}/png/", _SOURCE, _LICENCE, alternatives=(f"ChartQA Dataset/{split}/png/",))
    return *files, png


class ChartQA(ProtocolTask):
    """ChartQA."""

    name = "chartqa"
    title = "ChartQA"
    about = "Charts, short answers, numbers within 5%"
    splits = ("test", "val")
    settings: ClassVar = {
        "paper": Settings("{question} " + SHORT_ANSWER, 100, 12),
        "vlmevalkit": Settings("{question}\n" + SHORT_ANSWER, VLMEVALKIT_TOKENS, 12, VLMEVALKIT_TILES),
        "lmms-eval": Settings("{question}\nAnswer the question with a single word.", 16, 6),
    }
    protocols = (*settings, "internvl")
    same_scorer = INTERNVL_IS_PAPER
    data_source = DataSource(
        files={split: _files(split) for split in ("test", "val")},
        hub={"test": HubSource("lmms-lab/ChartQA", split="test")},
        sizes={"test": 2500, "val": 1920},
        draw=drawn(name),
    )

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; official JSON, Qwen-VL's jsonl, or the hub's Parquet files."""
        split = self.splits[0] if split == MINIATURE else split
        files = {subset: find(root, _names(split, subset)) for subset in SUBSETS}
        if any(files.values()):
            for subset, path in files.items():
                if path is None:
                    raise lacking(self, root, _names(split, subset))
                yield from _read(path, root, split, subset)
        elif parquet := parquet_files(root, split):
            yield from _from_hub(parquet)
        else:
            raise lacking(self, root, _names(split, SUBSETS[0]))

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        right = _SCORERS[self.rules](response.text, sample.target)
        return record(sample, response, prediction=response.text.strip(), scores={"accuracy": right})

    def metrics(self) -> Sequence[Metric]:
        """The mean of both subsets, and each; the other harnesses average over all questions alike."""
        parts = [Accuracy(name, "accuracy", select=partial(_in_subset, name)) for name in SUBSETS]
        pooled = self.rules != "paper"
        return (Accuracy("average", "accuracy") if pooled else macro_mean("average", parts)), *parts


def _in_subset(subset: str, item: Record) -> bool:
    return item.tags["subset"] == subset


def _read(path: Path, root: Path, split: str, subset: str) -> Iterator[Sample]:
    files = ImageFiles(root)
    if path.suffix == ".jsonl":
        for row, item in enumerate(read_jsonl(path)):
            found, where = fields(item, ("image", "question", "answer"), item.where), item.where
            name, question = text_of(found, "image", where), text_of(found, "question", where)
            image = files.find(name)
            yield _sample(subset, row, question, texts_of(found, "answer", where), image, name)
        return
    folder = path.parent.relative_to(root) / "png"
    for row, (item, where) in enumerate(listed_items(path)):
        found = fields(item, ("imgname", "query", "label"), where)
        name = text_of(found, "imgname", where)
        image = files.find(f"{folder}/{name}", f"{split}/png/{name}", f"png/{name}")
        answers = texts_of(found, "label", where)
        yield _sample(subset, row, text_of(found, "query", where), answers, image, name)


def _from_hub(paths: Sequence[Path]) -> Iterator[Sample]:
    seen = Counter[str]()
    for row in parquet_rows(paths, ("type", "question", "answer", "image")):
        subset = row.text("type").partition("_")[0]
        if subset not in SUBSETS:
            raise DataError(f"{row.where}: type {row.text('type')!r} is neither human nor augmented")
        answers = texts_of(row.cells, "answer", row.where)
        yield _sample(subset, seen[subset], row.text("question"), answers, row.images[0], row.cluster)
        seen[subset] += 1


def _sample(
    subset: str, row: int, question: str, answers: list[str], image: ImageHandle, cluster: str
) -> Sample:
    return Sample(f"{subset}-{row}", (question,), (image,), answers, cluster, {"subset": subset})
