"""DocVQA (Mathew et al. 2021) and InfographicVQA (Mathew et al. 2022): questions about document pages.

The answers of test are not public: `export` writes the challenge's submission file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evalkit.contracts import Record, Response, Sample
from evalkit.errors import DataError
from evalkit.files import fields, read_json
from evalkit.metrics.anls import anls
from evalkit.metrics.base import Mean, Metric
from evalkit.task import MINIATURE, DataFile, HubSource, record
from evalkit_tasks.general.rows import parquet_files, parquet_rows
from evalkit_tasks.general.settings import (
    SHORT_ANSWER,
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    ProtocolTask,
    Settings,
    answered,
    find,
    lacking,
    picture,
)

_HUB_SPLITS = {"val": "validation", "test": "test"}


def _settings(tiles: int) -> Mapping[str, Settings]:
    spaced, lined = "{question} " + SHORT_ANSWER, "{question}\n" + SHORT_ANSWER
    return {
        "paper": Settings(spaced, 100, tiles),
        "vlmevalkit": Settings(lined, VLMEVALKIT_TOKENS, tiles, VLMEVALKIT_TILES),
        "lmms-eval": Settings(lined, 32, 6),
    }


class DocVQA(ProtocolTask):
    """DocVQA task 1, single page."""

    name = "docvqa"
    title = "DocVQA"
    splits = ("val", "test")
    settings = _settings(tiles=18)
    protocols = tuple(settings)
    sizes: ClassVar = {"val": 5349, "test": 5188}
    export_name = "docvqa.json"
    hub_configuration: ClassVar[str] = "DocVQA"
    image_field: ClassVar[str] = "image"
    source: ClassVar[str] = "https://rrc.cvc.uab.es/?ch=17 (registration), or hub lmms-lab/DocVQA"
    licence: ClassVar[str] = "RRC challenge terms"

    def annotations(self, split: str) -> tuple[str, ...]:
        """Accepted names of the split's questions, as released first and in the newer packing."""
        old, new = f"{split}_v1.0.json", f"{split}_v1.0_withQT.json"
        qas = (f"spdocvqa_qas/{new}", f"spdocvqa_qas/{old}")
        return f"{split}/{old}", *qas, f"{split}/{new}", old, new

    def pictures(self, split: str) -> tuple[str, ...]:
        """Accepted folders of the split's pictures."""
        return f"{split}/documents/", "spdocvqa_images/", "documents/"

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; official JSON or the hub's Parquet files."""
        split = self.splits[0] if split == MINIATURE else split
        if (path := find(root, self.annotations(split))) is not None:
            yield from self._read(path, root, split)
        elif parquet := parquet_files(root, _HUB_SPLITS[split], self.hub_configuration):
            yield from self._from_hub(parquet, split)
        else:
            raise lacking(self, root, self.annotations(split))

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        scores = {} if sample.target is None else {"anls": anls(response.text, sample.target)}
        return record(sample, response, prediction=response.text, scores=scores)

    def metrics(self) -> Sequence[Metric]:
        """Average normalised Levenshtein similarity."""
        return (Mean("anls"),)

    def data_files(self, split: str) -> Sequence[DataFile]:
        """See `Task.data_files`."""
        names, folders = self.annotations(split), self.pictures(split)
        return (
            DataFile(names[0], self.source, self.licence, alternatives=names[1:]),
            DataFile(folders[0], self.source, self.licence, alternatives=folders[1:]),
        )

    def hub(self, split: str) -> HubSource | None:
        """See `Task.hub`."""
        return HubSource("lmms-lab/DocVQA", self.hub_configuration, _HUB_SPLITS[split])

    def export(self, records: Sequence[Record], path: Path) -> None:
        """Write the challenge's file: a list of `questionId` (number) and `answer`."""
        items = [{"questionId": int(r.id), "answer": r.text} for r in answered(records)]
        path.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")

    def _read(self, path: Path, root: Path, split: str) -> Iterator[Sample]:
        content = fields(read_json(path), ("data",), str(path))
        if not isinstance(content["data"], list):
            raise DataError(f"{path}: field 'data' is no list: not the official file")
        seen = set[str]()
        for number, item in enumerate(content["data"]):
            where = f"{path} item {number}"
            found = fields(item, ("questionId", "question", self.image_field), where)
            name = str(found[self.image_field])
            folders = [f"{folder}{Path(name).name}" for folder in self.pictures(split)]
            image = picture(root, *folders, name)
            identity = _new_id(found["questionId"], seen, where)
            yield Sample(identity, (str(found["question"]),), (image,), _answers(found, split, where), name)

    def _from_hub(self, paths: Sequence[Path], split: str) -> Iterator[Sample]:
        seen = set[str]()
        for row in parquet_rows(paths, ("questionId", "question", "image", "answers")):
            identity = _new_id(row.cells["questionid"], seen, row.where)
            target = _answers(row.cells, split, row.where)
            yield Sample(identity, (row.text("question"),), row.images[:1], target, row.cluster)


class InfographicVQA(DocVQA):
    """InfographicVQA."""

    name = "infovqa"
    title = "InfoVQA"
    settings = _settings(tiles=24)
    sizes: ClassVar = {"val": 2801, "test": 3288}
    export_name = "infovqa.json"
    hub_configuration = "InfographicVQA"
    image_field = "image_local_name"

    def annotations(self, split: str) -> tuple[str, ...]:
        """Accepted names of the split's questions."""
        name = f"infographicsVQA_{split}_v1.0"
        found = (f"{name}.json", f"{name}_withQT.json", f"{name}*.json")
        return *found, *(f"infographicsvqa_qas/{item}" for item in found)

    def pictures(self, split: str) -> tuple[str, ...]:
        """Accepted folders of the pictures."""
        return "infographicsvqa_images/", f"infographicsVQA_{split}_v1.0_images/", "images/"


def _new_id(value: object, seen: set[str], where: str) -> str:
    """The question's id, a whole number as the submission needs it; DataError where it is not, or not new."""
    text = str(value)
    if not text.isdecimal():
        raise DataError(f"{where}: questionId {text[:40]!r} is no whole number: not the official file")
    if text in seen:
        raise DataError(f"{where}: questionId {text} occurs twice: not the official file, download it again")
    seen.add(text)
    return text


def _answers(item: Mapping[str, Any], split: str, where: str) -> list[str] | None:
    """Accepted answers; None where a test item has none, as published."""
    answers = item.get("answers")
    if not answers and split == "test":
        return None
    if not isinstance(answers, list) or not answers:
        raise DataError(f"{where}: field 'answers' missing or empty: not the official file")
    return [str(answer) for answer in answers]
