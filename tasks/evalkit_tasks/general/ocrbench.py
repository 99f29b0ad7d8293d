"""OCRBench (Liu et al. 2023): a thousand questions about text; the score counts answers that hold the truth.

`paper` is VLMEvalKit's protocol. The score is out of 1000, so on the whole set it is the published count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evalkit.contracts import ImageHandle, Record, Response, Sample
from evalkit.errors import DataError
from evalkit.files import fields, text_of, texts_of
from evalkit.metrics.base import Mean, Metric
from evalkit.metrics.contains import contains_formula, contains_text, fold_full_width
from evalkit.task import DataFile, DataSource, HubSource, record
from evalkit_tasks.base import drawn
from evalkit_tasks.general.rows import (
    Row,
    listed_items,
    literal_list,
    parquet_files,
    parquet_rows,
    tsv_rows,
    unique,
)
from evalkit_tasks.general.settings import (
    SHORT_ANSWER,
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    VLMEVALKIT_TOKENS_2024,
    ImageFiles,
    ProtocolTask,
    Settings,
    lacking,
)

_TSV, _JSON = "OCRBench.tsv", "OCRBench.json"
_SOURCE = (
    "https://github.com/Yuliang-Liu/MultimodalOCR (OCRBench.json, OCRBench_Images.zip), hub "
    "echo840/OCRBench, or https://opencompass.openxlab.space/utils/VLMEval/OCRBench.tsv"
)
_LICENCE = "MIT (images: many sources)"
FORMULAS = "Handwritten Mathematical Expression Recognition"


class OCRBench(ProtocolTask):
    """OCRBench."""

    name = "ocrbench"
    title = "OCRBench"
    about = "Text in images, counted of 1,000"
    settings: ClassVar = {
        "paper": Settings("{question}\n" + SHORT_ANSWER, VLMEVALKIT_TOKENS_2024, 24),
        "vlmevalkit": Settings("{question}\n" + SHORT_ANSWER, VLMEVALKIT_TOKENS, 24, VLMEVALKIT_TILES),
        "official": Settings("{question}", 100, 24),
        "lmms-eval": Settings("{question}", 128, 6),
    }
    protocols = tuple(settings)
    same_scorer: ClassVar = {"vlmevalkit": "paper"}
    group_by = ("type",)
    data_source = DataSource(
        files={
            "test": (
                DataFile(_TSV, _SOURCE, _LICENCE, alternatives=(_JSON,)),
                DataFile("OCRBench_Images/", _SOURCE, _LICENCE, alternatives=(_TSV,)),
            )
        },
        hub={"test": HubSource("echo840/OCRBench", split="test")},
        sizes={"test": 1000},
        draw=drawn(name),
    )

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; VLMEvalKit's TSV, the hub's Parquet files or the official JSON.

        The ids of the last two are rows from 0: the official `id` counts within each source.
        """
        if (path := root / _TSV).exists():
            rows = tsv_rows(path, ("index", "question", "answer", "category"))
            for identity, row in unique(rows, "index"):
                yield self._from_row(identity, row, "category")
        elif (path := root / _JSON).exists():
            yield from self._from_list(path, root)
        elif parquet := parquet_files(root, "test"):
            for number, row in enumerate(parquet_rows(parquet, ("question", "answer", "question_type"))):
                yield self._from_row(str(number), row, "question_type")
        else:
            raise lacking(self, root, (_TSV, _JSON))

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        text, target = response.text, sample.target
        if sample.tags["type"] == FORMULAS:
            right = contains_formula(text, target)
        elif self.protocol == "lmms-eval":
            right = contains_text(fold_full_width(text), [fold_full_width(item) for item in target])
        else:
            right = contains_text(text, target)
        return record(sample, response, prediction=text, scores={"right": right})

    def metrics(self) -> Sequence[Metric]:
        """Right answers of 1000."""
        return (_OfThousand("score", "right", unit="score", scale=1000.0, binary=True),)

    def _from_list(self, path: Path, root: Path) -> Iterator[Sample]:
        files = ImageFiles(root)
        for number, (item, where) in enumerate(listed_items(path)):
            found = fields(item, ("image_path", "question", "answers", "type"), where)
            name = text_of(found, "image_path", where)
            image = files.find(name, f"OCRBench_Images/{name}", f"images/{name}")
            answers = texts_of(found, "answers", where)
            question, kind = text_of(found, "question", where), text_of(found, "type", where)
            yield self._sample(str(number), question, answers, kind, image, name, where)

    def _from_row(self, identity: str, row: Row, kind: str) -> Sample:
        answers, question = literal_list(row.cells["answer"], row.where), row.text("question")
        return self._sample(
            identity, question, answers, row.text(kind), row.images[0], row.cluster, row.where
        )

    def _sample(
        self,
        identity: str,
        question: str,
        answers: list[str],
        kind: str,
        image: ImageHandle,
        cluster: str,
        where: str,
    ) -> Sample:
        if not answers:
            raise DataError(f"{where}: no answer: not the official file")
        if self.protocol == "lmms-eval":
            question = question.strip()
        tags: dict[str, Any] = {"type": kind}
        return Sample(identity, (question,), (image,), answers, cluster, tags)


class _OfThousand(Mean):
    """A share out of 1000."""

    @property
    def bounds(self) -> tuple[float, float]:
        """0 to 1000."""
        return 0.0, 1000.0
