"""TextVQA (Singh et al. 2019): questions about text in photographs, each answered by ten people.

Not a column of the paper's tables; `paper` is InternVL's script, whose evaluator is the challenge's (m4c).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evalkit.contracts import ImageHandle, Record, Response, Sample
from evalkit.errors import DataError
from evalkit.files import fields, id_of, read_json, text_of, texts_of
from evalkit.metrics.base import Mean, Metric
from evalkit.metrics.vqa_accuracy import textvqa_accuracy, textvqa_process, vqa_accuracy, vqa_process
from evalkit.task import DataFile, DataSource, HubSource, record
from evalkit_tasks.base import INTERNVL_IS_PAPER, drawn
from evalkit_tasks.general.rows import parquet_files, parquet_rows
from evalkit_tasks.general.settings import (
    LMMS_TOKENS,
    SHORT_ANSWER,
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    ImageFiles,
    ProtocolTask,
    Settings,
    each_once,
    lacking,
)

_FILE = "TextVQA_0.5.1_val.json"
_SOURCE = "https://textvqa.org/dataset (train_val_images.zip holds train_images/), or hub lmms-lab/textvqa"
_LICENCE = "CC BY 4.0"
_HUMANS = 10


class TextVQA(ProtocolTask):
    """TextVQA."""

    name = "textvqa"
    title = "TextVQA"
    about = "Text in photographs, short answers"
    splits = ("val",)
    settings: ClassVar = {
        "paper": Settings("{question} " + SHORT_ANSWER, 10, 6),
        "vlmevalkit": Settings("{question}\n" + SHORT_ANSWER, VLMEVALKIT_TOKENS, 6, VLMEVALKIT_TILES),
        "lmms-eval": Settings("{question}\n" + SHORT_ANSWER, LMMS_TOKENS, 6),
    }
    protocols = (*settings, "internvl")
    same_scorer = INTERNVL_IS_PAPER
    data_source = DataSource(
        files={"val": [DataFile(path, _SOURCE, _LICENCE) for path in (_FILE, "train_images/")]},
        hub={"val": HubSource("lmms-lab/textvqa", split="validation")},
        sizes={"val": 5000},
        draw=drawn(name),
    )

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; official JSON or the hub's Parquet files."""
        for sample in each_once(self._read(root), root):
            if self.rules == "lmms-eval":  # its prompt capitalises the question, lowering all the rest
                sample = dataclasses.replace(sample, turns=(sample.turns[0].capitalize(),))
            yield sample

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        plain = self.rules == "vlmevalkit"
        accuracy, process = (vqa_accuracy, vqa_process) if plain else (textvqa_accuracy, textvqa_process)
        scores = {"vqa_accuracy": accuracy(response.text, sample.target)}
        return record(sample, response, prediction=process(response.text), scores=scores)

    def metrics(self) -> Sequence[Metric]:
        """VQA accuracy."""
        return (Mean("vqa_accuracy"),)

    def _read(self, root: Path) -> Iterator[Sample]:
        if (path := root / _FILE).exists():
            content = fields(read_json(path), ("data",), str(path))
            if not isinstance(content["data"], list):
                raise DataError(f"{path}: field 'data' is not a list: not the official file")
            files = ImageFiles(root)
            for number, item in enumerate(content["data"]):
                where = f"{path} item {number}"
                found = fields(item, ("question_id", "image_id", "question", "answers"), where)
                name = text_of(found, "image_id", where)
                image = files.find(f"train_images/{name}.jpg")
                yield _sample(found, image, name, where)
        elif parquet := parquet_files(root, "validation"):
            for row in parquet_rows(parquet, ("question_id", "question", "answers", "image")):
                yield _sample(row.cells, row.images[0], row.cluster, row.where)
        else:
            raise lacking(self, root, (_FILE,))


def _sample(item: Mapping[str, Any], image: ImageHandle, cluster: str, where: str) -> Sample:
    identity, answers = id_of(item, "question_id", where), item["answers"]
    if not isinstance(answers, list) or len(answers) != _HUMANS:
        raise DataError(f"{where}: expected {_HUMANS} answers: not the official file")
    target = texts_of(item, "answers", where)
    return Sample(identity, (text_of(item, "question", where),), (image,), target, cluster)
