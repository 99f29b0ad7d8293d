"""DocVQA (Mathew et al. 2021) and InfographicVQA (Mathew et al. 2022): questions about document pages.

The answers of test are not public: `export` writes the challenge's submission file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, ClassVar, NamedTuple

from evalkit.contracts import Record, Response, Sample
from evalkit.errors import DataError
from evalkit.files import fields, read_json, text_of, texts_of
from evalkit.metrics.anls import anls
from evalkit.metrics.base import Mean, Metric
from evalkit.task import MINIATURE, DataFile, DataSource, HubSource, Submission, record
from evalkit.task_parts import find
from evalkit_tasks.base import INTERNVL_IS_PAPER, drawn
from evalkit_tasks.general.rows import parquet_files, parquet_rows
from evalkit_tasks.general.settings import (
    SHORT_ANSWER,
    VLMEVALKIT_TILES,
    VLMEVALKIT_TOKENS,
    ImageFiles,
    ProtocolTask,
    Settings,
    answered,
    each_once,
    lacking,
)

_SOURCE = "https://rrc.cvc.uab.es/?ch=17 (registration), or hub lmms-lab/DocVQA"
_LICENCE = "RRC challenge terms"
_HUB_SPLITS = {"val": "validation", "test": "test"}


def _settings(tiles: int) -> Mapping[str, Settings]:
    spaced, lined = "{question} " + SHORT_ANSWER, "{question}\n" + SHORT_ANSWER
    return {
        "paper": Settings(spaced, 100, tiles),
        "vlmevalkit": Settings(lined, VLMEVALKIT_TOKENS, tiles, VLMEVALKIT_TILES),
        "lmms-eval": Settings(lined, 32, 6),
    }


class _Names(NamedTuple):
    """Accepted spellings of a split's files: its questions, and the folder of its images."""

    annotations: tuple[str, ...]
    folders: tuple[str, ...]


def _docvqa_names(split: str) -> _Names:
    """As released first, and in the newer packing."""
    old, new = f"{split}_v1.0.json", f"{split}_v1.0_withQT.json"
    qas = (f"spdocvqa_qas/{new}", f"spdocvqa_qas/{old}")
    return _Names(
        (f"{split}/{old}", *qas, f"{split}/{new}", old, new),
        (f"{split}/documents/", "spdocvqa_images/", "documents/"),
    )


def _infovqa_names(split: str) -> _Names:
    name = f"infographicsVQA_{split}_v1.0"
    found = (f"{name}.json", f"{name}_withQT.json", f"{name}*.json")
    return _Names(
        (*found, *(f"infographicsvqa_qas/{item}" for item in found)),
        ("infographicsvqa_images/", f"infographicsVQA_{split}_v1.0_images/", "images/"),
    )


def _file(spellings: tuple[str, ...]) -> DataFile:
    return DataFile(spellings[0], _SOURCE, _LICENCE, alternatives=spellings[1:])


def _source(
    task: str, configuration: str, names: Callable[[str], _Names], sizes: Mapping[str, int]
) -> DataSource:
    return DataSource(
        files={split: [_file(spellings) for spellings in names(split)] for split in _HUB_SPLITS},
        hub={split: HubSource("lmms-lab/DocVQA", configuration, _HUB_SPLITS[split]) for split in _HUB_SPLITS},
        sizes=sizes,
        draw=drawn(task),
    )


def _export(records: Sequence[Record], path: Path) -> None:
    """Write the challenge's file: a list of `questionId` (number) and `answer`."""
    items = [{"questionId": int(r.id), "answer": r.text} for r in answered(records)]
    path.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")


class DocVQA(ProtocolTask):
    """DocVQA task 1, single page."""

    name = "docvqa"
    title = "DocVQA"
    about = "Scanned documents, short answers"
    splits = ("val", "test")
    settings = _settings(tiles=18)
    protocols = (*settings, "internvl")
    same_scorer = INTERNVL_IS_PAPER
    hub_configuration: ClassVar[str] = "DocVQA"
    image_field: ClassVar[str] = "image"
    data_source = _source(name, hub_configuration, _docvqa_names, {"val": 5349, "test": 5188})
    submission = Submission("docvqa.json", _export)

    @staticmethod
    def names(split: str) -> _Names:
        """Accepted spellings of the split's files."""
        return _docvqa_names(split)

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; official JSON or the hub's Parquet files."""
        split = self.splits[0] if split == MINIATURE else split
        names = self.names(split).annotations
        if (path := find(root, names)) is not None:
            yield from each_once(self._read(path, root, split), root)
        elif parquet := parquet_files(root, _HUB_SPLITS[split], self.hub_configuration):
            yield from each_once(self._from_hub(parquet, split), root)
        else:
            raise lacking(self, root, names)

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        scores = {} if sample.target is None else {"anls": anls(response.text, sample.target)}
        return record(sample, response, prediction=response.text, scores=scores)

    def metrics(self) -> Sequence[Metric]:
        """Average normalised Levenshtein similarity."""
        return (Mean("anls"),)

    def _read(self, path: Path, root: Path, split: str) -> Iterator[Sample]:
        content = fields(read_json(path), ("data",), str(path))
        if not isinstance(content["data"], list):
            raise DataError(f"{path}: field 'data' is not a list: not the official file")
        files, folders = ImageFiles(root), self.names(split).folders
        for number, item in enumerate(content["data"]):
            where = f"{path} item {number}"
            found = fields(item, ("questionId", "question", self.image_field), where)
            name = text_of(found, self.image_field, where)
            base = PurePath(name).name
            image = files.find(*(f"{folder}{base}" for folder in folders), name)
            identity = _identity(found["questionId"], where)
            question, target = text_of(found, "question", where), _answers(found, split, where)
            yield Sample(identity, (question,), (image,), target, name)

    def _from_hub(self, paths: Sequence[Path], split: str) -> Iterator[Sample]:
        for row in parquet_rows(paths, ("questionId", "question", "image", "answers")):
            identity = _identity(row.cells["questionid"], row.where)
            target = _answers(row.cells, split, row.where)
            yield Sample(identity, (row.text("question"),), row.images[:1], target, row.cluster)


class InfographicVQA(DocVQA):
    """InfographicVQA."""

    name = "infovqa"
    title = "InfoVQA"
    about = "Infographics, short answers"
    settings = _settings(tiles=24)
    hub_configuration = "InfographicVQA"
    image_field = "image_local_name"
    data_source = _source(name, hub_configuration, _infovqa_names, {"val": 2801, "test": 3288})
    submission = Submission("infovqa.json", _export)

    @staticmethod
    def names(split: str) -> _Names:
        """See `DocVQA.names`."""
        return _infovqa_names(split)


def _identity(value: object, where: str) -> str:
    """The question's id, a whole number as the submission needs it."""
    text = str(value)
    if not text.isdecimal():
        raise DataError(f"{where}: questionId {text[:40]!r} is not a whole number: not the official file")
    return text


def _answers(item: Mapping[str, Any], split: str, where: str) -> list[str] | None:
    """Accepted answers; None where a test item has none, as published."""
    answers = item.get("answers")
    if not answers and split == "test":
        return None
    if not isinstance(answers, list) or not answers:
        raise DataError(f"{where}: field 'answers' missing or empty: not the official file")
    return texts_of(item, "answers", where)
